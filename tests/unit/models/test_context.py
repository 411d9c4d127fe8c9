from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.exceptions import ModelLoadError
from terakoya.models.context import context_window, token_counter


def artifact(path: Path, config: str) -> ModelArtifact:
    (path / "config.json").write_text(config)
    now = datetime.now(UTC)
    info = ModelInfo("model_1", "m", ModelKind.BASE, "llama", 1, 1, "a" * 64, "folder:x", "Apache-2.0", now)
    return ModelArtifact(info, path)


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ('{"max_position_embeddings": 8192}', 8192),
        ('{"text_config": {"max_position_embeddings": 4096}}', 4096),
        ("{}", 2048),
    ],
)
def test_the_window_is_what_the_configuration_states(config: str, window: int, tmp_path: Path) -> None:
    base = artifact(tmp_path, config)
    assert context_window(base) == context_window(ModelArtifact(base.info, tmp_path / "adapter", base)) == window


def test_tokens_are_counted_by_the_models_own_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert token_counter(artifact(tmp_path, "{}"))("three small words") == 3


def test_a_folder_without_a_tokenizer_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no 'tokenizer\.json'"):
        token_counter(artifact(tmp_path, "{}"))
