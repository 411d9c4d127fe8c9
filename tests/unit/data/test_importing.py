"""Whole files through the import: what is stored, and what the report says."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from terakoya.data.examples import read_examples
from terakoya.data.importing import ImportedRows, ImportOptions, import_file
from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidDataset

GOOD = {"prompt": "p", "completion": "c"}


def run(tmp_path: Path, content: str | bytes, **options: Any) -> ImportedRows:
    upload, rows = tmp_path / "upload", tmp_path / "rows"
    upload.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows.unlink(missing_ok=True)
    return import_file(upload, rows, ImportOptions(**options))


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def refusal(tmp_path: Path, content: str | bytes, **options: Any) -> dict[str, Any]:
    """The report on a file that is refused."""
    with pytest.raises(InvalidDataset) as caught:
        run(tmp_path, content, **options)
    assert caught.value.details is not None
    report: dict[str, Any] = caught.value.details["report"]
    return report


def test_preferences_and_texts_are_stored_as_what_they_are(tmp_path: Path) -> None:
    pair = run(tmp_path, lines({"prompt": "p", "chosen": "a", "rejected": "b"}))
    assert (pair.kind, pair.format) == (DatasetKind.PREFERENCE, "preference")
    assert [(each.answer, each.rejected) for each in read_examples(tmp_path / "rows")] == [("a", "b")]
    assert set(pair.report["characters"]) == {"prompt", "answer", "rejected"}

    text = run(tmp_path, lines({"text": "t"}, {"text": "t", "split": "test"}))
    assert (text.kind, text.rows, text.heldout_rows) == (DatasetKind.TEXT, 2, 1)
    assert [each.text for each in read_examples(tmp_path / "rows")] == ["t", "t"]
    assert text.report["overlap"] == {"rows": 1, "shown": [{"row": 2, "other": 1}]}


def test_rows_of_another_kind_than_the_first_are_named_by_line(tmp_path: Path) -> None:
    content = lines(GOOD, {"text": "t"}, GOOD | {"id": 1}, {"prompt": "p", "chosen": "a", "rejected": "b"})

    report = refusal(tmp_path, content)

    assert report["kind"] == DatasetKind.CONVERSATION
    assert [(note["row"], note["reason"]) for note in report["bad_rows"]] == [
        (2, "it is text, but the first row of the file (1) is conversation"),
        (4, "it is preference, but the first row of the file (1) is conversation"),
    ]


def test_bad_rows_are_all_counted_and_the_first_hundred_shown(tmp_path: Path) -> None:
    report = refusal(tmp_path, lines(*[{"prompt": "p"}] * 150, "x", GOOD))

    assert report["rows"] == {"read": 152, "good": 1, "bad": 151}
    assert len(report["bad_rows"]) == 100
    assert report["reasons"] == [
        {"code": "missing_field", "rows": 150, "first_row": 1},
        {"code": "not_json", "rows": 1, "first_row": 151},
    ]


def test_bad_rows_are_left_out_only_when_asked_for(tmp_path: Path) -> None:
    content = lines(GOOD, "x", {"prompt": "q", "completion": "d"})

    assert refusal(tmp_path, content)["skipped_bad_rows"] is False
    imported = run(tmp_path, content, skip_bad_rows=True)

    assert [example.row for example in read_examples(tmp_path / "rows")] == [1, 3]
    assert imported.notices == ("1 of 3 rows cannot be used and were left out.",)
    assert imported.statistics["bad_rows_left_out"] == 1


def test_a_file_of_bad_rows_alone_is_refused_even_then(tmp_path: Path) -> None:
    assert refusal(tmp_path, "x\n{}\n", filename="a.jsonl", skip_bad_rows=True)["rows"]["good"] == 0


def test_a_report_names_the_columns_it_saw(tmp_path: Path) -> None:
    report = refusal(tmp_path, "Frage,Antwort\nq,a\n")

    assert report["file"]["columns"] == ["Frage", "Antwort"]
    assert report["bad_rows"][0]["fix"] == "say which column is what, such as prompt=Frage, or rename the fields"


FAR = 1100
"""So many rows that what follows is beyond the beginning of the file, which decides what the file is."""
TABLE = "prompt,completion\n" + "あ,い\n" * FAR


@pytest.mark.parametrize(
    ("content", "code", "row"),
    [
        (lines(GOOD, '{"prompt": ' * 50_000, GOOD), "too_deep", 2),
        (lines(GOOD, '{"prompt": "' + "x" * 5 * 2**20 + '"}', GOOD), "line_too_long", 2),
        (b'{"text": "\xe3\x81\x82"}\n' * 3 + b'{"text": "\xe3\x81\x82\xff"}\n', "bad_encoding", 4),
        (lines(*[GOOD] * FAR, '{"prompt": "\x00", "completion": "c"}'), "not_json", FAR + 1),
        (lines(GOOD, '{"prompt": "\\u0000", "completion": "c"}'), "nul", 2),
        (TABLE + "p,\x00\n", "nul", FAR + 2),
        (TABLE.encode() + b"p,\xff\n", "bad_bytes", FAR + 2),
        ('prompt,completion\np,c\np,"never closed\nq,c\n' + "r,c\n" * 50, "open_quote", 3),
        (f'prompt,completion\np,c\np,"{"x" * 3 * 2**20}\n{"y" * 3 * 2**20}"\nq,c\n', "open_quote", 3),
        (json.dumps([GOOD, {"prompt": "\ud83d", "completion": "c"}, GOOD]), "half_character", 2),
    ],
)
def test_a_hostile_row_is_a_bad_row_and_no_more(tmp_path: Path, content: str | bytes, code: str, row: int) -> None:
    report = refusal(tmp_path, content)

    assert (report["bad_rows"][0]["code"], report["bad_rows"][0]["row"]) == (code, row)
    assert run(tmp_path, content, skip_bad_rows=True).rows == report["rows"]["good"] >= 1


def test_repeats_and_overlap_are_found_in_every_format(tmp_path: Path) -> None:
    table = "prompt,completion,split\nどこ,b,\n" + "どこ,b,train\n" + "どこ\u3000,c,test\n"
    for content in (table.encode("cp932"), gzip.compress(table.encode()), table.encode("utf-16")):
        report = run(tmp_path, content).report
        assert report["repeats"] == {"rows": 1, "shown": [{"row": 3, "other": 2}]}
        assert report["overlap"] == {"rows": 1, "shown": [{"row": 4, "other": 2}]}


def test_what_rows_take_as_they_are_stored_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="the rows take more than 4,000 bytes"):
        run(tmp_path, "prompt,completion\n" + "a,b\n" * 100, limit_bytes=1000)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """80,000 rows against 1,000: what is kept of a row lies on disk."""
    peaks = []
    for rows in (1_000, 80_000):
        upload = tmp_path / "upload"
        with upload.open("w") as file:
            file.writelines(f'{{"prompt": "{n}", "completion": "{n % 7}"}}\n' for n in range(rows))
        code = (
            "import resource; from pathlib import Path; from terakoya.data.importing import *\n"
            f"import_file(Path({str(upload)!r}), Path({str(tmp_path / f'rows {rows}')!r}), ImportOptions())\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(answer.stdout) * (1 if sys.platform == "darwin" else 1024))
    assert peaks[1] - peaks[0] < 16 * 2**20
