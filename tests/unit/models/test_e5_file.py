from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_embedder import HIDDEN, NORMALIZATION, PIECES, POSITIONS, ROWS, packed_file, packed_tensors

from terakoya.exceptions import ModelLoadError
from terakoya.models.e5_file import E5File, dequantize_q4, read_e5_file

PACKED = packed_file()
VOCABULARY_AT = 44
TABLE_AT = PACKED.index(struct.pack("<iI", len(NORMALIZATION), 27))
DIRECTORY_AT = TABLE_AT + 8 + 27


def read(tmp_path: Path, content: bytes) -> E5File:
    path = tmp_path / "e5.bin"
    path.write_bytes(content)
    return read_e5_file(path)


def changed(at: int, code: str, value: float) -> bytes:
    content = bytearray(PACKED)
    struct.pack_into("<" + code, content, at, value)
    return bytes(content)


def test_shape_vocabulary_and_weights_come_out_as_they_went_in(tmp_path: Path) -> None:
    packed = read(tmp_path, PACKED)
    assert (packed.shape.hidden, packed.shape.positions, packed.shape.vocabulary) == (HIDDEN, POSITIONS, ROWS)
    assert packed.vocabulary.pieces == PIECES
    assert (packed.vocabulary.bos, packed.vocabulary.eos, packed.vocabulary.pad, packed.vocabulary.unk) == (0, 2, 1, 3)
    assert packed.vocabulary.normalization == NORMALIZATION
    expected = packed_tensors()
    assert set(packed.tensors) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(packed.tensors[name], values.reshape(-1), err_msg=name)


def test_a_block_is_a_scale_and_two_rows_of_halves() -> None:
    raw = np.float16(0.5).tobytes() + bytes([0xF0]) + bytes([0x88] * 15)
    values = dequantize_q4(raw)
    assert (values[0], values[16]) == (-4.0, 3.5)
    assert not values[1:16].any()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for length in [*range(0, DIRECTORY_AT + 200, 7), len(PACKED) - 1]:
        with pytest.raises(ModelLoadError, match=r"'e5\.bin' cannot be read|normalisation table"):
            read(tmp_path, PACKED[:length])


@pytest.mark.parametrize(
    ("at", "code", "value", "match"),
    [
        (0, "I", 0, "not an E5S1 file"),
        (4, "I", 2, "of version 1"),
        (8, "i", 33, "do not divide"),
        (8, "i", -1, "claims -1"),
        (12, "i", 10**9, "claims 1000000000"),
        (16, "i", 5, "do not divide"),
        (36, "f", float("nan"), "epsilon"),
        (40, "i", 16, "block length"),
        (VOCABULARY_AT, "i", ROWS + 1, f"1 to {ROWS}"),
        (VOCABULARY_AT + 4, "i", -1, "special tokens"),
        (VOCABULARY_AT + 20, "Q", 1 << 62, "outside"),
        (VOCABULARY_AT + 20, "Q", 3, "end to end"),
        (VOCABULARY_AT + 32, "I", 1 << 31, "end to end"),
        (VOCABULARY_AT + 28 + 4 * (len(PIECES) + 1), "f", float("inf"), "no number"),
        (VOCABULARY_AT + 28 + 8 * len(PIECES) + 4, "B", 0xFF, "UTF-8"),
        (TABLE_AT, "i", 10**6, "outside"),
        (TABLE_AT + 8, "I", 0x110000, "no character"),
        (DIRECTORY_AT, "i", 10**6, "claims 1000000"),
        (DIRECTORY_AT + 4, "H", 65_535, "outside|type"),
        (DIRECTORY_AT + 14, "B", 7, "type 7"),
        (DIRECTORY_AT + 15, "I", 64, "64 numbers"),
        (DIRECTORY_AT + 19, "Q", 1 << 63, "outside"),
        (DIRECTORY_AT + 27, "Q", 1 << 63, "outside"),
        (len(PACKED) - 4, "f", float("nan"), "no number"),
    ],
)
def test_a_claim_that_is_not_so_is_refused(tmp_path: Path, at: int, code: str, value: float, match: str) -> None:
    with pytest.raises(ModelLoadError, match=match):
        read(tmp_path, changed(at, code, value))


def test_no_single_wrong_byte_of_the_header_escapes_as_another_error(tmp_path: Path) -> None:
    for at in range(DIRECTORY_AT + 300):
        content = bytearray(PACKED)
        content[at] ^= 0xFF
        try:
            read(tmp_path, bytes(content))
        except ModelLoadError:
            continue
