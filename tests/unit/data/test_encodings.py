from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from terakoya.data import encodings, sources
from terakoya.data.encodings import detect_encoding, name_binary, read_lines
from terakoya.data.problems import Problem
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

JAPANESE = """{"prompt": "注文した自転車はいつ届きますか？", "completion": "配送状況"}
{"prompt": "鍵をなくしました", "completion": "紛失"}
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp932", "euc_jp"])
def test_each_encoding_is_recognised_and_read_back(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "rows"
    file.write_bytes(JAPANESE.encode(encoding))

    assert detect_encoding(Source(file)) == encoding
    assert [text for _, text in read_lines(Source(file), encoding)] == JAPANESE.splitlines()


def test_japanese_after_a_long_ascii_beginning_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b'{"prompt": "plain", "completion": "ascii"}\n' * 50_000 + JAPANESE.encode("cp932"))

    assert detect_encoding(Source(file)) == "cp932"


def test_cp932_labels_in_kanji_alone_are_recognised(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes('{"prompt": "請求書", "completion": "経理"}\n'.encode("cp932") * 3)

    assert detect_encoding(Source(file)) == "cp932"


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
        detect_encoding(Source(file))


def test_one_damaged_line_in_utf8_is_named_by_line_and_byte(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes("あ\nい\nab\xffc\nう\n".encode().replace("ÿ".encode(), b"\xff"))

    lines = dict(read_lines(Source(file), detect_encoding(Source(file))))

    assert isinstance(lines[3], Problem)
    assert lines.pop(3).reason == "not valid UTF-8: byte 0xff at position 3"  # type: ignore[union-attr]
    assert lines == {1: "あ", 2: "い", 4: "う"}


def test_one_damaged_line_among_ascii_is_named_where_no_encoding_fits(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b'{"prompt": "a"}\n' * 40 + b'{"prompt": "caf\xe9"}\n')

    with pytest.raises(InvalidDataset, match="line 41 is not valid UTF-8: byte 0xe9 at position 16"):
        detect_encoding(Source(file))


def test_lines_are_told_apart_by_newline_alone_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CHUNK_BYTES", 3)
    file = tmp_path / "rows"
    file.write_bytes("a\u2028b\r\n\nあいう\nlast".encode())

    assert list(read_lines(Source(file), "utf-8")) == [(1, "a\u2028b\r"), (2, ""), (3, "あいう"), (4, "last")]


def test_an_endless_line_is_passed_over_without_being_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "LINE_LIMIT_BYTES", 2**20)
    file = tmp_path / "rows"
    with file.open("wb") as endless:
        endless.write(b"{}\n")
        endless.truncate(2 * 2**30)  # sparse

        endless.seek(0, 2)
        endless.write(b"\nlast")

    tracemalloc.start()
    lines = dict(read_lines(Source(file), "utf-8"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (lines[1], lines[3]) == ("{}", "last")
    assert lines[2].reason.startswith("longer than 1 MiB")  # type: ignore[union-attr]
    assert peak < 16 * 2**20


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
