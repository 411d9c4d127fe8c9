"""Turns texts into vectors, a batch at a time: the synchronous heart of embedding in the model server. Knows nothing of
sockets, nor of what the texts are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terakoya.domain.documents import Vector
from terakoya.exceptions import ModelLoadError
from terakoya.models.base_loader import LoadedModel
from terakoya.models.cache import ModelCache
from terakoya.models.embedder_config import read_embedder_config
from terakoya.models.length_batches import length_batches
from terakoya.models.probe import choose_compute_type
from terakoya.models.wire import Embedded, EmbedRequest

BATCH_TOKENS = 1024
"""Tokens computed at once, padding included: eight passages. More are hardly faster, and a query waits for one batch at
most."""
_SMALL_ENCODER = (384, 1536)
"""Widths that the compute type is chosen by."""


@functools.cache
def dtype_of(kind: str) -> str:
    """Return the type that a kind of model is opened in: bfloat16 only for embedders, where it is measured faster."""
    if kind != "embedder":
        return "float32"
    hidden, intermediate = _SMALL_ENCODER
    return choose_compute_type(torch.device("cpu"), hidden=hidden, intermediate=intermediate, seconds=0.2).name


class EmbeddingEngine:
    def __init__(self, cache: ModelCache) -> None:
        self._cache = cache

    def embed(self, request: EmbedRequest, is_cancelled: Callable[[], bool]) -> Generator[None, None, Embedded]:
        """Return the vectors, L2-normalised, in the order of the texts; yield after each batch.

        At a yield the model is free: whoever is more urgent goes first. A text longer than the model reads is cut at
        its end and its index is in ``truncated``. Stops at a batch when cancelled, returning nothing of use.
        Raises: ModelLoadError, also for a model that is no embedder; Unavailable without room for it.
        """
        config = read_embedder_config(request.artifact.path)
        vectors = np.zeros((len(request.texts), config.dimension), dtype=np.float32)
        truncated: tuple[int, ...] = ()
        if request.texts:
            with self._cache.get_cached_model(request.artifact) as loaded:
                rows, truncated = _encoded(loaded.tokenizer, request.texts, config.max_tokens)
            # The longest first: memory reaches its peak at once or never.
            for batch in length_batches([len(row) for row in rows], BATCH_TOKENS):
                if is_cancelled():
                    break
                with self._cache.get_cached_model(request.artifact) as loaded:
                    vectors[batch] = _vectors(loaded, [rows[index] for index in batch])
                yield
        return Embedded(vectors, truncated)


def mean_vectors(hidden: Tensor, mask: Tensor) -> Tensor:
    """hidden [batch, tokens, dimension], mask [batch, tokens] 1 where a token is -> [batch, dimension] float32.

    The mean over a text's tokens, divided by its length: how E5 was trained (Wang et al. 2022, section 4).
    """
    weights = mask.unsqueeze(-1).to(torch.float32)
    mean = (hidden.to(torch.float32) * weights).sum(1) / weights.sum(1)
    return nn.functional.normalize(mean, dim=-1)


def _encoded(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], tuple[int, ...]]:
    """Return each text's tokens, and the indices of the texts that were cut."""
    rows: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    truncated = tuple(index for index, row in enumerate(rows) if len(row) > max_tokens)
    for index in truncated:
        rows[index] = tokenizer(texts[index], truncation=True, max_length=max_tokens)["input_ids"]
    return rows, truncated


@torch.inference_mode()
def _vectors(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> Vector:
    longest = max(map(len, rows))
    padding = loaded.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    device = next(loaded.module.parameters()).device
    is_padded = not bool(mask.all())
    hidden = loaded.module(
        input_ids=ids.to(device), attention_mask=mask.to(device) if is_padded else None
    ).last_hidden_state
    vectors: Vector = mean_vectors(hidden, mask.to(device)).cpu().numpy()
    if not np.isfinite(vectors).all():
        raise ModelLoadError(f"the embedder {loaded.artifact.info.name!r} computed what is no number; fetch it again")
    return vectors
