"""A chain on disk: one immutable folder a task, named by its number, that holds what the next task needs. A folder
appears whole or not at all, its manifest hashes every file in it and names the manifest before. Knows tensors and
rows; not how they were made or who may read them. What needs no tensor is in ``link.py``.

The anchor is not copied: the manifest has the hash of the weights it must be. Kept examples can be erased later, as
their owner may ask: the manifest stays and a note beside the folder says that they were.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.task_scores import TaskRows
from terakoya.exceptions import AppException, Conflict, InvalidConfig
from terakoya.storage.files import full_disk_is_named, sync_directory, write_durably
from terakoya.storage.json_text import to_json
from terakoya.storage.manifest import ALLOWED_SUFFIXES, verify_manifest, write_manifest
from terakoya.training.continual.errors import ChainMismatch, DamagedChain
from terakoya.training.continual.link import (
    FISHER,
    HELDOUT,
    METRICS,
    REPLAY,
    SCHEMA,
    TARGETS,
    LinkFacts,
    erased_names,
    link_facts,
)
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample
from terakoya.training.continual.soft_targets import SoftTargets, joined
from terakoya.training.continual.state import RetentionState, require_same, tensors_sha256

_SUFFIXES = ALLOWED_SUFFIXES | {".jsonl"}
_TASK = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Link:
    facts: LinkFacts
    sha256: str
    importance: dict[str, Tensor]
    replay: ReplayBuffer
    """Of this task alone; empty if none was kept, or if it was erased."""
    erased: bool
    metrics: dict[str, Any]
    heldout: TaskRows | None = None
    """What this task is scored on again; None if nothing was kept, or if it was erased."""

    def state(self, anchor: Mapping[str, Tensor]) -> RetentionState:
        """Join the importance with the weights it is about. Raises: ChainMismatch if they are others."""
        found = tensors_sha256(anchor)
        if found != self.facts.anchor_sha256:
            raise ChainMismatch(
                f"task {self.facts.number} ({self.facts.task!r}) ended with other weights than these "
                f"(sha256 {self.facts.anchor_sha256[:12]}..., found {found[:12]}...); go on from the model it made"
            )
        if self.facts.space == "full":
            require_same(self.importance, anchor, what="the chain's state")
        return RetentionState(self.importance, dict(anchor), self.facts.number)


def write_link(
    chain: Path,
    facts: LinkFacts,
    *,
    importance: Mapping[str, Tensor],
    replay: ReplayBuffer,
    metrics: Mapping[str, Any] | None = None,
    heldout: TaskRows | None = None,
) -> tuple[Path, str]:
    """Write ``chain/NNN-task`` and return it with the SHA-256 of its manifest.

    Raises: Conflict if it is there already; ChainMismatch if nothing is tracked; StorageFull.
    """
    if not _TASK.fullmatch(facts.task):
        raise InvalidConfig(f"a task of a chain is named by lower-case letters, digits and hyphens; got {facts.task!r}")
    if not importance:
        raise ChainMismatch(f"task {facts.task!r} has no weight whose importance is known; it would protect nothing")
    final = chain / f"{facts.number:03d}-{facts.task}"
    if final.exists():
        raise Conflict(f"the chain has a task {final.name!r} already; links are never overwritten, take another name")
    temporary = chain / f"{final.name}.tmp"
    with full_disk_is_named(final):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            save_file({name: _plain(value) for name, value in importance.items()}, temporary / FISHER)
            write_durably(temporary / METRICS, to_json(dict(metrics or {}), indent=1))
            if replay.examples:
                write_replay(temporary, replay)
            if heldout is not None and heldout.rows:
                write_durably(temporary / HELDOUT, _heldout_lines(heldout))
            facts_json = {"schema": SCHEMA} | asdict(facts)
            sha256 = write_manifest(temporary, facts=facts_json, suffixes=_SUFFIXES)
            temporary.replace(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_directory(chain)
    return final, sha256


def load_link(link: Path, sha256: str, *, base_sha256: str, tokenizer_sha256: str) -> Link:
    """Verify every byte and that the link is of this base and tokenizer.

    Raises: DamagedChain; ChainMismatch for another base, tokenizer or schema, or if nothing is tracked.
    """
    try:
        gone = erased_names(link)
        verify_manifest(link, sha256, may_be_absent=gone, whose="chain", remedy="go on from another model of the chain")
        facts = link_facts(link)
        importance = load_file(link / FISHER)
        metrics = json.loads((link / METRICS).read_bytes())
        replay = read_replay(link)
        heldout = _read_heldout(link)
    except ChainMismatch:
        raise
    except (AppException, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedChain(str(error)) from error
    for what, expected, found in (
        ("base model", facts.base_sha256, base_sha256),
        ("tokenizer", facts.tokenizer_sha256, tokenizer_sha256),
    ):
        if expected != found:
            raise ChainMismatch(
                f"task {facts.task!r} was learned with another {what} (sha256 {expected[:12]}..., this one "
                f"{found[:12]}...); a chain keeps one {what} throughout"
            )
    if not importance:
        raise ChainMismatch(f"task {facts.task!r} tracks no weight; it would protect nothing")
    return Link(facts, sha256, importance, replay, bool(gone), metrics, heldout)


def write_replay(link: Path, replay: ReplayBuffer) -> None:
    lines = []
    for example in replay.examples:
        soft = 0 if example.targets is None else example.labels
        fields = {"task": example.task, "ids": example.input_ids, "labels": example.label_spans, "soft": soft}
        lines.append(to_json(fields) + b"\n")
    write_durably(link / REPLAY, b"".join(lines))
    targets = [example.targets for example in replay.examples if example.targets is not None]
    if targets:
        whole = joined(targets)
        tensors = {"tokens": whole.tokens, "log_probabilities": whole.log_probabilities, "log_rest": whole.log_rest}
        save_file({name: _plain(value) for name, value in tensors.items()}, link / TARGETS)


def read_replay(link: Path) -> ReplayBuffer:
    if not (link / REPLAY).exists():
        return ReplayBuffer()
    whole = SoftTargets(**load_file(link / TARGETS)) if (link / TARGETS).exists() else None
    examples, place = [], 0
    for line in (link / REPLAY).read_bytes().splitlines():
        fields = json.loads(line)
        targets = None
        if fields["soft"]:
            assert whole is not None, "soft targets are written with their rows"
            targets = whole.slice(place, place + fields["soft"])
            place += fields["soft"]
        spans = tuple((start, end) for start, end in fields["labels"])
        examples.append(ReplayExample(fields["task"], tuple(fields["ids"]), spans, targets))
    return ReplayBuffer(tuple(examples))


def _heldout_lines(task: TaskRows) -> bytes:
    """First what the task is, then a line a row."""
    head: dict[str, Any] = {"asks": task.asks, "labels": {name: list(ids) for name, ids in task.labels.items()}}
    rows = (
        {"row": row.row, "ids": row.input_ids, "labels": row.label_spans, "answer": row.answer} for row in task.rows
    )
    return b"".join(to_json(line) + b"\n" for line in (head, *rows))


def _read_heldout(link: Path) -> TaskRows | None:
    if not (link / HELDOUT).exists():
        return None
    head, *lines = map(json.loads, (link / HELDOUT).read_bytes().splitlines())
    rows = [
        EncodedExample(
            line["row"], line["ids"], tuple((start, end) for start, end in line["labels"]), answer=line["answer"]
        )
        for line in lines
    ]
    return TaskRows(rows, {name: tuple(ids) for name, ids in head["labels"].items()}, head["asks"])


def _plain(tensor: Tensor) -> Tensor:
    plain = tensor.detach().cpu().contiguous()
    return plain.to(torch.float32) if plain.dtype is torch.float64 else plain
