from __future__ import annotations

import math
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from tests.tiny_reranker import POSITIONS, build_tiny_reranker, reranker_artifact

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ContextOverflow, ModelLoadError
from terakoya.models.artifacts import loader_type_of
from terakoya.models.cache import ModelCache
from terakoya.models.reranking import RerankEngine
from terakoya.models.wire import Reranked, RerankRequest

QUERY = "where is the ship ?"
PASSAGES = ("the ship is a ship", "the tea", "寺子屋", "the sea is the sea is the sea", "ship " * 300)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return reranker_artifact(build_tiny_reranker(tmp_path_factory.mktemp("models") / "judge"))


def finish(steps: Generator[None, None, Reranked]) -> Reranked:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Reranked = end.value
            return found


def rerank(
    artifact: ModelArtifact, query: str, passages: tuple[str, ...], is_cancelled: Callable[[], bool] = lambda: False
) -> Reranked:
    return finish(RerankEngine(ModelCache(1 << 30)).rerank(RerankRequest(artifact, query, passages), is_cancelled))


def by_hand(artifact: ModelArtifact, query: str, passage: str) -> float:
    """One pair at a time, without padding, by Transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact.path)
    module = AutoModelForSequenceClassification.from_pretrained(artifact.path).eval()
    inputs = tokenizer(query, passage, return_tensors="pt", truncation="only_second", max_length=POSITIONS)
    with torch.inference_mode():
        return 1 / (1 + math.exp(-float(module(**inputs).logits[0, 0])))


def test_each_passage_gets_the_score_it_gets_alone(reranker: ModelArtifact) -> None:
    found = rerank(reranker, QUERY, PASSAGES)
    assert found.scores == pytest.approx([by_hand(reranker, QUERY, passage) for passage in PASSAGES], abs=1e-5)
    assert len(set(found.scores)) == len(PASSAGES)
    assert found.truncated == (4,)
    assert found.tokens == 13 + 10 + 9 + 16 + POSITIONS


def test_a_query_that_leaves_no_room_is_refused_by_how_much(reranker: ModelArtifact) -> None:
    with pytest.raises(ContextOverflow, match=r"the query has 103 tokens; .* reads 48 .* 63 too long"):
        rerank(reranker, "ship " * 100, ("the tea",))


def test_what_is_no_reranker_is_refused(tiny_base: ModelArtifact, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="'base' is no reranker"):
        rerank(tiny_base, QUERY, PASSAGES)
    classifier = reranker_artifact(build_tiny_reranker(tmp_path / "sorter", labels=3))
    assert loader_type_of(classifier.path) == "reranker"
    with pytest.raises(ModelLoadError, match="sorts texts into 3 classes and is no reranker"):
        rerank(classifier, QUERY, PASSAGES)


def test_it_stops_at_a_batch_when_nobody_waits(reranker: ModelArtifact) -> None:
    assert rerank(reranker, QUERY, PASSAGES, lambda: True).scores == (0.0,) * len(PASSAGES)
