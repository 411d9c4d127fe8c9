from __future__ import annotations

import pytest
import torch
from tests.tiny_embedder import build_tiny_embedder, embedder_artifact
from tests.tiny_model import build_tiny_adapter, build_tiny_gguf, build_tiny_model, tiny_artifact

from terakoya.domain.models import ModelArtifact


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small only wait for each other on more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return tiny_artifact(build_tiny_model(tmp_path_factory.mktemp("models") / "base"))


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: ModelArtifact, tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    folder = build_tiny_adapter(tmp_path_factory.mktemp("models") / "adapter", tiny_base.path)
    return tiny_artifact(folder, base=tiny_base)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return tiny_artifact(build_tiny_gguf(tmp_path_factory.mktemp("models") / "gguf" / "tiny.gguf").parent)


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return embedder_artifact(build_tiny_embedder(tmp_path_factory.mktemp("models") / "embedder"))
