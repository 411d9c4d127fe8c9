"""Imports GGUF: opens a .gguf file as a Transformers model, its weights dequantised, and writes that as a folder
of safetensors. Knows nothing of where the file came from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.artifacts import check_folder, gguf_file_of
from terakoya.models.base_loader import BaseModelLoader, LoadedModel
from terakoya.models.full_loader import LIBRARY_ERRORS, first_line, torch_dtype
from terakoya.models.gguf_header import read_gguf_header

PADDING_CANDIDATES = ("<|endoftext|>", "<pad>", "<|pad|>", "[PAD]", "<unk>")


class GGUFModelLoader(BaseModelLoader):
    """Opens a folder with one .gguf file. Slow (tens of seconds): for import, not for serving."""

    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        check_folder(artifact.path)
        path = gguf_file_of(artifact.path)
        module, tokenizer = open_gguf(path, dtype=torch_dtype(dtype))
        return LoadedModel(module.to(device), tokenizer, artifact)


def open_gguf(path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return module and tokenizer. Raises: UnsafeArtifact, ModelLoadError."""
    facts = read_gguf_header(path)
    options = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with _parsed_once():
            module = AutoModelForCausalLM.from_pretrained(path.parent, dtype=dtype, **options)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    except LIBRARY_ERRORS as error:
        raise ModelLoadError(f"the GGUF file {path.name!r} cannot be opened: {first_line(error)}") from error
    _make_plain(module)
    _separate_padding(module, tokenizer)
    if facts.get("tokenizer.ggml.pre") == "smollm":
        # Transformers 5.24 does not know this scheme and leaves out its first rule: each digit stands alone.
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return module.eval(), tokenizer


def convert_gguf(path: Path, directory: Path) -> int:
    """Write the model in ``path`` to ``directory`` as float32 safetensors with its tokenizer; return its parameters.

    float32 is the one type that holds the dequantised weights exactly: of the starter's (Q4_1), 42 % would be rounded
    in float16 and 79 % in bfloat16. It costs 538 MB on disk in place of 269, and nothing in time: the file is mapped
    in 0.2 s either way, and hashed in 0.5 s.
    """
    module, tokenizer = open_gguf(path)
    directory.mkdir(parents=True, exist_ok=True)
    module.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return sum(parameter.numel() for parameter in module.parameters())


def _make_plain(module: Any) -> None:
    """Forget that the weights came from GGUF: Transformers refuses to save a model that says so."""
    module.hf_quantizer = None
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config
    module.config.name_or_path = ""


def _separate_padding(module: Any, tokenizer: Any) -> None:
    """Give padding a token of its own: where it is the end of turn, as GGUF files have it, training that ignores
    padding would never learn to stop."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        candidates = (token for token in PADDING_CANDIDATES if token in vocabulary)
        token = next((token for token in candidates if vocabulary[token] != tokenizer.eos_token_id), None)
        if token is None:
            raise ModelLoadError("the GGUF file's vocabulary has no token for padding besides its end of text")
        tokenizer.pad_token = token
    module.config.pad_token_id = tokenizer.pad_token_id
    module.config.eos_token_id = tokenizer.eos_token_id
    module.generation_config = GenerationConfig(
        bos_token_id=module.config.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let Transformers parse the file once and build the name table once. It does so up to six and 400 times, which
    makes 37 s of what takes 10. Without effect, and harmless, where it looks these two functions up elsewhere.

    Remove when Transformers' GGUF import (5.24) does not repeat itself.
    """
    originals = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader = functools.lru_cache(maxsize=1)(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.lru_cache(maxsize=4)(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = originals
