"""The table of model loaders. A new type is a file and a row here, or another package's entry point
``terakoya.model_loaders``; nothing else changes.
"""

from __future__ import annotations

from terakoya.domain.models import ModelArtifact
from terakoya.models.artifacts import loader_type_of
from terakoya.models.base_loader import BaseModelLoader
from terakoya.registry import Registry

model_loaders: Registry[type[BaseModelLoader]] = Registry(
    "model type",
    {
        "full": "terakoya.models.full_loader:FullModelLoader",
        "lora": "terakoya.models.lora_loader:LoRAModelLoader",
        "qlora": "terakoya.models.qlora_loader:QLoRAModelLoader",
        "gguf": "terakoya.models.gguf_loader:GGUFModelLoader",
        "external": "terakoya.models.external_loader:ExternalModelLoader",
        "embedder": "terakoya.models.embedder_loader:EmbedderLoader",
        "reranker": "terakoya.models.reranker_loader:RerankerLoader",
    },
    group="terakoya.model_loaders",
)


def create_model_loader(model_type: str) -> BaseModelLoader:
    """Return the loader of that type. Raises: InvalidConfig naming the types there are."""
    return model_loaders.load(model_type)()


def loader_type(artifact: ModelArtifact) -> str:
    """Return the type of loader for the artifact: what its card names, else what its files show.

    Raises: ModelLoadError if the files are no model.
    """
    named = artifact.info.card.get("loader")
    return named if isinstance(named, str) else loader_type_of(artifact.path)
