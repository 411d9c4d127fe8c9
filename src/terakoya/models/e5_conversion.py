"""Writes a packed E5 encoder as a Transformers folder: a BERT encoder in safetensors with a Unigram tokenizer.
Knows nothing of where the file came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerFast

from terakoya.exceptions import ModelLoadError
from terakoya.models.artifacts import EMBEDDER_FILE
from terakoya.models.e5_file import E5File, E5Shape, E5Vocabulary, read_e5_file
from terakoya.models.embedder_config import EmbedderConfig

_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_KEPT, _ASIDE = "\uff5e", "\ufdd0"
"""The full-width tilde of Japanese ranges: the vocabulary has it, NFKC would fold it. It steps aside as a code point
that Unicode keeps free for such uses."""


def convert_e5(path: Path, directory: Path) -> int:
    """Write the encoder in ``path`` to ``directory``; return its parameters.

    Weights are stored as float16: against float32 they turn a vector by a cosine of 2e-8, at half the disk.
    Raises: ModelLoadError if the file is damaged.
    """
    packed = read_e5_file(path)
    shape = packed.shape
    directory.mkdir(parents=True, exist_ok=True)
    weights = dict(_weights(packed, path.name))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _config(shape, packed.vocabulary).save_pretrained(directory)
    tokenizer(packed.vocabulary, max_tokens=shape.positions).save_pretrained(directory)
    embedder = EmbedderConfig(shape.hidden, shape.positions, query_prefix="query: ", passage_prefix="passage: ")
    (directory / EMBEDDER_FILE).write_text(json.dumps(embedder.to_json(), indent=2) + "\n", encoding="utf-8")
    return sum(tensor.numel() for tensor in weights.values())


def tokenizer(vocabulary: E5Vocabulary, *, max_tokens: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer: NFKC with white space folded, ``▁`` before words, ``<s> text </s>``.

    The normaliser's rules give what the file's table gives for every code point but U+1F23B (all were compared once).
    NFKC also joins a letter and its separate accent, as the published tokenizer does and the table does not.
    """
    pieces = vocabulary.pieces
    built = Tokenizer(models.Unigram(list(zip(pieces, vocabulary.scores, strict=True)), unk_id=vocabulary.unk))
    built.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.Replace(_KEPT, _ASIDE),
            normalizers.NFKC(),
            normalizers.Replace(_ASIDE, _KEPT),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    built.decoder = decoders.Metaspace(prepend_scheme="always")
    special = {"bos": vocabulary.bos, "eos": vocabulary.eos, "pad": vocabulary.pad, "unk": vocabulary.unk}
    built.add_special_tokens([AddedToken(pieces[token], normalized=False) for token in special.values()])
    bos, eos = pieces[vocabulary.bos], pieces[vocabulary.eos]
    built.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, vocabulary.bos), (eos, vocabulary.eos)]
    )
    names = {f"{role}_token": pieces[token] for role, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=built, model_max_length=max_tokens, **names)


def _config(shape: E5Shape, vocabulary: E5Vocabulary) -> BertConfig:
    return BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.positions,
        type_vocab_size=shape.token_types,
        layer_norm_eps=shape.layer_norm_eps,
        hidden_act="gelu",
        pad_token_id=vocabulary.pad,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        architectures=["BertModel"],
        dtype="float16",
    )


def _weights(packed: E5File, filename: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (name in BertModel, tensor), each of the shape that the header makes it have."""
    for source, (name, wanted) in _names(packed.shape).items():
        values = packed.tensors.get(source)
        if values is None or values.size != int(np.prod(wanted)):
            found = "missing" if values is None else f"of {values.size} numbers"
            raise ModelLoadError(f"{filename!r} cannot be read: its tensor {source!r} is {found}, not {wanted}")
        yield name, torch.from_numpy(values.reshape(wanted)).to(torch.float16)
    if surplus := set(packed.tensors) - set(_names(packed.shape)):
        raise ModelLoadError(f"{filename!r} cannot be read: the tensor {min(surplus)!r} has no place in the encoder")


def _names(shape: E5Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name in the file -> (name in BertModel, shape)."""
    width, wide = shape.hidden, shape.feed_forward
    names: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (shape.vocabulary, width)),
        "emb.pos": ("embeddings.position_embeddings.weight", (shape.positions, width)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (shape.token_types, width)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (width,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (width,)),
    }
    for layer in range(shape.layers):
        for short, long in _LAYER.items():
            out = wide if short == "fi" else width
            weight = (width,) if short.endswith("ln") else (out, wide if short == "fo" else width)
            place = f"encoder.layer.{layer}.{long}"
            names[f"l{layer}.{short}.w"] = (f"{place}.weight", weight)
            names[f"l{layer}.{short}.b"] = (f"{place}.bias", (out,))
    return names
