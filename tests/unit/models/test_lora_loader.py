from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tests.contract.model_loader import PROMPT, ModelLoaderContract
from tests.tiny_model import build_tiny_adapter, build_tiny_model, tiny_artifact

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.base_loader import LoadedModel
from terakoya.models.full_loader import FullModelLoader
from terakoya.models.lora_loader import LoRAModelLoader


def logits_of(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits = loaded.module(input_ids=torch.tensor([loaded.tokenizer(PROMPT)["input_ids"]])).logits
    assert isinstance(logits, torch.Tensor)
    return logits


class TestLoRAModelLoader(ModelLoaderContract):
    model_type = "lora"

    @pytest.fixture
    def artifact(self, tiny_adapter: ModelArtifact) -> ModelArtifact:
        return tiny_adapter

    def test_adapters_share_one_base_and_the_chosen_one_works(
        self, tiny_base: ModelArtifact, tiny_adapter: ModelArtifact, tmp_path: Path
    ) -> None:
        other = tiny_artifact(build_tiny_adapter(tmp_path / "other", tiny_base.path, seed=2), base=tiny_base)
        alone = {a.info.id: logits_of(LoRAModelLoader().load(a)) for a in (tiny_adapter, other)}
        base = FullModelLoader().load(tiny_base)
        plain = logits_of(base)

        loader = LoRAModelLoader()
        shared = loader.attach(base, tiny_adapter, name="first")
        shared = loader.attach(shared, other, name="second")

        assert torch.equal(logits_of(shared), alone[other.info.id])
        loader.activate(shared, name="first")
        assert torch.equal(logits_of(shared), alone[tiny_adapter.info.id])
        loader.activate(shared, name=None)
        assert torch.equal(logits_of(shared), plain)
        loader.detach(shared, name="second")
        loader.activate(shared, name="first")
        assert torch.equal(logits_of(shared), alone[tiny_adapter.info.id])
        assert not torch.allclose(plain, alone[tiny_adapter.info.id])

    def test_an_adapter_of_another_model_is_refused_before_the_base_is_touched(
        self, tiny_adapter: ModelArtifact, tmp_path: Path
    ) -> None:
        wider = tiny_artifact(build_tiny_model(tmp_path / "wider", hidden=128))
        base = FullModelLoader().load(wider)
        before = logits_of(base)
        with pytest.raises(ModelLoadError, match="made for another model"):
            LoRAModelLoader().attach(base, dataclasses.replace(tiny_adapter, base=wider), name="x")
        assert torch.equal(logits_of(base), before)

    def test_without_a_base_it_says_what_is_needed(self, tiny_adapter: ModelArtifact) -> None:
        with pytest.raises(ModelLoadError, match="no base"):
            LoRAModelLoader().load(dataclasses.replace(tiny_adapter, base=None))

    @pytest.mark.parametrize(
        ("key", "value"),
        [("bias", "all"), ("init_lora_weights", "pissa"), ("peft_type", "IA3"), ("layer_replication", [[0, 1]])],
    )
    def test_what_would_change_the_shared_base_is_refused(self, copied: ModelArtifact, key: str, value: object) -> None:
        config = json.loads((copied.path / "adapter_config.json").read_text())
        (copied.path / "adapter_config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(ModelLoadError, match=key):
            LoRAModelLoader().load(copied)
