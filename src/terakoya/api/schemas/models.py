"""Models as clients see them, and the question put to several of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from terakoya.api.schemas.datasets import ResourceName
from terakoya.domain.models import ModelInfo, ModelKind, ModelMarks
from terakoya.models.service import MAX_MODELS, MAX_NEW_TOKENS, MAX_PROMPT_CHARS, MAX_TEMPERATURE
from terakoya.training.slider import MOST_ROWS, MOST_SHARES, ROWS, SHARES


class LineageStep(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    kind: ModelKind
    task_id: str | None
    """The pull, run, merge or export that made it."""


class ModelView(BaseModel):
    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    id: str
    name: str
    kind: ModelKind
    architecture: str
    parameters: int
    size_bytes: int
    content_sha256: str
    source: str
    license: str
    created_at: datetime
    parent_id: str | None
    task_id: str | None
    notes: str
    tags: list[str]
    stage: str
    engine: str
    card: dict[str, Any]
    data_sha256: str | None
    """Of the rows that it was tuned on; null where no run of ours tuned it."""
    configuration_sha256: str | None
    """Of the settings of that run."""
    lineage: list[str] = Field(default_factory=list)
    """Ids from the base to this model."""
    history: list[LineageStep] = Field(default_factory=list)
    """The same with what each is and the task that made it."""
    used_by: list[str] = Field(default_factory=list)
    """Names of the models that are built on it, which keep it from being deleted."""

    @classmethod
    def of(cls, info: ModelInfo, known: Mapping[str, ModelInfo]) -> ModelView:
        line = lineage(info, known)
        history = [LineageStep.model_validate(known[id]) for id in line if id in known]
        used_by = [model.name for model in known.values() if model.parent_id == info.id]
        return cls.model_validate(info).model_copy(
            update={"lineage": line, "history": history, "used_by": sorted(used_by)}
        )


def lineage(info: ModelInfo, known: Mapping[str, ModelInfo]) -> list[str]:
    """Return the ids from the base to ``info``; an ancestor that is not known ends the line."""
    line = [info.id]
    parent_id = info.parent_id
    while parent_id is not None and parent_id not in line:
        line.append(parent_id)
        parent = known.get(parent_id)
        parent_id = parent.parent_id if parent is not None else None
    return line[::-1]


class ModelList(BaseModel):
    models: list[ModelView]


class PullRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, max_length=600, examples=["smollm2-135m-instruct-q4_1", "hf:org/name@main"])
    name: ResourceName | None = None
    base: str | None = Field(default=None, min_length=1, max_length=200)
    """Of an adapter: the registered model that it belongs to, by name or id."""


class MarkRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    notes: str | None = Field(default=None, max_length=4000)
    tags: list[Annotated[ResourceName, Field(max_length=50)]] | None = Field(default=None, max_length=20)
    stage: Literal["draft", "approved"] | None = None
    engine: Literal["auto", "llama.cpp", "pytorch"] | None = None
    license: str | None = Field(default=None, min_length=1, max_length=200)
    """Where its source does not say: such as "Apache-2.0"."""

    @property
    def marks(self) -> ModelMarks:
        tags = None if self.tags is None else tuple(dict.fromkeys(self.tags))
        return ModelMarks(self.notes, tags, self.stage, self.engine, self.license)


class MergeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ResourceName | None = None


class ExportRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str = Field(min_length=1, max_length=40)
    """One of ``ExportFormat``, or a 422 that names them. The GGUF forms come with an Ollama Modelfile."""
    name: ResourceName | None = None


class InterpolateRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=list(SHARES), min_length=1, max_length=MOST_SHARES
    )
    """Points to score, from 0 (before) to 1 (after)."""
    keep: float | None = Field(default=None, gt=0, lt=1)
    """The point to register as a model; it is scored too."""
    rows: int = Field(default=ROWS, ge=1, le=MOST_ROWS)
    """Held-out rows of each task, at most."""
    name: ResourceName | None = None


class ModelFile(BaseModel):
    name: str
    size_bytes: int


class FileList(BaseModel):
    files: list[ModelFile]


class Loaded(BaseModel):
    engine: str
    seconds: float


class CompareRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    models: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=MAX_MODELS)
    max_tokens: int = Field(default=256, ge=1, le=MAX_NEW_TOKENS)
    temperature: float = Field(default=0.0, ge=0.0, le=MAX_TEMPERATURE)
    system: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
