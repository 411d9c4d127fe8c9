from __future__ import annotations

import pytest
from tests.chain_links import made_metrics

from terakoya.cli.chain_matrix import print_matrix


def test_a_matrix_is_printed_with_its_intervals_and_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = made_metrics("mail-abc", 1, [], wrong=[1])
    second = made_metrics("parts-abc", 2, [first], wrong=[4, 2])
    print_matrix(second["matrix"])
    said = capsys.readouterr().out
    assert "95.0% (76.4% .. 99.1%)" in said
    assert "BWT -15.0" in said
    assert "FWT +10.0" in said
    assert "LA 92.5%" in said
    assert "general en, bits per byte" in said
    assert "Scored again in 0:12 after training for 3:00, 2.4 GB" in said


def test_what_was_not_measured_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    second = made_metrics("parts-abc", 2, [{}], wrong=[2])
    from terakoya.training.continual.scored import assemble, row_of

    matrix = assemble([None, row_of(second)], ["mail-abc", "parts-abc"])
    print_matrix(matrix)
    said = capsys.readouterr().out
    assert "not measured" in said
    assert "ACC -" in said
