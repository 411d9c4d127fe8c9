"""Tokenised training rows kept on disk under what they are made of, so that the same rows under the same tokenizer are
tokenised once, and a restarted run finds them ready. Knows rows and tokenizers; not what is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from terakoya.data.stored_rows import StoredRows
from terakoya.data.token_store import TokenStore, TokenWriter
from terakoya.storage.disk_cache import DiskCache, HeldFolder
from terakoya.training.objectives.encodings import Encoding

_FORMAT = 1
"""Counts up whenever the same rows would be written differently."""


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """Rows to train on."""

    rows: TokenStore
    split_conversations: int
    was_ready: bool
    """Whether they had been tokenised before."""


class TokenCache:
    def __init__(self, cache: DiskCache, dataset_sha256: str) -> None:
        """``dataset_sha256``: of the stored rows that will be asked for."""
        self._cache = cache
        self._dataset_sha256 = dataset_sha256
        self._held: list[HeldFolder] = []

    def encoded(
        self, rows: StoredRows, encoding: Encoding, tokenizer: Any, *, length: int, progress: Callable[[int], None]
    ) -> KeptTokens:
        """Return the rows to train on, tokenised now if they were not before; they stay until ``close``.

        Raises: InvalidDataset naming rows that cannot be learned, with nothing kept; StorageFull.
        """
        key = self._key(rows, encoding, tokenizer, length)
        held = self._cache.hold(key)
        was_ready = held is not None
        store = None if held is None else _opened(held)
        if held is None or store is None:
            if was_ready:
                self._cache.drop(key)
                was_ready = False

            def write(folder: Path) -> None:
                with TokenWriter(folder) as writer:
                    found = encoding.train(rows, tokenizer, length=length, progress=progress, into=writer)
                    found.complete()
                    writer.finish(split_conversations=found.split_conversations)

            held = self._cache.make(key, write)
            store = TokenStore(held.path)
        self._held.append(held)
        progress(len(rows))
        return KeptTokens(store, store.facts["split_conversations"], was_ready)

    def close(self) -> None:
        """Let go of the rows, and of what the cache holds over its budget."""
        while self._held:
            self._held.pop().release()
        self._cache.trim()

    def _key(self, rows: StoredRows, encoding: Encoding, tokenizer: Any, length: int) -> str:
        made_of = {
            "format": _FORMAT,
            "libraries": [version("transformers"), version("tokenizers")],
            "dataset": self._dataset_sha256,
            "lines": hashlib.blake2b(rows.lines.tobytes(), digest_size=16).hexdigest(),
            "encoding": type(encoding).__qualname__,
            "length": length if encoding.cuts_by_length else None,
            "tokenizer": _identity(tokenizer),
        }
        digest = hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()
        return f"{self._dataset_sha256[:16]}-{digest}"


def _identity(tokenizer: Any) -> list[Any]:
    """Everything of a tokenizer that decides which tokens a conversation becomes."""
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else json.dumps(tokenizer.get_vocab())
    return [
        type(tokenizer).__qualname__,
        hashlib.blake2b(backend.encode(), digest_size=16).hexdigest(),
        tokenizer.chat_template,
        {name: str(value) for name, value in sorted(tokenizer.special_tokens_map.items())},
        sorted((number, str(token)) for number, token in tokenizer.added_tokens_decoder.items()),
    ]


def _opened(held: HeldFolder) -> TokenStore | None:
    try:
        return TokenStore(held.path)
    except ValueError:  # a disk error, or files removed by hand
        held.release()
        return None
