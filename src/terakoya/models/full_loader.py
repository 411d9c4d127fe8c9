"""Opens a whole model: a Transformers folder of safetensors. Knows neither adapters nor GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig, ModelLoadError
from terakoya.models.artifacts import check_folder, check_unquantised, read_json
from terakoya.models.base_loader import DTYPES, BaseModelLoader, LoadedModel

# What the libraries raise for files that do not fit together; anything else is a defect of ours.
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    AssertionError,
    ImportError,
    RuntimeError,
    ArithmeticError,
    SafetensorError,
)


class FullModelLoader(BaseModelLoader):
    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        check_folder(artifact.path)
        check_unquantised(artifact.info.name, read_json(artifact.path / "config.json"))
        try:
            module, loading = AutoModelForCausalLM.from_pretrained(
                artifact.path,
                dtype=torch_dtype(dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported, and refused below by name
                output_loading_info=True,
            )
        except LIBRARY_ERRORS as error:
            raise cannot_open(artifact, error) from error
        refuse_incomplete(artifact, loading)
        return LoadedModel(module.to(device).eval(), load_tokenizer(artifact.path, artifact.info.name), artifact)


def load_tokenizer(path: Path, name: str) -> Any:
    """Open the tokenizer of a checked folder. Raises: ModelLoadError."""
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except LIBRARY_ERRORS as error:
        raise ModelLoadError(f"the tokenizer of {name!r} cannot be opened: {first_line(error)}") from error


def torch_dtype(name: str) -> torch.dtype:
    """Raises: InvalidConfig for anything but the floating types that models are computed in."""
    if name not in DTYPES:
        raise InvalidConfig(f"unknown compute type {name!r}; there are {', '.join(DTYPES)}")
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)  # DTYPES names nothing else
    return dtype


def cannot_open(artifact: ModelArtifact, error: Exception) -> ModelLoadError:
    return ModelLoadError(f"the model {artifact.info.name!r} cannot be opened: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the error's first line: the libraries' further lines advise what does not apply here."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def refuse_incomplete(artifact: ModelArtifact, loading: dict[str, Any]) -> None:
    """Transformers fills what is missing with random numbers and a log line; we do not serve those."""
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        found = loading.get(problem) or ()
        names = sorted(key[0] if isinstance(key, tuple) else str(key) for key in found)
        if names:
            word = problem.removesuffix("_keys")
            raise ModelLoadError(
                f"the model {artifact.info.name!r} cannot be opened: {len(names)} {word} weights, first {names[0]!r}"
            )
