"""Terakoya: teach a language model your team's work, keep what it knew, ask your own documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from terakoya.client.client import Client as Client

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load ``terakoya.Client`` when it is asked for: every process imports this package, few need an HTTP client."""
    if name == "Client":
        from terakoya.client.client import Client

        return Client
    raise AttributeError(f"module 'terakoya' has no attribute {name!r}")
