from __future__ import annotations

import json
from pathlib import Path

from tests.tiny_model import tiny_artifact

from terakoya.domain.datasets import Message
from terakoya.exceptions import ModelNotFound, Unavailable, UnsafeArtifact
from terakoya.models.wire import ChatRequest, error_from_json, error_to_json, request_from_json, request_to_json


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
