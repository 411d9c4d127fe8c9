"""OpenAI-compatible endpoints that the administrator names in a TOML file: who answers there, and for what. No request
can add one or name an address. Knows nothing of how they are asked.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from terakoya.domain.models import ExternalModel
from terakoya.domain.names import check_name, name_key
from terakoya.exceptions import InvalidConfig

Use = Literal["chat", "completions", "embeddings"]
MAX_ENDPOINTS = 100
_MAX_FILE_BYTES = 1_000_000


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    url: Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")]
    model: Annotated[str, Field(min_length=1, max_length=300)]
    serves: Annotated[tuple[Use, ...], Field(min_length=1, max_length=3)] = ("chat",)
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,100}$")] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    license: Annotated[str, Field(max_length=200)] = "unknown"
    notes: Annotated[str, Field(max_length=4000)] = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoints: Annotated[tuple[_Entry, ...], Field(max_length=MAX_ENDPOINTS)] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    name: str
    """What the registry calls it."""
    url: str
    """Up to "/v1", without a slash at the end."""
    model: str
    """What the endpoint calls it."""
    serves: tuple[Use, ...]
    api_key: str | None = field(repr=False)
    timeout_seconds: float
    """Of silence: until the answer begins, and between two pieces of it."""
    license: str = "unknown"
    notes: str = ""

    @property
    def listed(self) -> ExternalModel:
        """As the registry keeps it: without the key."""
        facts = {"url": self.url, "model": self.model, "serves": list(self.serves)}
        configuration = json.dumps(facts, sort_keys=True).encode()
        return ExternalModel(
            name=self.name,
            source=f"external:{self.url}"[:400],
            license=self.license,
            notes=self.notes,
            card={"loader": "external", "endpoint": facts},
            configuration_sha256=hashlib.sha256(configuration).hexdigest(),
        )


def read_endpoints(path: Path | None, environment: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """Return the endpoints in the file, with their keys from the environment; none without a file.

    Raises: InvalidConfig naming the entry and what is wrong with it; never with a key in it.
    """
    if path is None:
        return ()
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidConfig(f"the file of endpoints {str(path)!r} has more than {_MAX_FILE_BYTES} bytes")
        entries = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).endpoints
    except ValidationError as error:
        raise InvalidConfig(f"the file of endpoints {str(path)!r}: {_problems(error)}") from None
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"the file of endpoints {str(path)!r} cannot be read: {error}") from error
    endpoints = tuple(_endpoint(entry, environment) for entry in entries)
    seen: set[str] = set()
    for endpoint in endpoints:
        if name_key(endpoint.name) in seen:
            raise InvalidConfig(f"the file of endpoints {str(path)!r} has two called {endpoint.name!r}")
        seen.add(name_key(endpoint.name))
    return endpoints


def _endpoint(entry: _Entry, environment: Mapping[str, str]) -> Endpoint:
    key = None
    if entry.api_key_variable is not None:
        key = environment.get(entry.api_key_variable, "").strip()
        if not key:
            raise InvalidConfig(
                f"the endpoint {entry.name!r} takes its key from {entry.api_key_variable}, which is not set"
            )
    host = urlsplit(entry.url).hostname
    if not host:
        raise InvalidConfig(f"the endpoint {entry.name!r} has the address {entry.url!r}, which names no host")
    return Endpoint(
        name=check_name(entry.name),
        url=entry.url.rstrip("/"),
        model=entry.model,
        serves=entry.serves,
        api_key=key,
        timeout_seconds=entry.timeout_seconds,
        license=entry.license,
        notes=entry.notes,
    )


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )
