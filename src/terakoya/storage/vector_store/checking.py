"""What every vector store refuses, said in the same words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from terakoya.domain.documents import IndexPoint, Vector
from terakoya.exceptions import InvalidConfig


def check_points(points: Sequence[IndexPoint], dimension: int) -> None:
    """Raises: InvalidConfig."""
    for point in points:
        check_vector(point.dense, dimension, f"point {point.id!r}")
        if len(point.sparse.indices) != len(point.sparse.values):
            raise InvalidConfig(
                f"point {point.id!r} has {len(point.sparse.indices)} sparse indices "
                f"and {len(point.sparse.values)} values; each index needs one value"
            )


def check_vector(vector: Vector, dimension: int, what: str = "the vector") -> None:
    """Raises: InvalidConfig."""
    if vector.shape != (dimension,):
        raise InvalidConfig(
            f"{what} has the shape {vector.shape!r} where the index holds vectors of {dimension} dimensions; "
            "embed with the collection's own model, or rebuild the index"
        )
    if not np.isfinite(vector).all():
        raise InvalidConfig(f"{what} has entries that are not finite numbers; embed the text again")
