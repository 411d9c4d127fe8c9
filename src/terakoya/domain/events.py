"""The one vocabulary of progress: worker, WebSocket, command line and page all speak it.

An event is a JSON object ``{"seq", "time", "attempt", "type", ...}``. ``seq`` is its line number in the task's
log, from 1, given by the reader; the other fields are written by whoever appends the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

Event = Mapping[str, Any]


class EventType(StrEnum):
    STATE = "state"
    """state: a TaskState; error?: str."""
    PHASE = "phase"
    """phase: str (a Phase); detail?: str; done?, total?: int - progress within the phase."""
    STEP = "step"
    """step, total_steps, epoch, loss, learning_rate, grad_norm, tokens_per_second, eta_seconds; of preference
    objectives also means over the step's pairs: reward_chosen, reward_rejected, reward_margin, reward_accuracy (dpo);
    supervised_loss, preference_loss, log_odds_ratio, preference_accuracy (orpo)."""
    EVAL = "eval"
    """when: "before" | "during" | "after"; split; loss; exact_match?; examples; during: step, under early stopping
    is_best, best_step; detail of progress: done, total."""
    CANARY = "canary"
    """when: "before" | "after"; language; bits_per_byte; passages. Or when: "during"; step; kl (nats a label, on
    rows of earlier tasks), budget, strength (lambda from here on)."""
    SAMPLE = "sample"
    """step; samples: [{prompt, text, reference, is_cut}], answers to fixed prompts while it trains."""
    RESOURCES = "resources"
    """rss_bytes, available_bytes, cpu_percent (100 a core), cores; on a GPU gpu_memory_bytes,
    gpu_memory_total_bytes, gpu_percent?, gpu_celsius?."""
    CHECKPOINT = "checkpoint"
    """step, path, size_bytes."""
    WARNING = "warning"
    """code: str; message: str - a decision the person will want to know of."""
    LOG = "log"
    """message: str."""
    FINISHED = "finished"
    """status: a final TaskState; error?, error_code?, model_id?."""


INTERRUPTED, RESTARTED, WAITING = "interrupted", "restarted", "waiting"
"""Codes of warnings that are counted: the web process ended during its own task; a worker died and is started again; a
task waits for a part that is not there, and is at nothing that could end a process."""


class Phase(StrEnum):
    """Named phases, in order. Their texts are in the message catalogues as ``phase.<value>``."""

    QUEUED = "queued"
    LOADING_LIBRARIES = "loading_libraries"
    READING_DATA = "reading_data"
    LOADING_MODEL = "loading_model"
    TOKENIZING = "tokenizing"
    CONVERTING = "converting"
    DOWNLOADING = "downloading"
    PROBING = "probing"
    SCORING_REFERENCE = "scoring_reference"
    WRITING_EARLIER_ROWS = "writing_earlier_rows"
    CALIBRATING = "calibrating"
    TRAINING = "training"
    EVALUATING_BEFORE = "evaluating_before"
    EVALUATING_AFTER = "evaluating_after"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    INDEXING = "indexing"
    EVALUATING = "evaluating"
    SCORING_CHAIN = "scoring_chain"
    ESTIMATING_IMPORTANCE = "estimating_importance"
    SAVING = "saving"
    CHECKING = "checking"
    REGISTERING = "registering"


class Observer(Protocol):
    """Whoever wants to hear of progress: the event log, a tracker, a test's list."""

    def notify(self, type: EventType, /, **fields: Any) -> None: ...
