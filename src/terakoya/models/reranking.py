"""Scores passages by how well they answer a query, a batch at a time, with a cross-encoder. Knows nothing of sockets,
nor of where the passages come from.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import torch

from terakoya.exceptions import ContextOverflow, ModelLoadError
from terakoya.models.base_loader import LoadedModel
from terakoya.models.cache import ModelCache
from terakoya.models.embedding import BATCH_TOKENS
from terakoya.models.factory import loader_type
from terakoya.models.length_batches import length_batches
from terakoya.models.wire import Reranked, RerankRequest

_LEAST_PASSAGE_TOKENS = 8
"""A query that leaves a passage less cannot be answered by any."""


class RerankEngine:
    def __init__(self, cache: ModelCache) -> None:
        self._cache = cache

    def rerank(self, request: RerankRequest, is_cancelled: Callable[[], bool]) -> Generator[None, None, Reranked]:
        """Return a score from 0 to 1 for each passage, in their order: the logistic function of the model's logit,
        as cross-encoders with one label are trained; yield after each batch.

        A passage longer than the model reads beside the query is cut at its end and its index is in ``truncated``.
        Stops at a batch when cancelled, returning nothing of use.
        Raises: ModelLoadError, also for a model that is no reranker; ContextOverflow for a query too long.
        """
        if loader_type(request.artifact) != "reranker":
            raise ModelLoadError(f"{request.artifact.info.name!r} is no reranker; name one of that kind")
        scores = [0.0] * len(request.passages)
        with self._cache.get_cached_model(request.artifact) as loaded:
            rows, truncated, tokens = _encoded(loaded, request)
        for batch in length_batches([len(row["input_ids"]) for row in rows], BATCH_TOKENS):
            if is_cancelled():
                break
            with self._cache.get_cached_model(request.artifact) as loaded:
                found = _scores(loaded, [rows[index] for index in batch])
            for index, score in zip(batch, found, strict=True):
                scores[index] = score
            yield
        return Reranked(tuple(scores), truncated, tokens)


def _encoded(loaded: LoadedModel, request: RerankRequest) -> tuple[list[dict[str, list[int]]], tuple[int, ...], int]:
    """Return each pair's inputs, the indices of passages that are cut, and the tokens read in all."""
    tokenizer, window = loaded.tokenizer, _window(loaded)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    query = special + len(tokenizer(request.query, add_special_tokens=False, verbose=False)["input_ids"])
    if query > window - _LEAST_PASSAGE_TOKENS:
        raise ContextOverflow(
            f"the query has {query} tokens; {request.artifact.info.name!r} reads {window} of query and passage "
            f"together, so it is {query - window + _LEAST_PASSAGE_TOKENS} too long; shorten it by as many"
        )
    rows: list[dict[str, list[int]]] = []
    truncated = []
    for index, passage in enumerate(request.passages):
        row = dict(tokenizer(request.query, passage, verbose=False))
        if len(row["input_ids"]) > window:
            truncated.append(index)
            row = dict(tokenizer(request.query, passage, truncation="only_second", max_length=window))
        rows.append(row)
    return rows, tuple(truncated), sum(len(row["input_ids"]) for row in rows)


def _window(loaded: LoadedModel) -> int:
    config: Any = loaded.module.config
    # RoBERTa counts positions from the one after padding's.
    first = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    return int(min(loaded.tokenizer.model_max_length, config.max_position_embeddings - first))


@torch.inference_mode()
def _scores(loaded: LoadedModel, rows: list[dict[str, list[int]]]) -> list[float]:
    device = next(loaded.module.parameters()).device
    inputs = loaded.tokenizer.pad(rows, return_tensors="pt").to(device)
    logits = loaded.module(**inputs).logits[:, 0].float()
    if not bool(torch.isfinite(logits).all()):
        raise ModelLoadError(f"the reranker {loaded.artifact.info.name!r} computed what is no number; fetch it again")
    scores: list[float] = torch.sigmoid(logits).tolist()
    return scores
