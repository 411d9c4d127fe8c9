"""Reads the header of a safetensors file and checks every claim in it against the file. Opens no tensor."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terakoya.exceptions import UnsafeArtifact

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """Return name -> entry; the tensors lie end to end and fill the file exactly.

    Raises: UnsafeArtifact saying what in the header is not so.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _refused(path, f"its header claims {length} bytes in a file of {size}")
        raw = file.read(length)
    return _checked(path, _parse(path, raw), size - 8 - length)


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise _refused(path, f"its header starts with {raw[:4]!r}, not with '{{'")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"its header is not JSON ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise _refused(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused(path, "its __metadata__ is not a map of strings")
    return header


def _checked(path: Path, header: dict[str, Any], payload_bytes: int) -> dict[str, TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, claim in header.items():
        if not isinstance(claim, dict) or set(claim) != {"dtype", "shape", "data_offsets"}:
            raise _refused(path, f"the entry of tensor {name!r} is malformed")
        dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _BITS:
            raise _refused(path, f"tensor {name!r} has the unknown type {dtype!r}")
        if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
            raise _refused(path, f"tensor {name!r} has a malformed shape or place")
        entry = TensorEntry(dtype, tuple(shape))
        begin, end = offsets
        if (end - begin) * 8 != entry.elements * _BITS[dtype]:
            raise _refused(path, f"tensor {name!r} of shape {shape} and type {dtype} claims {end - begin} bytes")
        entries[name] = entry
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _refused(path, f"tensor {name!r} starts at {begin} where {position} was expected (overlap or gap)")
        position = end
    if position != payload_bytes:
        raise _refused(path, f"its tensors fill {position} bytes of the {payload_bytes} there are (cut or padded)")
    return entries


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _refused(path: Path, reason: str) -> UnsafeArtifact:
    return UnsafeArtifact(f"{path.name!r} is not a valid safetensors file: {reason}")
