from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.data import encodings
from terakoya.data.encodings import detect_encoding, name_binary, read_lines
from terakoya.exceptions import InvalidDataset

JAPANESE = """{"prompt": "注文した自転車はいつ届きますか？", "completion": "配送状況"}
{"prompt": "鍵をなくしました", "completion": "紛失"}
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp932", "euc_jp"])
def test_each_encoding_is_recognised_and_read_back(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "rows"
    file.write_bytes(JAPANESE.encode(encoding))

    assert detect_encoding(file) == encoding
    assert [text for _, text in read_lines(file, encoding)] == JAPANESE.splitlines()


def test_japanese_after_a_long_ascii_beginning_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b'{"prompt": "plain", "completion": "ascii"}\n' * 50_000 + JAPANESE.encode("cp932"))

    assert detect_encoding(file) == "cp932"


def test_cp932_labels_in_kanji_alone_are_recognised(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes('{"prompt": "請求書", "completion": "経理"}\n'.encode("cp932") * 3)

    assert detect_encoding(file) == "cp932"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Où est le café? L'été, élève", "cp1252"),
        ("你好，请问退货怎么办理", "gb18030"),
        ("您好請問如何退貨", "big5"),
        ("заказ доставка", "cp866"),
    ],
)
def test_other_encodings_are_refused_and_not_taken_for_japanese(tmp_path: Path, text: str, encoding: str) -> None:
    file = tmp_path / "rows"
    file.write_bytes(text.encode(encoding) + b"\n")

    with pytest.raises(InvalidDataset, match=r"not UTF-8, CP932 or EUC-JP.*save it as UTF-8"):
        detect_encoding(file)


def test_one_damaged_line_in_utf8_is_named_by_line_and_byte(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes("あ\nい\nab\xffc\nう\n".encode().replace("ÿ".encode(), b"\xff"))

    with pytest.raises(InvalidDataset, match="line 3 is not valid UTF-8: byte 0xff at position 3"):
        list(read_lines(file, detect_encoding(file)))


def test_lines_are_told_apart_by_newline_alone_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "_CHUNK_BYTES", 3)
    file = tmp_path / "rows"
    file.write_bytes("a\u2028b\r\n\nあいう\nlast".encode())

    assert list(read_lines(file, "utf-8")) == [(1, "a\u2028b\r"), (2, ""), (3, "あいう"), (4, "last")]


def test_an_endless_line_is_refused_before_it_is_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "LINE_LIMIT_BYTES", 2**20)
    file = tmp_path / "rows"
    with file.open("wb") as endless:
        endless.write(b"{}\n")
        endless.truncate(8 * 2**30)  # sparse

    with pytest.raises(InvalidDataset, match="line 2 is longer than 1 MiB"):
        list(read_lines(file, "utf-8"))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"PAR1\x15\x04", "Parquet"),
        (b"PK\x03\x04\x14", "ZIP"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"{\x00}", "NUL"),
    ],
)
def test_binary_files_are_named(head: bytes, name: str) -> None:
    assert name in (name_binary(head) or "")


def test_text_is_not_taken_for_binary() -> None:
    assert name_binary(b'{"prompt"') is None
    assert name_binary("﻿{".encode("utf-16")) is None
