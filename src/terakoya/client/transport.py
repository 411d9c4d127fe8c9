"""One HTTP connection pool to a server: sends, checks, decodes. Knows no route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from terakoya.client.errors import error_from_body
from terakoya.exceptions import InvalidConfig, Unavailable

Json = dict[str, Any]
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
UNHURRIED = httpx.Timeout(None, connect=5.0)
"""For what may take minutes on the server: checking a large upload, a slow model's first word."""


class Transport:
    def __init__(self, base_url: str, api_key: str | None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidConfig(f"the server's address must look like http://127.0.0.1:8050; got {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.uses_proxy = not _is_loopback(parts.hostname)
        self._http = httpx.Client(
            base_url=self.base_url, headers=self.headers, timeout=TIMEOUT, trust_env=self.uses_proxy
        )

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Return the decoded answer, None for an empty one.

        Raises: the ``AppException`` that the server raised; Unavailable if none answers.
        """
        answer = self._answer(method, path, **options)
        return answer.json() if answer.content else None

    def text(self, path: str, **options: Any) -> str:
        """GET what is no JSON. Raises: as ``request``."""
        return self._answer("GET", path, **options).text

    def server_sent_events(self, path: str, *, json_body: Json) -> Iterator[Json]:
        """POST and yield each ``data:`` line of the answer, decoded, until ``[DONE]``."""
        try:
            with self._http.stream("POST", path, json=json_body, timeout=UNHURRIED) as answer:
                if answer.is_error:
                    raise error_from_body(answer.status_code, answer.read())
                for line in answer.iter_lines():
                    text = line.removeprefix("data:").strip()
                    if not line.startswith("data:"):
                        continue
                    if text == "[DONE]":
                        return
                    yield json.loads(text)
        except httpx.TransportError as error:
            raise self._unavailable(error) from error
        raise Unavailable(f"the server at {self.base_url} ended the answer before it was complete")

    def close(self) -> None:
        self._http.close()

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unavailable(error) from error
        if answer.is_error or answer.is_redirect:
            raise error_from_body(answer.status_code, answer.content)
        return answer

    def _unavailable(self, error: Exception) -> Unavailable:
        reason = str(error) or type(error).__name__
        return Unavailable(f"no answer from the server at {self.base_url} ({reason}); start it with `terakoya serve`")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
