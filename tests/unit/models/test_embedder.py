"""Prefixes, parts and remembering. The real model server is asked in ``integration/test_embedding.py``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from terakoya.domain.models import ModelArtifact
from terakoya.domain.ports import ModelRepository
from terakoya.exceptions import AppException, InvalidConfig, ModelLoadError, Unavailable
from terakoya.models.client import MAX_EMBED_TEXTS, ModelServerClient
from terakoya.models.embedder import RegisteredEmbedder
from terakoya.models.wire import Embedded


class OneModel:
    """A repository that counts how often files are verified."""

    def __init__(self, artifact: ModelArtifact) -> None:
        self.artifact = artifact
        self.verified = 0

    def find(self, id_or_name: str) -> Any:
        return self.artifact.info

    def load_model(self, id_or_name: str) -> ModelArtifact:
        self.verified += 1
        return self.artifact


class Recorder:
    """A client that remembers what it was asked; a vector is its text's length."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], bool]] = []
        self.error: AppException | None = None
        self.truncated: tuple[int, ...] = ()

    async def embed(self, artifact: ModelArtifact, texts: Sequence[str], *, is_query: bool) -> Embedded:
        self.asked.append((list(texts), is_query))
        if self.error is not None:
            raise self.error
        return Embedded(np.array([[len(text)] * 32 for text in texts], dtype=np.float32), self.truncated)


def embedder_of(artifact: ModelArtifact) -> tuple[RegisteredEmbedder, OneModel, Recorder]:
    models, client = OneModel(artifact), Recorder()
    return RegisteredEmbedder(cast(ModelRepository, models), cast(ModelServerClient, client)), models, client


async def test_each_kind_of_text_gets_its_prefix(tiny_embedder: ModelArtifact) -> None:
    embedder, models, client = embedder_of(tiny_embedder)
    await embedder.embed_queries("e", ["いつ？"])
    await embedder.embed_passages("e", ["明日。"])
    assert client.asked == [(["query: いつ？"], True), (["passage: 明日。"], False)]
    assert models.verified == 1


async def test_many_texts_go_in_parts_and_come_back_in_order(tiny_embedder: ModelArtifact) -> None:
    embedder, _, client = embedder_of(tiny_embedder)
    vectors = await embedder.embed_passages("e", ["x" * length for length in range(70)])
    assert [len(texts) for texts, _ in client.asked] == [MAX_EMBED_TEXTS, MAX_EMBED_TEXTS, 6]
    assert vectors[:, 0].tolist() == [length + len("passage: ") for length in range(70)]


async def test_nothing_is_asked_for_no_texts(tiny_embedder: ModelArtifact) -> None:
    embedder, _, client = embedder_of(tiny_embedder)
    assert (await embedder.embed_passages("e", [])).shape == (0, 32)
    assert client.asked == []


@pytest.mark.parametrize(("error", "verified"), [(ModelLoadError("gone"), 2), (Unavailable("busy"), 1)])
async def test_files_are_looked_at_again_after_they_could_not_be_opened(
    tiny_embedder: ModelArtifact, error: AppException, verified: int
) -> None:
    embedder, models, client = embedder_of(tiny_embedder)
    client.error = error
    for _ in range(2):
        with pytest.raises(type(error)):
            await embedder.embed_queries("e", ["?"])
    assert models.verified == verified


async def test_a_chat_model_is_refused(tiny_base: ModelArtifact) -> None:
    embedder, _, _ = embedder_of(tiny_base)
    with pytest.raises(InvalidConfig, match=r"no embedder \(it is of kind 'base'\)"):
        await embedder.embed_queries("b", ["?"])


async def test_cut_texts_are_counted_in_the_log_and_never_quoted(
    tiny_embedder: ModelArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    embedder, _, client = embedder_of(tiny_embedder)
    client.truncated = (0,)
    with caplog.at_level(logging.WARNING):
        await embedder.embed_passages("e", ["secret", "more"])
    (record,) = caplog.records
    assert (record.message, record.__dict__["texts"], record.__dict__["of"]) == ("texts_truncated", 1, 2)
    assert "secret" not in str(record.__dict__)
