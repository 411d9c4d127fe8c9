from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from terakoya.exceptions import ModelLoadError, UnsafeArtifact
from terakoya.models.embedder_config import EmbedderConfig, read_embedder_config

CONFIG = EmbedderConfig(384, 512, "query: ", "")


def write(folder: Path, fields: Any) -> Path:
    (folder / "embedder.json").write_text(json.dumps(fields))
    return folder


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_embedder_config(write(tmp_path, CONFIG.to_json())) == CONFIG


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        CONFIG.to_json() | {"pooling": "cls"},
        CONFIG.to_json() | {"dimension": "384"},
        CONFIG.to_json() | {"dimension": True},
        CONFIG.to_json() | {"dimension": 0},
        CONFIG.to_json() | {"max_tokens": 1},
        CONFIG.to_json() | {"query_prefix": None},
    ],
)
def test_what_it_does_not_know_is_refused(tmp_path: Path, fields: Any) -> None:
    with pytest.raises(ModelLoadError, match=r"embedder\.json"):
        read_embedder_config(write(tmp_path, fields))


def test_a_folder_without_it_is_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is no embedder"):
        read_embedder_config(tmp_path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "embedder.json").write_text("{")
    with pytest.raises(UnsafeArtifact, match="not valid JSON"):
        read_embedder_config(tmp_path)
