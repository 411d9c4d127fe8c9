"""Merges an adapter into its base's weights, in float32. Quantised weights are refused: what is merged into them is
rounded away. Knows nothing of tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from terakoya.domain.models import ModelArtifact
from terakoya.models.artifacts import check_mergeable
from terakoya.models.base_loader import LoadedModel
from terakoya.models.factory import create_model_loader


def open_merged(artifact: ModelArtifact) -> LoadedModel:
    """Return the base with the adapter in its weights. Raises: InvalidConfig, ModelLoadError."""
    check_mergeable(artifact)
    # By its files: an adapter trained beside 4-bit weights is merged into the whole ones all the same.
    loaded = create_model_loader("lora").load(artifact)
    module: Any = loaded.module
    merged: nn.Module = module.merge_and_unload(safe_merge=True)  # refuses weights that are no numbers
    return LoadedModel(merged, loaded.tokenizer, artifact)


def write_folder(loaded: LoadedModel, directory: Path) -> None:
    """Write a whole model as a Transformers folder."""
    directory.mkdir(parents=True, exist_ok=True)
    module: Any = loaded.module
    module.save_pretrained(directory)
    loaded.tokenizer.save_pretrained(directory)
