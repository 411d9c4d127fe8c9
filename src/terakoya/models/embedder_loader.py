"""Opens an embedder: a Transformers encoder with the ``embedder.json`` that says how vectors are made of it. Knows
nothing of batches.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoModel

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.artifacts import check_folder
from terakoya.models.base_loader import BaseModelLoader, LoadedModel
from terakoya.models.embedder_config import read_embedder_config
from terakoya.models.full_loader import LIBRARY_ERRORS, cannot_open, load_tokenizer, refuse_incomplete, torch_dtype


class EmbedderLoader(BaseModelLoader):
    """The module returns ``.last_hidden_state``, [batch, tokens, dimension]."""

    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        check_folder(artifact.path)
        config = read_embedder_config(artifact.path)
        try:
            module, loading = AutoModel.from_pretrained(
                artifact.path,
                dtype=torch_dtype(dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported, and refused below by name
                output_loading_info=True,
                add_pooling_layer=False,
            )
        except LIBRARY_ERRORS as error:
            raise cannot_open(artifact, error) from error
        refuse_incomplete(artifact, loading)
        _refuse_mismatch(artifact, module.config, config.dimension, config.max_tokens)
        return LoadedModel(module.to(device).eval(), load_tokenizer(artifact.path, artifact.info.name), artifact)


def _refuse_mismatch(artifact: ModelArtifact, encoder: Any, dimension: int, max_tokens: int) -> None:
    if encoder.hidden_size != dimension or encoder.max_position_embeddings < max_tokens:
        raise ModelLoadError(
            f"the embedder {artifact.info.name!r} says {dimension} numbers a vector and {max_tokens} tokens; its "
            f"encoder has {encoder.hidden_size} and {encoder.max_position_embeddings}"
        )
