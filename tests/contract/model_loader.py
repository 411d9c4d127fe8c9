"""What every model loader must do. A loader's test inherits ``ModelLoaderContract`` and gives it an artifact."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig, ModelLoadError, UnsafeArtifact
from terakoya.models.base_loader import LoadedModel
from terakoya.models.factory import create_model_loader, loader_type

PROMPT = "A prompt, 寺子屋."


class Canary:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


class ModelLoaderContract:
    model_type: str

    @pytest.fixture
    def artifact(self) -> ModelArtifact:
        """A small model of the type under test."""
        raise NotImplementedError

    @pytest.fixture
    def copied(self, artifact: ModelArtifact, tmp_path: Path) -> ModelArtifact:
        """The same in a folder that a test may spoil."""
        folder = tmp_path / "model"
        shutil.copytree(artifact.path, folder)
        return dataclasses.replace(artifact, path=folder)

    def output_of(self, loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
        logits = loaded.module(input_ids=ids).logits
        assert isinstance(logits, torch.Tensor)
        return logits

    def test_its_files_are_recognised(self, artifact: ModelArtifact) -> None:
        assert loader_type(artifact) == self.model_type

    def test_it_gives_a_frozen_model_in_evaluation_mode(self, artifact: ModelArtifact) -> None:
        loaded = create_model_loader(self.model_type).load(artifact)
        assert not loaded.module.training
        assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
        assert loaded.artifact is artifact

    def test_two_loads_compute_the_same(self, artifact: ModelArtifact) -> None:
        first, second = (create_model_loader(self.model_type).load(artifact) for _ in range(2))
        ids = torch.tensor([first.tokenizer(PROMPT)["input_ids"]])
        with torch.inference_mode():
            output = self.output_of(first, ids)
            assert torch.isfinite(output).all()
            assert torch.equal(output, self.output_of(second, ids))

    def test_its_tokenizer_returns_what_it_was_given(self, artifact: ModelArtifact) -> None:
        tokenizer = create_model_loader(self.model_type).load(artifact).tokenizer
        assert tokenizer.decode(tokenizer(PROMPT)["input_ids"], skip_special_tokens=True) == PROMPT

    def test_an_unknown_compute_type_is_refused(self, artifact: ModelArtifact) -> None:
        with pytest.raises(InvalidConfig, match="int3"):
            create_model_loader(self.model_type).load(artifact, dtype="int3")

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "extra.safetensors", "vocab.model", "a.json"])
    def test_a_planted_pickle_is_refused_and_never_runs(self, copied: ModelArtifact, tmp_path: Path, name: str) -> None:
        canary = tmp_path / "canary"
        (copied.path / name).write_bytes(pickle.dumps(Canary(canary)))
        with pytest.raises(UnsafeArtifact):
            create_model_loader(self.model_type).load(copied)
        assert not canary.exists()

    def test_a_link_is_refused(self, copied: ModelArtifact, tmp_path: Path) -> None:
        (tmp_path / "secret.json").write_text("{}")
        (copied.path / "linked.json").symlink_to(tmp_path / "secret.json")
        with pytest.raises(UnsafeArtifact, match="link"):
            create_model_loader(self.model_type).load(copied)

    def test_code_named_by_a_configuration_is_refused(self, copied: ModelArtifact) -> None:
        (copied.path / "more.json").write_text(json.dumps({"a": [{"auto_map": {"AutoModel": "x.Y"}}]}))
        with pytest.raises(UnsafeArtifact, match="auto_map"):
            create_model_loader(self.model_type).load(copied)

    def test_a_missing_folder_is_a_clear_error(self, artifact: ModelArtifact, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="nowhere"):
            create_model_loader(self.model_type).load(dataclasses.replace(artifact, path=tmp_path / "nowhere"))
