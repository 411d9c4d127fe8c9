from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pypdfium2
import pytest

import terakoya

SAMPLES = Path(terakoya.__file__).parent / "samples"
ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted((SAMPLES / "documents").iterdir())
QUESTIONS = json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))


def text_of(path: Path) -> str:
    if path.suffix != ".pdf":
        return path.read_text(encoding="utf-8")
    with pypdfium2.PdfDocument(path) as document:
        return "\n".join(page.get_textpage().get_text_range() for page in document)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_the_length_of_a_real_one_and_says_its_language(path: Path) -> None:
    text = text_of(path)
    assert 600 <= len(text) <= 3500
    japanese = len(re.findall("[ぁ-んァ-ヶ]", text))
    assert (japanese > 100) == (path.suffixes[0] == ".ja")


def test_every_format_and_both_languages_are_there() -> None:
    assert {path.suffix for path in DOCUMENTS} == {".md", ".txt", ".html", ".pdf"}
    assert len([path for path in DOCUMENTS if ".ja" in path.suffixes]) == 7
    assert len(DOCUMENTS) == 13


def test_the_pdf_is_what_its_script_writes_and_has_pages() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_sample_pdf.py"))
    made = script["document"]([script["page_content"](text, number) for number, text in enumerate(script["PAGES"], 1)])
    path = SAMPLES / "documents" / "mc-240-manual.en.pdf"
    assert path.read_bytes() == made
    with pypdfium2.PdfDocument(path) as document:
        assert len(document) == 3
        assert "less than 1.0 mm" in document[2].get_textpage().get_text_range()


@pytest.mark.parametrize("question", [each for each in QUESTIONS if each["document"]], ids=lambda each: each["fact"])
def test_a_question_is_answered_by_its_document_alone(question: dict[str, str]) -> None:
    holders = [path.name for path in DOCUMENTS if question["fact"] in flat(text_of(path))]
    assert holders == [question["document"]]


def test_the_last_question_is_about_what_no_document_mentions() -> None:
    assert [each["document"] is None for each in QUESTIONS] == [False] * 4 + [True]
    assert [each["language"] for each in QUESTIONS[:4]] == ["ja", "ja", "en", "en"]
    assert not any(re.search("育児|産休|parental|maternity", text_of(path)) for path in DOCUMENTS)


def test_the_readme_names_every_document() -> None:
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DOCUMENTS if f"`{path.name}`" not in readme] == []


def test_no_document_names_a_person_or_a_real_address() -> None:
    for path in DOCUMENTS:
        assert not re.search(
            r"\b(Mr|Mrs|Ms|Dr)\.? [A-Z]|[一-龯]{1,3}(さん|氏|様)(?!が|は|から|の|へ|を)|@", text_of(path)
        )
