"""What web process and model server say to each other, as JSON: a request to answer, and errors by their code. Knows
neither sockets nor torch.
"""

from __future__ import annotations

import base64
import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from terakoya.domain.datasets import Message
from terakoya.domain.documents import Vector
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.exceptions import AppException, Unavailable, class_of


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, besides temperature and seed; the defaults ask for nothing."""

    top_p: float = 1.0
    presence_penalty: float = 0.0
    """Off the logit of every token that stands in the prompt or the answer so far."""
    frequency_penalty: float = 0.0
    """The same once for each time it stands there."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer before they are written."""
    top_logprobs: int | None = None
    """With a number, each piece says how likely it was, and so many others."""
    json_schema: dict[str, Any] | None = None
    """What the answer must be an instance of."""


AS_USUAL = Sampling()


@dataclasses.dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer asked of one model."""

    artifact: ModelArtifact
    messages: tuple[Message, ...]
    max_new_tokens: int
    temperature: float
    seed: int
    timeout_seconds: float
    """Of writing the answer; waiting for the turn and opening the model are not counted."""
    sampling: Sampling = AS_USUAL
    text: str | None = None
    """To be gone on with as it is, without template; ``messages`` are then empty."""


@dataclasses.dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts as the embedder is to read them, prefixes included."""

    artifact: ModelArtifact
    texts: tuple[str, ...]
    is_query: bool
    """Goes before requests that are not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Vector
    """[texts, dimension], L2-normalised."""
    truncated: tuple[int, ...] = ()
    """Indices of texts that were longer than the model reads; their vectors are of their beginnings."""


@dataclasses.dataclass(frozen=True, slots=True)
class RerankRequest:
    """Passages to be scored against a query."""

    artifact: ModelArtifact
    query: str
    passages: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Reranked:
    scores: tuple[float, ...]
    """Of the passages, in their order: 0 to 1, the more the better."""
    truncated: tuple[int, ...] = ()
    """Indices of passages that were longer than the model reads beside the query."""
    tokens: int = 0
    """Read in all, the query once a passage."""


def request_to_json(request: ChatRequest) -> dict[str, Any]:
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    return fields | {
        "artifact": artifact_to_json(request.artifact),
        "messages": [dataclasses.asdict(message) for message in request.messages],
        "sampling": {field.name: getattr(request.sampling, field.name) for field in dataclasses.fields(Sampling)},
    }


def request_from_json(fields: dict[str, Any]) -> ChatRequest:
    """The sender is our own web process: nothing here is validated twice."""
    return ChatRequest(
        artifact=artifact_from_json(fields["artifact"]),
        messages=tuple(Message(**message) for message in fields["messages"]),
        max_new_tokens=int(fields["max_new_tokens"]),
        temperature=float(fields["temperature"]),
        seed=int(fields["seed"]),
        timeout_seconds=float(fields["timeout_seconds"]),
        sampling=Sampling(**(fields["sampling"] | {"stop": tuple(fields["sampling"]["stop"])})),
        text=fields["text"],
    )


def embed_request_to_json(request: EmbedRequest) -> dict[str, Any]:
    texts, is_query = list(request.texts), request.is_query
    return {"artifact": artifact_to_json(request.artifact), "texts": texts, "is_query": is_query}


def embed_request_from_json(fields: dict[str, Any]) -> EmbedRequest:
    return EmbedRequest(artifact_from_json(fields["artifact"]), tuple(fields["texts"]), bool(fields["is_query"]))


def embedded_to_json(embedded: Embedded) -> dict[str, Any]:
    """Vectors travel as base64 of float32, little-endian, row after row."""
    raw = np.ascontiguousarray(embedded.vectors, dtype="<f4").tobytes()
    shape = list(embedded.vectors.shape)
    return {"vectors": base64.b64encode(raw).decode("ascii"), "shape": shape, "truncated": list(embedded.truncated)}


def embedded_from_json(fields: dict[str, Any]) -> Embedded:
    vectors = np.frombuffer(base64.b64decode(fields["vectors"]), dtype="<f4").reshape(fields["shape"])
    return Embedded(vectors.astype(np.float32), tuple(fields["truncated"]))


def rerank_request_to_json(request: RerankRequest) -> dict[str, Any]:
    passages = list(request.passages)
    return {"artifact": artifact_to_json(request.artifact), "query": request.query, "passages": passages}


def rerank_request_from_json(fields: dict[str, Any]) -> RerankRequest:
    return RerankRequest(artifact_from_json(fields["artifact"]), fields["query"], tuple(fields["passages"]))


def reranked_to_json(reranked: Reranked) -> dict[str, Any]:
    return dataclasses.asdict(reranked)


def reranked_from_json(fields: dict[str, Any]) -> Reranked:
    return Reranked(tuple(fields["scores"]), tuple(fields["truncated"]), fields["tokens"])


def error_to_json(error: AppException) -> dict[str, str]:
    return {"error": str(error), "code": error.code}


def error_from_json(fields: dict[str, Any]) -> AppException:
    """Return the exception whose code it is; Unavailable for one this process does not know."""
    return (class_of(str(fields.get("code"))) or Unavailable)(str(fields.get("error")))


def artifact_to_json(artifact: ModelArtifact) -> dict[str, Any]:
    """As requests and workers' specifications name a model."""
    info = dataclasses.asdict(artifact.info) | {"created_at": artifact.info.created_at.isoformat()}
    base = None if artifact.base is None else artifact_to_json(artifact.base)
    return {"info": info, "path": str(artifact.path), "base": base}


def artifact_from_json(fields: dict[str, Any]) -> ModelArtifact:
    info = fields["info"]
    typed = {
        "kind": ModelKind(info["kind"]),
        "created_at": datetime.fromisoformat(info["created_at"]),
        "tags": tuple(info.get("tags", ())),
    }
    base = None if fields["base"] is None else artifact_from_json(fields["base"])
    return ModelArtifact(ModelInfo(**(info | typed)), Path(fields["path"]), base)
