from __future__ import annotations

import json

import pytest

from terakoya.client.errors import error_from_body
from terakoya.exceptions import (
    AppException,
    Conflict,
    DatasetNotFound,
    InvalidConfig,
    NotFound,
    TooLarge,
    Unavailable,
    UnsafeArtifact,
)


@pytest.mark.parametrize("kind", [AppException, Conflict, DatasetNotFound, InvalidConfig, TooLarge, UnsafeArtifact])
def test_an_envelope_becomes_the_exception_it_was(kind: type[AppException]) -> None:
    error = error_from_body(kind.status, json.dumps({"error": "what failed", "code": kind.code, "request_id": "r"}))
    assert type(error) is kind
    assert str(error) == "what failed"


def test_the_fields_at_fault_are_in_the_message() -> None:
    body = {"error": "not valid", "code": "invalid_config", "fields": [{"field": "epochs", "message": "at least 1"}]}
    assert "epochs: at least 1" in str(error_from_body(422, json.dumps(body)))


def test_a_code_of_a_newer_server_is_kept_under_its_status() -> None:
    error = error_from_body(404, json.dumps({"error": "no such chain", "code": "chain_not_found"}))
    assert isinstance(error, NotFound)
    assert error.code == "chain_not_found"
    assert error.status == 404


def test_an_answer_that_is_no_envelope_is_quoted() -> None:
    error = error_from_body(503, b"<html>proxy: no upstream</html>")
    assert isinstance(error, Unavailable)
    assert "no upstream" in str(error)


def test_an_error_without_a_code_still_says_what_failed() -> None:
    assert str(error_from_body(400, b'{"error": "odd"}')) == "odd"


def test_what_a_program_can_show_travels_with_the_error() -> None:
    report = {"report": {"rows": {"bad": 3}}}

    refused = error_from_body(422, json.dumps({"error": "x", "code": "invalid_dataset", "details": report}))
    busy = error_from_body(429, b'{"error": "x", "code": "too_busy", "details": null}')

    assert (refused.details, busy.details) == (report, None)
    assert busy.code == "too_busy"
