"""A model hub that speaks Hugging Face's API: which files a repository has at a commit, and their bytes. The token
goes to the hub's own address alone, never where it redirects to. Knows nothing of which files are wanted.

Source: the Hub's API, https://huggingface.co/docs/hub/api ("blobs=true" gives sizes and hashes of files).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx

from terakoya.exceptions import (
    AccessDenied,
    AppException,
    InvalidConfig,
    ModelLoadError,
    NotFound,
    TooBusy,
    Unavailable,
)

DEFAULT_ENDPOINT = "https://huggingface.co"
HUB_TOKEN = "TERAKOYA_HUB_TOKEN"  # noqa: S105  a name
"""The variable by which the process that fetches is given the token."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_MAX_REDIRECTS = 5
_MAX_LISTING_BYTES = 20_000_000
"""Of the answer that lists a repository's files: the largest have some 10,000, at 300 bytes each."""
_MAX_SAID_CHARS = 200
_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


class HubFailure(Unavailable):
    """The hub cannot be reached, or says that it is busy: the same request may work in a moment."""


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the hub is and how it is entered, as the administrator set it."""

    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = field(default=None, repr=False)
    is_offline: bool = False
    """Nothing is to be asked of it."""

    def check(self) -> None:
        """Raises: InvalidConfig if it is switched off, or if the token would travel unencrypted."""
        if self.is_offline:
            raise InvalidConfig("HF_HUB_OFFLINE is set, so nothing is fetched from a hub; unset it and start again")
        address = urlsplit(self.endpoint)
        if self.token is not None and address.scheme != "https" and address.hostname not in _LOOPBACK:
            raise InvalidConfig(
                f"the token HF_TOKEN would go unencrypted to {self.endpoint!r}; use https there, or unset HF_TOKEN"
            )


@dataclass(frozen=True, slots=True)
class HubFile:
    name: str
    size_bytes: int
    sha256: str | None
    """Of files in large-file storage; all others have only ``git_sha1``."""
    git_sha1: str
    """Git's name of the content: SHA-1 over "blob <size>\\0" and the bytes."""

    @property
    def key(self) -> str:
        """What names the content, and so a part of it that is there already."""
        return self.sha256 or self.git_sha1


@dataclass(frozen=True, slots=True)
class HubRepository:
    name: str
    commit: str
    files: tuple[HubFile, ...]
    license: str
    """As its card states it, "unknown" where it states none."""


