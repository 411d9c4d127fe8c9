from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.cli import texts
from terakoya.cli.dataset_report import findings, print_report
from terakoya.cli.datasets import _explained, _mapping
from terakoya.data.importing import ImportOptions, import_file
from terakoya.exceptions import InvalidConfig, InvalidDataset


@pytest.fixture
def report(tmp_path: Path) -> dict[str, object]:
    rows = [
        '{"prompt": "a", "completion": "b", "id": 1}',
        '{"prompt": "a", "completion": "b", "split": "train"}',
        '{"prompt": "A", "completion": "c", "split": "test"}',
        '{"prompt": "a", "completion": ""}',
        f'{{"prompt": "long", "completion": "{"x" * 9000}"}}',
    ]
    (tmp_path / "upload").write_text("\n".join(rows))
    options = ImportOptions("rows.jsonl", skip_bad_rows=True)
    return import_file(tmp_path / "upload", tmp_path / "rows", options).report


def test_a_report_is_told_in_words_and_bars(report: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)

    said = capsys.readouterr().out
    assert "rows.jsonl: jsonl, utf-8, prompt-completion\n5 rows, 4 good, 1 bad\n" in said
    assert "'completion' is empty   fill it in, or remove the row" in said
    assert "1 rows repeat an earlier row exactly:\n  2 = 1\n" in said
    assert "1 held-out rows have a prompt that a training row has too:\n  3 = 1\n" in said
    assert "1 answers have more than 8,000 characters; the longest: 5 (9,000)" in said
    assert "Fields that were not read: id (1)" in said
    assert "Characters of each answer: p50 1, p90 9,000, p99 9,000, max 9,000" in said
    assert "#" * 40 + " 3\n" in said


def test_a_report_is_told_in_japanese(
    report: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "language", lambda: "ja")
    print_report(report)

    said = capsys.readouterr().out
    assert "'completion' が空です" in said
    assert "値を入れるか、行を取り除いてください" in said
    assert "回答の文字数: p50 1" in said


def test_columns_are_named_one_by_one() -> None:
    assert _mapping(["prompt=Frage", "answer=a=b"]) == {"prompt": "Frage", "answer": "a=b"}
    for pairs in (["prompt"], ["=x"], ["prompt="], ["prompt=a", "prompt=b"]):
        with pytest.raises(InvalidConfig, match="--map"):
            _mapping(pairs)


def test_a_refused_file_is_shown_row_by_row_and_the_error_is_a_sentence(
    report: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    short = _explained(InvalidDataset("long\nline 4: ...", details={"report": report}))

    assert str(short).startswith("1 of 5 rows cannot be used: correct them")
    assert "'completion' is empty" in capsys.readouterr().out

    whole = InvalidDataset("the file is cut off")
    assert _explained(whole) is whole
    assert capsys.readouterr().out == ""


def test_what_everybody_should_know_is_said_in_sentences(report: dict[str, object]) -> None:
    assert list(findings(report)) == [
        "1 of 5 rows cannot be used and were left out.",
        "Fields that were not read: id (1)",
        "1 rows repeat an earlier row exactly; they were kept.",
        "1 held-out rows have a prompt that a training row has too; their score will look too good.",
    ]
