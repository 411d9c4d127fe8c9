"""How much a model reads at once, and how many tokens a text is to it: from its files, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError

_UNSTATED_WINDOW = 2048
"""For a model that does not say: what the smallest common ones read."""


def context_window(artifact: ModelArtifact) -> int:
    """Return the tokens that prompt and answer may have together, as the model's configuration states it."""
    path = artifact.root.path / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    text_part = config.get("text_config") or {}
    window = config.get("max_position_embeddings") or text_part.get("max_position_embeddings") or _UNSTATED_WINDOW
    return int(window)


def token_counter(artifact: ModelArtifact) -> Callable[[str], int]:
    """Return what counts a text's tokens. Blocks while the tokenizer is read. Raises: ModelLoadError without one."""
    return _counter(artifact.root.path / "tokenizer.json")


@lru_cache(maxsize=4)
def _counter(path: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise ModelLoadError(f"the model's folder has no {path.name!r}, without which a prompt cannot be measured")
    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
