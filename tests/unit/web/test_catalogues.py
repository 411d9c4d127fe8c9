from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from terakoya.api.machine import protections
from terakoya.config import Settings
from terakoya.data.problems import PROBLEMS
from terakoya.domain.events import INTERRUPTED, RESTARTED, WAITING, Phase
from terakoya.domain.models import STAGES, ModelKind
from terakoya.domain.tasks import TaskState
from terakoya.i18n import LANGUAGES, choose_language, is_key, load_catalogue
from terakoya.training.adapters import ADAPTERS
from terakoya.training.chain_service import IRREVERSIBLE, NO_BUDGET, NO_CELL, NO_REHEARSAL
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.presets import PRESETS

ROOT = Path(__file__).parents[3]
PLACE = re.compile(r"%\(\w+\)s")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "update_catalogues.py"))


def test_every_text_the_pages_use_has_a_japanese_one_with_the_same_values(script: dict[str, Any]) -> None:
    japanese = load_catalogue("ja").texts
    for text in script["used_texts"]():
        assert text in japanese, f"{text!r}: run scripts/update_catalogues.py and translate it"
        assert sorted(PLACE.findall(japanese[text])) == sorted(PLACE.findall(text)), text


def test_no_translation_is_left_of_a_text_that_is_gone(script: dict[str, Any]) -> None:
    used = set(script["used_texts"]())
    assert {text for text in load_catalogue("ja").texts if not is_key(text)} == used


def test_both_languages_know_the_same_keys() -> None:
    english, japanese = (load_catalogue(language).texts for language in LANGUAGES)
    assert set(english) == {text for text in japanese if is_key(text)}
    assert all(sorted(PLACE.findall(english[key])) == sorted(PLACE.findall(japanese[key])) for key in english)


def test_the_problems_of_rows_have_the_sentences_of_the_table() -> None:
    texts = load_catalogue("en").texts
    assert {code: (texts[f"problem.{code}"], texts[f"remedy.{code}"]) for code in PROBLEMS} == dict(PROBLEMS)


def sources() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))


def error_codes() -> set[str]:
    """Every code an envelope or a failed task can carry."""
    raised = set(re.findall(r'^    code(?:: ClassVar\[str\])? = "(\w+)"', sources(), flags=re.MULTILINE))
    return (
        raised
        | {"http_error", "internal_error", "method_not_allowed", "validation_error"}
        | {"cancelled", "server_ended", "time_limit", "worker_died", "worker_error"}
    )


def warning_codes() -> set[str]:
    """Every code the sources give a warning event."""
    return set(re.findall(r'EventType\.WARNING,(?:\s*attempt=[\w.]+,)?\s*code="(\w+)"', sources()))


def test_the_shared_vocabulary_has_texts(tmp_path: Path) -> None:
    names = list(protections(Settings(data_dir=tmp_path)))
    words = {
        "phase": list(Phase),
        "state": list(TaskState),
        "kind": list(ModelKind),
        "stage": list(STAGES),
        "strategy": [*STRATEGIES, *(f"{name}.about" for name in STRATEGIES)],
        "objective": [*OBJECTIVES, *(f"{name}.about" for name in OBJECTIVES)],
        "adapter": [*ADAPTERS, *(f"{kind}.about" for kind in ADAPTERS)],
        "setting": sorted({setting.name for name in OBJECTIVES for setting in OBJECTIVES.load(name).settings}),
        "protection": [f"{name}{side}" for name in names for side in ("", ".on", ".off")],
        "error": sorted(error_codes()),
        "warning": sorted({*warning_codes(), INTERRUPTED, RESTARTED, WAITING}),
        "plan": sorted(set(re.findall(r'Finding\(\s*"(\w+)"', sources()))),
        "role": ["system", "user", "assistant", "tool"],
        "problem": list(PROBLEMS),
        "remedy": list(PROBLEMS),
        "part": ["prompt", "answer", "rejected", "text"],
        "verdict": [
            f"{code}.{metric}"
            for code in ("better", "worse", "no_clear_difference")
            for metric in ("exact_match", "loss", "preference_accuracy")
        ],
        "language": list(LANGUAGES),
        "preset": [name.replace("-", "_") for name in PRESETS],
        "cost": [cost.code for cost in (IRREVERSIBLE, NO_BUDGET, NO_CELL, NO_REHEARSAL)],
        "damage": ["changed", "foreign", "missing"],
        "canary": ["better", "no_clear_change", "not_applicable", "slightly_worse", "worse"],
    }
    assert {f"{kind}.{value}" for kind, values in words.items() for value in values} == set(load_catalogue("en").texts)


def test_a_preset_has_one_reason_everywhere() -> None:
    texts = load_catalogue("en").texts
    assert {name: texts[f"preset.{name.replace('-', '_')}"] for name in PRESETS} == {
        name: preset.reason for name, preset in PRESETS.items()
    }


def test_scripts_get_their_texts_and_the_vocabulary() -> None:
    texts = load_catalogue("ja").for_scripts()
    assert texts["phase.training"] == "学習"
    assert "Checking every row …" in texts
    assert "What this server runs on, and which protections it has." not in texts


@pytest.mark.parametrize(
    ("chosen", "accepted", "default", "language"),
    [
        (None, "ja", "auto", "ja"),
        (None, "en-US,en;q=0.9,ja;q=0.8", "auto", "en"),
        (None, "fr, ja;q=0.5, en;q=0.4", "auto", "ja"),
        (None, "ja;q=0, fr", "auto", "en"),
        (None, "", "auto", "en"),
        (None, "ja;q=x;;,\x00", "auto", "en"),
        (None, "en", "ja", "ja"),
        ("en", "ja", "ja", "en"),
        ("xx", "ja", "auto", "ja"),
    ],
)
def test_the_choice_wins_then_the_setting_then_the_browser(
    chosen: str | None, accepted: str, default: str, language: str
) -> None:
    assert choose_language(chosen=chosen, accepted=accepted, default=default) == language


def test_the_findings_the_pages_translate_are_what_the_parsers_say() -> None:
    script_text = (ROOT / "src/terakoya/web/static/js/findings.js").read_text(encoding="utf-8")
    known = {PLACE.sub("{}", text) for text in re.findall(r'mark\("(.+)"\)', script_text)}
    said = {
        text
        for path in [
            *(ROOT / "src/terakoya/rag/indexing/parsers").rglob("*.py"),
            ROOT / "src/terakoya/data/importing.py",
        ]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (text := template_of(node)) is not None
    }
    assert known
    assert known <= said


def template_of(node: ast.AST) -> str | None:
    """The text of a literal, with {} for each of its values."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
