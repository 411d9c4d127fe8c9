from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pytest
import torch

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models import embedding
from terakoya.models.cache import ModelCache
from terakoya.models.embedding import EmbeddingEngine, dtype_of, mean_vectors
from terakoya.models.factory import create_model_loader
from terakoya.models.wire import Embedded, EmbedRequest

TEXTS = ("A prompt", "寺子屋. 寺子屋. 寺子屋.", "a", "A prompt, 寺子屋.", "b c d e f")


def finish(steps: Generator[None, None, Embedded]) -> tuple[Embedded, int]:
    batches = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, batches
        batches += 1


def embed(artifact: ModelArtifact, *texts: str) -> Embedded:
    return finish(EmbeddingEngine(ModelCache(1 << 30)).embed(EmbedRequest(artifact, texts, False), lambda: False))[0]


def test_a_mean_counts_tokens_and_not_padding() -> None:
    hidden = torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]], [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]])
    vectors = mean_vectors(hidden, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(vectors, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_vectors_are_those_of_each_text_alone_in_a_plain_forward_pass(tiny_embedder: ModelArtifact) -> None:
    loaded = create_model_loader("embedder").load(tiny_embedder)
    embedded = embed(tiny_embedder, *TEXTS)
    assert embedded.truncated == ()
    for text, vector in zip(TEXTS, embedded.vectors, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
            mean = loaded.module(input_ids=ids).last_hidden_state[0].double().mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-6)


def test_the_model_is_free_between_batches(tiny_embedder: ModelArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 12)
    cache = ModelCache(1 << 30)
    steps = EmbeddingEngine(cache).embed(EmbedRequest(tiny_embedder, TEXTS, False), lambda: False)
    next(steps)
    with cache.get_cached_model(tiny_embedder) as loaded:  # would wait for ever
        assert loaded.artifact is tiny_embedder
    rest, batches = finish(steps)
    assert batches > 0
    np.testing.assert_allclose(rest.vectors, embed(tiny_embedder, *TEXTS).vectors, atol=1e-6)


def test_a_cancelled_request_stops_at_the_next_batch(
    tiny_embedder: ModelArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 1)
    asked = iter([False, False, True])
    steps = EmbeddingEngine(ModelCache(1 << 30)).embed(EmbedRequest(tiny_embedder, TEXTS, False), lambda: next(asked))
    assert finish(steps)[1] == 2


def test_a_text_that_is_too_long_is_cut_at_its_end_and_named(tiny_embedder: ModelArtifact) -> None:
    embedded = embed(tiny_embedder, "a", "a b" * 100, "a b" * 100 + "c" * 50)
    assert embedded.truncated == (1, 2)
    np.testing.assert_array_equal(embedded.vectors[1], embedded.vectors[2])


def test_a_model_that_is_no_embedder_is_refused(tiny_base: ModelArtifact) -> None:
    with pytest.raises(ModelLoadError, match="is no embedder"):
        embed(tiny_base, "a")


def test_only_embedders_are_opened_in_another_type_than_float32() -> None:
    assert dtype_of("full") == dtype_of("lora") == "float32"
    assert dtype_of("embedder") in ("float32", "bfloat16")
