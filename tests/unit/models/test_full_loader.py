from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file
from tests.contract.model_loader import ModelLoaderContract

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.full_loader import FullModelLoader


class TestFullModelLoader(ModelLoaderContract):
    model_type = "full"

    @pytest.fixture
    def artifact(self, tiny_base: ModelArtifact) -> ModelArtifact:
        return tiny_base

    def test_a_missing_weight_is_refused_not_made_up(self, copied: ModelArtifact) -> None:
        weights = load_file(copied.path / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, copied.path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelLoadError, match=r"missing weights, first 'model\.layers\.1\.mlp\.up_proj"):
            FullModelLoader().load(copied)

    def test_a_weight_of_another_shape_is_refused(self, copied: ModelArtifact) -> None:
        weights = load_file(copied.path / "model.safetensors")
        weights["model.norm.weight"] = weights["model.norm.weight"][:10].clone()
        save_file(weights, copied.path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelLoadError, match="norm"):
            FullModelLoader().load(copied)

    def test_a_quantised_checkpoint_is_refused_with_what_would_work(self, copied: ModelArtifact) -> None:
        config = json.loads((copied.path / "config.json").read_text())
        (copied.path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
        with pytest.raises(ModelLoadError, match=r"'gptq'.*GGUF"):
            FullModelLoader().load(copied)

    def test_an_unknown_architecture_is_a_clear_error(self, copied: ModelArtifact) -> None:
        config = json.loads((copied.path / "config.json").read_text())
        (copied.path / "config.json").write_text(json.dumps(config | {"model_type": "not_a_model"}))
        with pytest.raises(ModelLoadError, match="not_a_model"):
            FullModelLoader().load(copied)
