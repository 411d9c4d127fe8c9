from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.contract.model_loader import ModelLoaderContract
from tests.tiny_embedder import HIDDEN

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.base_loader import LoadedModel
from terakoya.models.embedder_loader import EmbedderLoader


class TestEmbedderLoader(ModelLoaderContract):
    model_type = "embedder"

    @pytest.fixture
    def artifact(self, tiny_embedder: ModelArtifact) -> ModelArtifact:
        return tiny_embedder

    def output_of(self, loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
        hidden = loaded.module(input_ids=ids).last_hidden_state
        assert isinstance(hidden, torch.Tensor)
        assert hidden.shape == (*ids.shape, HIDDEN)
        return hidden

    def test_a_missing_weight_is_refused_not_made_up(self, copied: ModelArtifact) -> None:
        weights = load_file(copied.path / "model.safetensors")
        del weights["encoder.layer.1.output.dense.weight"]
        save_file(weights, copied.path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelLoadError, match=r"missing weights, first 'encoder\.layer\.1\.output"):
            EmbedderLoader().load(copied)

    @pytest.mark.parametrize("change", [{"dimension": 64}, {"max_tokens": 4096}])
    def test_a_claim_that_the_encoder_does_not_keep_is_refused(
        self, copied: ModelArtifact, change: dict[str, int]
    ) -> None:
        path = copied.path / "embedder.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ModelLoadError, match=r"'tiny-embedder' says .* its encoder has 32 and 48"):
            EmbedderLoader().load(copied)
