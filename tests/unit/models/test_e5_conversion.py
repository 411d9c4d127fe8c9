from __future__ import annotations

import struct
import unicodedata
from pathlib import Path

import pytest
import torch
from tests.tiny_embedder import HIDDEN, PIECES, build_tiny_embedder, packed_file, packed_tensors
from transformers import AutoModel, AutoTokenizer

from terakoya.exceptions import ModelLoadError
from terakoya.models.e5_conversion import convert_e5, tokenizer
from terakoya.models.e5_file import E5Vocabulary
from terakoya.models.embedder_config import EmbedderConfig, read_embedder_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_embedder(tmp_path_factory.mktemp("e5") / "model")


def test_every_weight_finds_its_place(folder: Path) -> None:
    state = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).state_dict()
    source = packed_tensors()
    assert sum(values.size for values in source.values()) == sum(weights.numel() for weights in state.values())
    for name, place in {
        "emb.word": "embeddings.word_embeddings.weight",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l1.ao.b": "encoder.layer.1.attention.output.dense.bias",
        "l1.fi.w": "encoder.layer.1.intermediate.dense.weight",
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l1.oln.w": "encoder.layer.1.output.LayerNorm.weight",
    }.items():
        torch.testing.assert_close(state[place], torch.from_numpy(source[name]), atol=1e-4, rtol=1e-3)


def test_the_folder_says_how_vectors_are_made(folder: Path) -> None:
    assert read_embedder_config(folder) == EmbedderConfig(HIDDEN, 48, "query: ", "passage: ")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("A prompt", ["▁A", "▁prompt"]),
        ("寺子屋", ["▁", "寺子屋"]),
        ("Ａ①", ["▁A", "1"]),
        ("a \t  b", ["▁", "a", "▁", "b"]),
        ("1～2", ["▁", "1", "～", "2"]),
        ("a</s>b", ["▁", "a", "</s>", "▁", "b"]),
        ("猫", ["▁", "<unk>"]),
        ("", []),
    ],
)
def test_text_becomes_pieces_between_start_and_end(folder: Path, text: str, pieces: list[str]) -> None:
    opened = AutoTokenizer.from_pretrained(folder)
    assert opened.convert_ids_to_tokens(opened(text)["input_ids"]) == ["<s>", *pieces, "</s>"]


def test_a_letter_and_its_separate_accent_are_one() -> None:
    vocabulary = E5Vocabulary((*PIECES, "が"), (0.0,) * (len(PIECES) + 1), 0, 2, 1, 3, {})
    opened = tokenizer(vocabulary, max_tokens=48)
    assert opened.convert_ids_to_tokens(opened(unicodedata.normalize("NFD", "が"))["input_ids"])[-2] == "が"


def test_a_tensor_of_another_size_is_named(tmp_path: Path) -> None:
    content = packed_file()
    (tmp_path / "e5.bin").write_bytes(content[:8] + struct.pack("<i", 64) + content[12:])  # twice the width
    with pytest.raises(ModelLoadError, match=r"'emb\.word' is of \d+ numbers, not \(\d+, 64\)"):
        convert_e5(tmp_path / "e5.bin", tmp_path / "model")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    (tmp_path / "e5.bin").write_bytes(packed_file().replace(b"l1.fo.w", b"l9.fo.w"))
    with pytest.raises(ModelLoadError, match=r"'l1\.fo\.w' is missing"):
        convert_e5(tmp_path / "e5.bin", tmp_path / "model")


def test_a_tensor_without_a_place_is_named(tmp_path: Path) -> None:
    content = packed_file()
    (tmp_path / "e5.bin").write_bytes(content[:12] + struct.pack("<i", 1) + content[16:])  # one layer fewer
    with pytest.raises(ModelLoadError, match=r"'l1\..*' has no place"):
        convert_e5(tmp_path / "e5.bin", tmp_path / "model")
