"""Walks the header of a GGUF file and checks every count, length and offset against the file before a library
maps it. Returns the short facts in it; opens no tensor.

Source: the GGUF specification, versions 2 and 3 (ggml's docs/gguf.md).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from terakoya.exceptions import UnsafeArtifact

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_TENSORS, _MAX_FIELDS, _MAX_DIMENSIONS = 100_000, 10_000, 4
_MAX_ARRAY, _MAX_STRING = 4_000_000, 1 << 20

Scalar = str | int | float | bool


def read_gguf_header(path: Path) -> dict[str, Scalar]:
    """Return the header's scalar fields, such as "general.architecture".

    Raises: UnsafeArtifact saying which claim the file does not bear out.
    """
    with path.open("rb") as file:
        return _Walk(path, file).walk()


def count_gguf_elements(path: Path) -> int:
    """Return how many numbers its tensors hold. Raises: UnsafeArtifact."""
    with path.open("rb") as file:
        walk = _Walk(path, file)
        walk.walk()
        return walk.elements


class _Walk:
    elements = 0

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = path.stat().st_size

    def walk(self) -> dict[str, Scalar]:
        if self._bytes(4, "the magic") != b"GGUF":
            raise self._refused("it does not start with 'GGUF'")
        version = self._number("<I", "the version")
        if version not in (2, 3):
            raise self._refused(f"it has version {version}; 2 and 3 can be read")
        tensors = self._count(_MAX_TENSORS, "tensors")
        fields = self._count(_MAX_FIELDS, "fields")
        facts = {}
        for _ in range(fields):
            key = self._string("a field's name")
            value = self._value(int(self._number("<I", f"the type of {key!r}")), key)
            if value is not None:
                facts[key] = value
        ends = [self._tensor() for _ in range(tensors)]
        alignment = facts.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16:
            raise self._refused(f"it claims the alignment {alignment!r}")
        start = math.ceil(self._file.tell() / alignment) * alignment
        if ends and start + max(ends) > self._size:
            raise self._refused(f"its tensors reach to byte {start + max(ends)} of {self._size}")
        return facts

    def _value(self, kind: int, key: str) -> Scalar | None:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], key)
        if kind == _STRING:
            return self._string(key)
        if kind != _ARRAY:
            raise self._refused(f"the field {key!r} has the unknown type {kind}")
        element = int(self._number("<I", key))
        length = self._count(_MAX_ARRAY, f"elements of {key!r}")
        if element in _SCALARS:
            self._skip(length * struct.calcsize(_SCALARS[element]), key)
        elif element == _STRING:
            for _ in range(length):
                self._skip(self._count(_MAX_STRING, f"bytes in a text of {key!r}"), key)
        else:
            raise self._refused(f"the field {key!r} is an array of type {element}")
        return None

    def _tensor(self) -> int:
        """Return a lower bound of where the tensor's data end, counted from the start of the data."""
        name = self._string("a tensor's name")
        dimensions = int(self._number("<I", name))
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._refused(f"tensor {name!r} has {dimensions} dimensions")
        elements = math.prod(int(self._number("<Q", name)) for _ in range(dimensions))
        self.elements += elements
        self._number("<I", name)
        offset = int(self._number("<Q", name))
        # The smallest type in use stores less than 2 bits a weight; gguf checks the exact size when it maps the data.
        return offset + elements // 8

    def _string(self, what: str) -> str:
        length = self._count(_MAX_STRING, f"bytes in {what}")
        return self._bytes(length, what).decode("utf-8", errors="replace")

    def _count(self, limit: int, what: str) -> int:
        count = int(self._number("<Q", what))
        if count > limit:
            raise self._refused(f"it claims {count} {what}; at most {limit} are read")
        return count

    def _number(self, format: str, what: str) -> int | float | bool:
        (value,) = struct.unpack(format, self._bytes(struct.calcsize(format), what))
        assert isinstance(value, (int, float))  # the formats above have nothing else
        return value

    def _bytes(self, length: int, what: str) -> bytes:
        found = self._file.read(length)
        if len(found) < length:
            raise self._refused(f"it ends inside {what}")
        return found

    def _skip(self, length: int, what: str) -> None:
        if self._file.seek(length, 1) > self._size:
            raise self._refused(f"it ends inside {what!r}")

    def _refused(self, reason: str) -> UnsafeArtifact:
        return UnsafeArtifact(f"{self._path.name!r} is not a valid GGUF file: {reason}")
