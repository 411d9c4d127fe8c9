from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from tests.contract.model_loader import PROMPT, ModelLoaderContract
from tests.tiny_model import tiny_artifact

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.full_loader import FullModelLoader
from terakoya.models.gguf_loader import GGUFModelLoader, convert_gguf


class TestGGUFModelLoader(ModelLoaderContract):
    model_type = "gguf"

    @pytest.fixture
    def artifact(self, tiny_gguf: ModelArtifact) -> ModelArtifact:
        return tiny_gguf

    def test_the_converted_folder_reloads_as_the_same_model(self, artifact: ModelArtifact, tmp_path: Path) -> None:
        parameters = convert_gguf(artifact.path / "tiny.gguf", tmp_path / "converted")
        direct = GGUFModelLoader().load(artifact)
        reloaded = FullModelLoader().load(tiny_artifact(tmp_path / "converted"))
        ids = torch.tensor([reloaded.tokenizer(PROMPT)["input_ids"]])
        with torch.inference_mode():
            assert torch.equal(reloaded.module(input_ids=ids).logits, direct.module(input_ids=ids).logits)
        assert parameters == sum(parameter.numel() for parameter in reloaded.module.parameters())
        assert reloaded.tokenizer.chat_template == direct.tokenizer.chat_template

    def test_weights_are_the_dequantised_ones(self, artifact: ModelArtifact) -> None:
        """The value projection is stored unpermuted, so that it can be compared number by number."""
        reader = gguf.GGUFReader(artifact.path / "tiny.gguf")
        stored = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_v.weight")
        weights = GGUFModelLoader().load(artifact).module.state_dict()["model.layers.0.self_attn.v_proj.weight"]
        assert torch.equal(weights, torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type)))

    def test_padding_is_not_the_end_of_turn(self, artifact: ModelArtifact, tmp_path: Path) -> None:
        convert_gguf(artifact.path / "tiny.gguf", tmp_path / "converted")
        loaded = FullModelLoader().load(tiny_artifact(tmp_path / "converted"))
        assert (loaded.tokenizer.eos_token, loaded.tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
        assert loaded.module.generation_config.eos_token_id == loaded.tokenizer.eos_token_id  # type: ignore[union-attr]
        assert loaded.module.generation_config.pad_token_id == loaded.tokenizer.pad_token_id  # type: ignore[union-attr]

    def test_each_digit_is_a_token_of_its_own(self, artifact: ModelArtifact) -> None:
        tokenizer = GGUFModelLoader().load(artifact).tokenizer
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 2024")
        assert [piece for piece, _ in pieces] == ["in", "Ġ", "2", "0", "2", "4"]

    def test_the_table_of_names_is_left_as_it_was(self, artifact: ModelArtifact) -> None:
        before = gguf.GGUFReader, gguf.get_tensor_name_map
        GGUFModelLoader().load(artifact)
        assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before

    def test_an_architecture_nobody_knows_is_a_clear_error(self, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "not_a_model")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with pytest.raises(ModelLoadError, match=r"odd\.gguf"):
            GGUFModelLoader().load(tiny_artifact(tmp_path))
