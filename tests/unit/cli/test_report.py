from __future__ import annotations

from typing import Any

import pytest

from terakoya.cli.report import print_report


def interval(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


REPORT: dict[str, Any] = {
    "version": 1,
    "heldout": {
        "examples": 300,
        "exact_match": {
            "before": interval(0.0, 0.0, 0.01),
            "after": interval(0.953, 0.92, 0.97),
            "difference": interval(0.953, 0.92, 0.97),
        },
        "loss": {
            "before": interval(5.1, 5.0, 5.2),
            "after": interval(0.21, 0.1, 0.3),
            "difference": interval(-4.89, None, None),
        },
    },
    "flips": {"gained": 286, "lost": 0},
    "examples": [
        {"row": 1, "prompt": "Where is\nmy [bold]parcel[/bold]?", "reference": "delivery", "before": None, "after": ""}
    ],
    "cost": {"seconds": 187.2, "training_seconds": 150, "tokens_per_second": 512.3, "peak_rss_bytes": 4.2e9},
    "verdict": {"code": "better", "metric": "exact_match", "text": "In English.", "before": 0.0, "after": 0.953},
}


def test_the_card_shows_both_sides_the_difference_and_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT)
    shown = capsys.readouterr().out
    for text in (
        "300",
        "0.0%",
        "95.3%",
        "+95.3 (+92.0 .. +97.0)",
        "286",
        "3:07",
        "512 tokens/s",
        "4.2 GB",
        "Better at this work: 95.3%",
    ):
        assert text in shown


def test_an_interval_that_one_row_cannot_have_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT)
    assert "-4.890 (- .. -)" in capsys.readouterr().out


def test_text_of_the_data_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT)
    assert "my [bold]parcel[/bold]?" in capsys.readouterr().out


def test_a_card_without_extras_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_report({"heldout": REPORT["heldout"]})
    assert "95.3%" in capsys.readouterr().out


def test_a_verdict_of_a_newer_version_is_shown_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    print_report({"heldout": REPORT["heldout"], "verdict": {"code": "mixed", "text": "Some up, some down."}})
    assert "Some up, some down." in capsys.readouterr().out
