"""``embedder.json``, the file that makes a model folder an embedder: how vectors are made of what the encoder says.
Knows nothing of torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from terakoya.exceptions import ModelLoadError
from terakoya.models.artifacts import EMBEDDER_FILE, read_json


@dataclasses.dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """Vectors are the mean over a text's tokens, divided by their length."""

    dimension: int
    max_tokens: int
    """With the special ones; what is longer is cut."""
    query_prefix: str
    passage_prefix: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_embedder_config(folder: Path) -> EmbedderConfig:
    """Raises: ModelLoadError if the file is missing or says something else; UnsafeArtifact if it is no JSON."""
    path = folder / EMBEDDER_FILE
    if not path.is_file():
        raise ModelLoadError(f"the model folder {folder.name!r} is no embedder: it has no {EMBEDDER_FILE!r}")
    fields = read_json(path)
    types = {"dimension": int, "max_tokens": int, "query_prefix": str, "passage_prefix": str}
    if not isinstance(fields, dict) or {name: type(value) for name, value in fields.items()} != types:
        raise ModelLoadError(f"{EMBEDDER_FILE!r} needs exactly {', '.join(types)}; got {fields!r:.300}")
    config = EmbedderConfig(**fields)
    if not (1 <= config.dimension <= 65_536 and 8 <= config.max_tokens <= 65_536):
        raise ModelLoadError(f"{EMBEDDER_FILE!r} has a dimension or max_tokens out of range: {fields!r:.300}")
    return config
