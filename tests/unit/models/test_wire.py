from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.tiny_model import tiny_artifact

from terakoya.domain.datasets import Message
from terakoya.exceptions import InvalidDataset, ModelNotFound, Unavailable, UnsafeArtifact
from terakoya.models.wire import (
    ChatRequest,
    Embedded,
    EmbedRequest,
    embed_request_from_json,
    embed_request_to_json,
    embedded_from_json,
    embedded_to_json,
    error_from_json,
    error_to_json,
    request_from_json,
    request_to_json,
)


def test_a_request_survives_the_socket(tmp_path: Path) -> None:
    base = tiny_artifact(tmp_path / "base")
    request = ChatRequest(
        tiny_artifact(tmp_path / "adapter", base=base), (Message("user", "寺子屋\n\0"),), 7, 0.5, 2**32 - 1, 1.5
    )
    assert request_from_json(json.loads(json.dumps(request_to_json(request)))) == request


def test_an_error_arrives_as_what_it_was() -> None:
    for error in (UnsafeArtifact("a"), ModelNotFound("b"), Unavailable("c")):
        arrived = error_from_json(error_to_json(error))
        assert (type(arrived), str(arrived)) == (type(error), str(error))


def test_an_unknown_code_is_a_failure_of_the_server() -> None:
    arrived = error_from_json({"error": "KeyError: 'x'", "code": "internal_error"})
    assert (arrived.status, str(arrived)) == (503, "KeyError: 'x'")


def test_vectors_arrive_bit_for_bit() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    arrived = embedded_from_json(json.loads(json.dumps(embedded_to_json(Embedded(vectors, (2,))))))
    assert arrived.truncated == (2,)
    np.testing.assert_array_equal(arrived.vectors, vectors)
    assert arrived.vectors.flags.writeable
    empty = embedded_from_json(embedded_to_json(Embedded(np.zeros((0, 384), dtype=np.float32))))
    assert empty.vectors.shape == (0, 384)


def test_a_request_to_embed_arrives_as_it_was_sent(tmp_path: Path) -> None:
    request = EmbedRequest(tiny_artifact(tmp_path), ("query: 寺子屋", ""), is_query=True)
    assert embed_request_from_json(json.loads(json.dumps(embed_request_to_json(request)))) == request


def test_an_error_comes_back_as_the_class_of_its_code_whatever_else_was_imported() -> None:
    import terakoya.data.problems  # noqa: F401  has a narrower kind of the same code

    error = error_from_json({"code": "invalid_dataset", "error": "row 3 is empty"})
    assert type(error) is InvalidDataset
    assert str(error) == "row 3 is empty"
