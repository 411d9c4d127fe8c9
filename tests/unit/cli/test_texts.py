from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir

import terakoya
from terakoya.cli import texts
from terakoya.i18n import load_catalogue

SOURCE = Path(terakoya.__file__).parent / "cli"
PLACEHOLDER = re.compile(r"%\(\w+\)s")


def english_texts() -> set[str]:
    # The extractor warns of f-strings, which Python code holds for other reasons.
    found = extract_from_dir(SOURCE, method_map=[("**.py", "python")], keywords={"_": None})
    return {message for _, _, message, _, _ in found if isinstance(message, str)}


def test_every_text_of_the_command_line_is_in_japanese() -> None:
    assert english_texts() - set(load_catalogue("ja", "cli").texts) == set()


def test_no_translation_is_left_over() -> None:
    assert set(load_catalogue("ja", "cli").texts) - english_texts() == set()


def test_translations_fill_in_the_same_values() -> None:
    for english, japanese in load_catalogue("ja", "cli").texts.items():
        assert sorted(PLACEHOLDER.findall(japanese)) == sorted(PLACEHOLDER.findall(english)), english


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "C", "TERAKOYA_LANGUAGE": "ja"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "TERAKOYA_LANGUAGE": "en"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_follows_the_environment(
    environment: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "TERAKOYA_LANGUAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    texts.language.cache_clear()
    try:
        assert texts.language() == language
    finally:
        texts.language.cache_clear()