class HubConnection:
    """Blocking; to be closed."""

    def __init__(self, access: HubAccess) -> None:
        access.check()
        self._access = access
        self._client = httpx.Client(
            follow_redirects=False,
            timeout=_TIMEOUT,
            headers={"User-Agent": "terakoya", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()

    def repository(self, name: str, revision: str) -> HubRepository:
        """Return what the revision is now: its commit and files.

        Raises: NotFound, AccessDenied, ModelLoadError for an answer that makes no sense; HubFailure.
        """
        url = f"{self._access.endpoint}/api/models/{quote(name)}/revision/{quote(revision, safe='')}?blobs=true"
        with self.stream(url, what=f"the repository {name!r} at revision {revision!r}") as response:
            raw = b""
            for chunk in response.iter_bytes():
                raw += chunk
                if len(raw) > _MAX_LISTING_BYTES:
                    raise ModelLoadError(
                        f"the hub's list of files of {name!r} is longer than {_MAX_LISTING_BYTES} bytes"
                    )
        try:
            return _repository(name, json.loads(raw))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelLoadError(
                f"{self._access.endpoint!r} does not answer as a model hub does ({type(error).__name__}: {error}); "
                "check HF_ENDPOINT"
            ) from error

    @contextmanager
    def file(self, repository: HubRepository, file: HubFile, *, first_byte: int = 0) -> Iterator[httpx.Response]:
        """Open the file's bytes from ``first_byte`` on; a status of 200 means that they come from the start.

        Raises: as ``repository``.
        """
        path = f"{quote(repository.name)}/resolve/{repository.commit}/{quote(file.name)}"
        what = f"{file.name!r} of {repository.name!r}"
        with self.stream(f"{self._access.endpoint}/{path}", what=what, first_byte=first_byte) as response:
            yield response

    @contextmanager
    def stream(self, url: str, *, what: str, first_byte: int = 0) -> Iterator[httpx.Response]:
        """Open a URL of the hub, following where it points, without the token beyond its own address."""
        for _ in range(_MAX_REDIRECTS + 1):
            request = self._client.build_request("GET", url, headers=self._headers(url, first_byte))
            try:
                response = self._client.send(request, stream=True)
            except httpx.TransportError as error:
                raise HubFailure(
                    f"{_origin(url)!r} cannot be reached for {what}: {str(error) or type(error).__name__}; "
                    "check the network, or HF_ENDPOINT"
                ) from error
            try:
                if response.has_redirect_location:
                    url = self._target(url, response.headers["Location"], what)
                    continue
                if response.status_code not in (200, 206):
                    raise self._refusal(response, url, what)
                yield response
                return
            except httpx.TransportError as error:
                raise HubFailure(f"{_origin(url)!r} broke off {what}: {str(error) or type(error).__name__}") from error
            finally:
                response.close()
        raise ModelLoadError(f"the hub sends {what} in circles: more than {_MAX_REDIRECTS} redirects")

    def _headers(self, url: str, first_byte: int) -> dict[str, str]:
        headers = {"Range": f"bytes={first_byte}-"} if first_byte else {}
        if self._access.token is not None and _origin(url) == _origin(self._access.endpoint):
            headers["Authorization"] = f"Bearer {self._access.token}"
        return headers

    def _target(self, url: str, location: str, what: str) -> str:
        target = urljoin(url, location)  # httpx has refused what is no URL at all
        scheme, host = urlsplit(target).scheme, urlsplit(target).hostname
        if not host or scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
            raise ModelLoadError(f"the hub points to {target[:_MAX_SAID_CHARS]!r} for {what}, which is not followed")
        return target

    def _refusal(self, response: httpx.Response, url: str, what: str) -> AppException:
        """Return the error that a status, and the hub's own code beside it, stand for."""
        status, code = response.status_code, response.headers.get("X-Error-Code", "")
        where = self._access.endpoint
        if status in (408, 429) or status >= 500:
            kind = TooBusy if status == 429 else HubFailure
            return kind(f"{where!r} answers {status} for {what}; try again later")
        if _origin(url) != _origin(where):  # a signature that has run out, a proxy: says nothing of the model
            return HubFailure(
                f"{_origin(url)!r}, to which the hub points, answers {status} for {what}; try again later"
            )
        if code == "RevisionNotFound":
            return NotFound(f"{where!r} does not have {what}; the usual revision is 'main'")
        if code == "GatedRepo" or status == 403:
            remedy = (
                "the account of HF_TOKEN has no access: accept the terms there"
                if self._access.token is not None
                else "accept its terms there, then set HF_TOKEN to a token of that account and start again"
            )
            return AccessDenied(f"{what} is gated at {where!r}; {remedy}")
        if status == 401 and not code:
            return AccessDenied(f"{where!r} refuses to show {what} ({_said(response)}); set HF_TOKEN to a valid token")
        if status in (401, 404):
            hint = "" if self._access.token is not None else "; a private one needs HF_TOKEN"
            return NotFound(f"{where!r} does not have {what}{hint}")
        return ModelLoadError(f"{where!r} answers {status} for {what} ({_said(response)})")


def _repository(name: str, listing: dict[str, Any]) -> HubRepository:
    commit = listing["sha"]
    if _SHA1.fullmatch(commit) is None:
        raise ValueError(f"the commit {commit!r:.60} is none")
    files = tuple(_file(entry) for entry in listing["siblings"])
    stated = (listing.get("cardData") or {}).get("license")
    license = stated if isinstance(stated, str) and stated.isprintable() else "unknown"
    return HubRepository(name, commit, files, license[:_MAX_SAID_CHARS] or "unknown")


def _file(entry: dict[str, Any]) -> HubFile:
    lfs = entry.get("lfs") or {}
    sha256 = lfs.get("sha256")
    name, size, sha1 = entry["rfilename"], lfs.get("size", entry.get("size")), entry.get("blobId")
    if not isinstance(name, str) or type(size) is not int or size < 0:
        raise ValueError(f"the file {name!r:.60} has no size")
    if not isinstance(sha1, str) or _SHA1.fullmatch(sha1) is None:
        raise ValueError(f"the file {name!r:.60} has no hash")
    if sha256 is not None and (not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None):
        raise ValueError(f"the file {name!r:.60} has the SHA-256 {sha256!r:.80}")
    return HubFile(name, size, sha256, sha1)


def _origin(url: str) -> str:
    """Return scheme, host and port: what a token is given to."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def _said(response: httpx.Response) -> str:
    message: str = response.headers.get("X-Error-Message", response.reason_phrase)
    return message[:_MAX_SAID_CHARS]
