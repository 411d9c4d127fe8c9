"""The GGUF files that llama.cpp opens: a registered model's own, or one made of its safetensors once and kept under
its content's hash. Knows neither servers nor requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from terakoya.domain.models import ModelArtifact
from terakoya.models.artifacts import check_folder, gguf_file_of, loader_type_of, read_json
from terakoya.models.gguf_header import read_gguf_header

SERVED_TYPE: Final = "q8_0"
"""Of two cores' measured: eight answers at once 1.5 times as fast as Q4_1, prompts 1.6 times, one answer the same."""
_FILE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 15: "q4_k_m", 17: "q5_k_m", 18: "q6_k", 32: "bf16"}

Progress = Callable[[str, int, int], None]
"""Name, tensors done, tensors in all."""


class GGUFFiles:
    """Thread-safe; makes one file at a time."""

    def __init__(self, folder: Path, *, progress: Progress = lambda *_: None) -> None:
        self._folder = folder
        self._progress = progress
        self._making = threading.Lock()

    def weight_type(self, artifact: ModelArtifact) -> str:
        """Return how the weights of its whole model are stored where it is answered from."""
        whole = artifact.root
        if loader_type_of(whole.path) != "gguf":
            return SERVED_TYPE
        number = read_gguf_header(gguf_file_of(whole.path)).get("general.file_type")
        return _FILE_TYPES.get(int(number), f"type {number}") if isinstance(number, int) else "gguf"

    def model(self, whole: ModelArtifact) -> Path:
        """Return the file of a whole model. Raises: InvalidConfig, UnsafeArtifact, ModelLoadError."""
        check_folder(whole.path)
        if loader_type_of(whole.path) == "gguf":
            return gguf_file_of(whole.path)
        target = self._folder / f"{whole.info.content_sha256}-{SERVED_TYPE}.gguf"
        with self._making:
            if not target.exists():
                from terakoya.models.gguf_writer import write_model

                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                name = whole.info.name
                write_model(
                    whole.path,
                    target,
                    weights=SERVED_TYPE,
                    progress=lambda done, total: self._progress(name, done, total),
                )
        return target

    def adapter(self, artifact: ModelArtifact) -> Path:
        """Return the file of an adapter. Raises as ``model`` does."""
        check_folder(artifact.path)
        target = self._adapter_path(artifact.root, artifact.info.content_sha256)
        with self._making:
            if not target.exists():
                from terakoya.models.gguf_writer import write_adapter

                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_adapter(artifact.path, artifact.root.path, target)
        return target

    def known_adapter(self, whole: ModelArtifact, sha256: str) -> Path | None:
        """Return the file of an adapter that has been made for that base before."""
        path = self._adapter_path(whole, sha256)
        return path if path.exists() else None

    def _adapter_path(self, whole: ModelArtifact, sha256: str) -> Path:
        return self._folder / f"{whole.info.content_sha256}-lora-{sha256}.gguf"


def refuse_unopenable(artifact: ModelArtifact) -> None:
    """Look whether llama.cpp could answer for the model. Raises: InvalidConfig saying why it could not."""
    from terakoya.models.gguf_tokenizer import read_gguf_tokenizer
    from terakoya.models.gguf_writer import check_writable, refuse_adapter

    whole = artifact.root
    if loader_type_of(whole.path) != "gguf":
        config = check_writable(whole.path)
        read_gguf_tokenizer(whole.path, vocabulary=int(config["vocab_size"]))
    if artifact.base is not None:
        refuse_adapter(read_json(artifact.path / "adapter_config.json"))
