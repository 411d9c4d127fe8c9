"""Opens a reranker: a Transformers cross-encoder that reads a query and a passage together and gives one number. Knows
nothing of batches.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForSequenceClassification

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.artifacts import check_folder
from terakoya.models.base_loader import BaseModelLoader, LoadedModel
from terakoya.models.full_loader import LIBRARY_ERRORS, cannot_open, load_tokenizer, refuse_incomplete, torch_dtype


class RerankerLoader(BaseModelLoader):
    """The module returns ``.logits``, [batch, 1]."""

    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        check_folder(artifact.path)
        try:
            module, loading = AutoModelForSequenceClassification.from_pretrained(
                artifact.path,
                dtype=torch_dtype(dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported, and refused below by name
                output_loading_info=True,
            )
        except LIBRARY_ERRORS as error:
            raise cannot_open(artifact, error) from error
        refuse_incomplete(artifact, loading)
        config: Any = module.config
        if config.num_labels != 1:
            raise ModelLoadError(
                f"{artifact.info.name!r} sorts texts into {config.num_labels} classes and is no reranker: "
                "that gives one number for a query and a passage"
            )
        return LoadedModel(module.to(device).eval(), load_tokenizer(artifact.path, artifact.info.name), artifact)
