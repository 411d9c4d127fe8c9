from __future__ import annotations

from typing import Any

import pytest

from terakoya.web.figures import bytes_text, first_line, headline, parameters_text, sparkline, strategy_name


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (98_362_432, "98 MB"), (1_500_000_000, "1.5 GB"), (2e15, "2000 TB")],
)
def test_sizes_have_two_significant_figures_and_a_unit(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_parameters_are_written_as_in_model_names() -> None:
    assert [parameters_text(n) for n in (921_600, 134_515_008, 1_711_376_384)] == ["921,600", "135M", "1.7B"]


def translate(message: str, **values: Any) -> str:
    return message % values if values else message


def test_the_headline_is_the_figure_that_decided() -> None:
    heldout = {"exact_match": {}, "loss": {}}
    by_match = {"heldout": heldout, "verdict": {"metric": "exact_match", "before": 0.0, "after": 0.9531}}
    by_loss = {"heldout": heldout, "verdict": {"metric": "loss", "before": 2.5, "after": 1.25}}
    assert headline(translate, by_match) == "0.0% → 95.3% right"
    assert headline(translate, by_loss) == "Loss 2.50 → 1.25"
    assert headline(translate, {}) == headline(translate, {"heldout": None, "verdict": None}) == ""


def test_a_strategy_of_another_package_goes_by_its_own_name() -> None:
    assert strategy_name(translate, "theirs") == "theirs"
    assert strategy_name(translate, "theirs", "about") == ""


def test_only_the_first_line_of_an_error_is_shown_in_lists() -> None:
    assert first_line("\nit died\nat line 3") == "it died"
    assert first_line(" ") == ""


def test_a_sparkline_fills_its_box_and_falls_with_the_loss() -> None:
    assert sparkline({"curve": [3.0, 2.0, 1.0]}) == "0.0,2.0 50.0,14.0 100.0,26.0"
    assert sparkline({"curve": [1.0, 1.0]}) == "0.0,26.0 100.0,26.0"
    assert sparkline({"curve": [1.0]}) == sparkline({}) == ""
