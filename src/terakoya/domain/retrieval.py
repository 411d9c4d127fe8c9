"""How passages are looked for: settings that a collection keeps, or that are tried against them. Knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from terakoya.exceptions import InvalidConfig

Fusion = Literal["dbsf", "rrf", "weighted"]
FUSIONS: tuple[str, ...] = get_args(Fusion)
MIN_CANDIDATES, MAX_CANDIDATES = 10, 1_000
MAX_RRF_K = 1_000


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


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidConfig(f"{name} is a number from {low:g} to {high:g}; got {value!r}")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidConfig(f"{name} is a whole number from {low} to {high}; got {value!r}")
