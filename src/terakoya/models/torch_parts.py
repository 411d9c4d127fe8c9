"""What of the model server needs PyTorch: one cache of opened modules, and what works with them. Importing this module
takes seconds and some 300 MB, which a server that only llama.cpp answers for spares itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import transformers

from terakoya.models.budget import Budget
from terakoya.models.cache import ModelCache
from terakoya.models.embedding import EmbeddingEngine, dtype_of
from terakoya.models.engines.pytorch import PyTorchEngine
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.reranking import RerankEngine


@dataclass(frozen=True, slots=True)
class TorchParts:
    engine: PyTorchEngine
    embedder: EmbeddingEngine
    reranker: RerankEngine


def open_torch_parts(budget: Budget, prompts: PromptWriter, *, threads: int, device: str) -> TorchParts:
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    cache = ModelCache(budget, dtype_of=dtype_of if device == "cpu" else lambda _: "bfloat16", device=device)
    return TorchParts(PyTorchEngine(cache, prompts), EmbeddingEngine(cache), RerankEngine(cache))
