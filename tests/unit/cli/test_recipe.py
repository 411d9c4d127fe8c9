from __future__ import annotations

from pathlib import Path

import pytest
import typer

from terakoya.cli.train import _named, with_recipe
from terakoya.exceptions import InvalidConfig


def test_the_command_line_goes_before_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: a\ndataset: d\nepochs: 3\nadapter: {rank: 4, dropout: 0.1}\n", encoding="utf-8-sig")
    options = with_recipe(recipe, {"model": "b", "adapter": {"rank": 8}})
    assert options == {"model": "b", "dataset": "d", "epochs": 3, "adapter": {"rank": 8, "dropout": 0.1}}
    assert _named(options, "model") == "b"
    assert "model" not in options


def test_a_recipe_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read: No such file"):
        with_recipe(tmp_path / "none.yaml", {})
    (tmp_path / "r.yaml").write_bytes("モデル".encode("cp932"))
    with pytest.raises(InvalidConfig, match="is not UTF-8"):
        with_recipe(tmp_path / "r.yaml", {})


def test_without_a_recipe_model_and_dataset_are_needed() -> None:
    with pytest.raises(typer.BadParameter, match="--recipe"):
        _named({}, "dataset")
