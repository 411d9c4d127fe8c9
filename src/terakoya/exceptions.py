"""Every error raised on purpose. Each class is one stable wire ``code`` and one HTTP status; it knows
nothing of FastAPI, which turns it into the error envelope in ``web/errors.py``.

A message says what failed, shows the value with ``!r``, and says what would work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AppException(Exception):
    """The root of all deliberate errors: a bad request unless a subclass narrows it."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(
        self, message: str, *, headers: dict[str, str] | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}
        self.details = details
        """What a program can show better than a sentence; JSON."""


# -- the seed's three families -------------------------------------------------------------------


class ModelLoadError(AppException):
    """A model's files cannot be opened: missing, corrupt, hostile or of an unknown type."""

    code = "model_load_error"


class TrainingError(AppException):
    """A training run cannot start or cannot go on."""

    code = "training_error"


class RAGError(AppException):
    """A document cannot be indexed or a question cannot be answered."""

    code = "rag_error"


# -- by status -------------------------------------------------------------------------------------


class NotFound(AppException):
    status = 404
    code = "not_found"


class Conflict(AppException):
    """The request contradicts the state it meets: a taken name, a model others depend on."""

    status = 409
    code = "conflict"


class TooLarge(AppException):
    status = 413
    code = "too_large"


class Unauthorized(AppException):
    status = 401
    code = "unauthorized"


class Forbidden(AppException):
    """Refused by the guard: foreign Host or Origin."""

    status = 403
    code = "forbidden"


class AccessDenied(AppException):
    """A model hub keeps what was asked of it from us: gated, private, or the token is not valid."""

    status = 403
    code = "access_denied"


class BadGateway(AppException):
    """An endpoint elsewhere that should answer does not: it is down, refuses our key, or makes no sense."""

    status = 502
    code = "bad_gateway"


class Unavailable(AppException):
    """A part that is needed is starting, stopped or busy."""

    status = 503
    code = "unavailable"


class TooBusy(Unavailable):
    """More requests wait than are taken; ``Retry-After`` says when to ask again."""

    status = 429
    code = "too_busy"

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, headers={"Retry-After": "5"} | (headers or {}))


class StorageFull(AppException):
    status = 507
    code = "storage_full"


# -- narrower ----------------------------------------------------------------------------------------


class InvalidConfig(AppException):
    """A setting contradicts another, the model or the data."""

    status = 422
    code = "invalid_config"


class ContextOverflow(InvalidConfig):
    """A prompt that leaves its model no room for an answer; the message says by how many tokens."""

    code = "context_length_exceeded"


class InvalidDataset(AppException):
    """Training data that cannot be used; the message names the first bad rows, ``details["report"]`` many."""

    status = 422
    code = "invalid_dataset"


class UnsafeArtifact(ModelLoadError):
    """Model files that could run code: pickles, remote code, hostile configuration."""

    code = "unsafe_artifact"


class OutOfMemory(TrainingError):
    """Memory ran low; another attempt with a smaller micro-batch may do."""

    status = 507
    code = "out_of_memory"


class DoesNotFit(TrainingError):
    """Memory does not suffice, however small the micro-batch."""

    status = 507
    code = "does_not_fit"


class ModelNotFound(NotFound):
    code = "model_not_found"


class DatasetNotFound(NotFound):
    code = "dataset_not_found"


class CollectionNotFound(NotFound):
    code = "collection_not_found"


class DocumentNotFound(NotFound):
    code = "document_not_found"


class UnreadableDocument(RAGError):
    """A file that yields no text: encrypted, damaged, empty, scanned, or one its parser gave up on."""

    status = 422
    code = "unreadable_document"


class InvalidQuery(RAGError):
    """A question that cannot be looked for: empty, without a letter or digit, or too long."""

    status = 422
    code = "invalid_query"


class InvalidQuestions(RAGError):
    """Questions for an evaluation that cannot be used; the message names the first bad rows."""

    status = 422
    code = "invalid_questions"


class CitationProbeFailed(RAGError):
    """A model that was asked to write answers has not shown that it can cite in that language."""

    status = 409
    code = "citation_probe_failed"


class TaskNotFound(NotFound):
    code = "task_not_found"


class StaleWriter(Conflict):
    """A write under an old fencing token: the task was launched again, or has ended."""

    code = "stale_writer"


def class_of(code: str) -> type[AppException] | None:
    """Return the class of this module whose code it is; what is raised elsewhere is a narrower kind of one of these."""
    classes = (each for each in globals().values() if isinstance(each, type) and issubclass(each, AppException))
    return next((each for each in classes if each.code == code), None)
