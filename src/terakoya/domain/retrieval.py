"""How passages are looked for: settings that a collection keeps, or that are tried against them. Knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, get_args

from terakoya.exceptions import InvalidConfig

Fusion = Literal["dbsf", "rrf", "weighted"]
FUSIONS: tuple[str, ...] = get_args(Fusion)
MIN_CANDIDATES, MAX_CANDIDATES = 10, 1_000
MAX_RRF_K = 1_000
MAX_FILTER_VALUES = 1_000
"""Values a field of a filter has at most."""
MAX_TAGS, MAX_TAG_CHARACTERS = 20, 60


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """Raises: InvalidConfig for a value out of its range."""

    fusion: Fusion = "dbsf"
    """How the two rankings become one: by the distribution of their scores, by rank, or by scores from 0 to 1."""
    dense_weight: float = 0.5
    """Share of the search by meaning; the rest is that of the search by words."""
    rrf_k: int = 60
    """Of "rrf": the larger, the less the first ranks stand out."""
    candidates: int = 50
    """Passages that each of the two searches hands to the fusion."""

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise InvalidConfig(f"there is no fusion {self.fusion!r}; choose one of {', '.join(FUSIONS)}")
        _check_number("dense_weight", self.dense_weight, 0.0, 1.0)
        _check_whole("rrf_k", self.rrf_k, 1, MAX_RRF_K)
        _check_whole("candidates", self.candidates, MIN_CANDIDATES, MAX_CANDIDATES)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RetrievalSettings:
        """Return the settings of a JSON object; what is left out is the default.

        Raises: InvalidConfig for an unknown field, by name, or a value that is out of its range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InvalidConfig(
                f"there is no retrieval setting {unknown[0][:40]!r}; known are {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """What a document can be chosen by, kept with each of its points."""

    type: str = ""
    """Row of the parsers' table."""
    language: str = ""
    added_seconds: float = 0.0
    """Since 1970, UTC."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filters:
    """Which documents are searched: those that fit every field that is given. Raises: InvalidConfig."""

    document: tuple[str, ...] | None = None
    """Ids; any of them, as in the other fields."""
    type: tuple[str, ...] | None = None
    language: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    date_from: date | None = None
    """First day, UTC, on which it may have been added."""
    date_to: date | None = None
    """Last day."""

    def __post_init__(self) -> None:
        for name in ("document", "type", "language", "tags"):
            values = getattr(self, name)
            if values is not None and not 1 <= len(values) <= MAX_FILTER_VALUES:
                raise InvalidConfig(
                    f"the filter {name!r} has 1 to {MAX_FILTER_VALUES:,} values; got {len(values)}; leave it out to "
                    "search everything"
                )
        if self.date_from is not None and self.date_to is not None and self.date_from > self.date_to:
            raise InvalidConfig(f"the filter date_from {self.date_from} is after date_to {self.date_to}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Filters:
        """Return the filters of a JSON object, dates as YYYY-MM-DD. Raises: InvalidConfig, naming an unknown field."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise InvalidConfig(f"there is no filter {unknown[0][:40]!r}; known are {', '.join(known)}")
        return cls(**{name: _filter_value(name, value) for name, value in values.items() if value is not None})

    @property
    def is_empty(self) -> bool:
        return self == Filters()

    @property
    def added_from_seconds(self) -> float | None:
        return None if self.date_from is None else _midnight(self.date_from)

    @property
    def added_before_seconds(self) -> float | None:
        return None if self.date_to is None else _midnight(self.date_to + timedelta(days=1))

    def to_json(self) -> dict[str, Any]:
        """What is given, as JSON."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, date) else list(value)
            for name, value in given.items()
            if value is not None
        }


def _filter_value(name: str, value: Any) -> Any:
    if name.startswith("date_"):
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise InvalidConfig(f"the filter {name!r} is a day such as 2026-01-31; got {value!r:.40}") from error
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(one, str) and one for one in values):
        raise InvalidConfig(f"the filter {name!r} is a list of texts; got {value!r:.40}")
    return tuple(values)


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidConfig(f"{name} is a number from {low:g} to {high:g}; got {value!r}")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidConfig(f"{name} is a whole number from {low} to {high}; got {value!r}")
