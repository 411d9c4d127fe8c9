"""Owns the layout of the data folder, durable writes into it, and the ids that name things in it.
Knows nothing of what the files mean.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from terakoya.exceptions import InvalidConfig, NotFound, StorageFull

if TYPE_CHECKING:
    from terakoya.storage.server_lock import RunningServer, ServerLock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32: sorts as the numbers do and has no i, l, o, u."""
_ID = re.compile(rf"[a-z]+_[{_ALPHABET}]{{26}}")
_RANDOM_BITS = 80


class _Clock:
    """Time-ordered 128-bit numbers: milliseconds, then random bits, counted up within a millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        with self._lock:
            if fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
                fresh = self._last + 1
            self._last = fresh
        return fresh


_clock = _Clock()


def new_id(prefix: str) -> str:
    """Return such as ``task_01kb2x...``: ids made later in one process sort later, whatever the clock does."""
    number = _clock.next()
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_id(value: str) -> bool:
    return _ID.fullmatch(value) is not None


@contextmanager
def full_disk_is_named(path: Path) -> Iterator[None]:
    """Turn "no space left" into StorageFull, which says where and is a 507."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for {path.name!r} in {str(path.parent)!r}; free some space") from error
        raise


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_directory = sync_file
"""A directory is synced like a file: its entries then survive a power cut."""


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` by rename: readers see the old bytes or the new, and the new survive a power cut.

    Raises: StorageFull, leaving the old file and nothing beside it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with full_disk_is_named(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def move_file_durably(source: Path, target: Path) -> None:
    """Move a file, across file systems too, so that it is either at ``source`` or whole at ``target``."""
    with full_disk_is_named(target):
        try:
            sync_file(source)
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
            try:
                shutil.copyfile(source, temporary)
                sync_file(temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            source.unlink()
        sync_directory(target.parent)


def read_tail(path: Path, *, lines: int, limit_bytes: int = 256 * 1024) -> str:
    """Return the last lines of a text file, "" if there is none; undecodable bytes become U+FFFD."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            text = file.read(limit_bytes).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


MEMORY_LEASES = "memory"
"""In the cache folder."""


class DataDir:
    """The data folder: where each thing lives. Constructing it touches nothing; ``create`` makes the folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "terakoya.db"
        self.datasets = root / "datasets"
        self.models = root / "models"
        self.documents = root / "documents"
        self.indexes = root / "indexes"
        self.tasks = root / "tasks"
        self.chains = root / "chains"
        self.cache = root / "cache"
        self.engine_files = self.cache / "gguf"
        """Made of models for an engine, named by their contents' hashes; can be made again at any time."""
        self.downloads = self.cache / "downloads"
        """Files of model hubs by their hashes, while they come in."""
        self.memory_leases = self.cache / MEMORY_LEASES
        """What memory training processes are going to take (``memory_leases.py``)."""
        self.tokens = self.cache / "tokens"
        """Of data sets' rows, named by the first 16 digits of the content's hash and what tokenised them."""
        self.uploads = root / "uploads"
        self.logs = root / "logs"
        self.model_server_socket = root / "model-server.sock"

    def create(self) -> DataDir:
        """Make the folders, readable by their owner only. Returns self. Raises: InvalidConfig if that cannot be."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (
                *(self.datasets, self.documents, self.indexes, self.models),
                *(self.tasks, self.chains, self.cache, self.uploads, self.logs),
            ):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InvalidConfig(
                f"the data folder {str(self.root)!r} cannot be used: {error.strerror} ({error.filename!r}); "
                "set TERAKOYA_DATA_DIR to a folder you may write"
            ) from error
        return self

    def task(self, task_id: str) -> Path:
        """Raises: NotFound if this is no id, so that no path can be smuggled in."""
        return self._under(self.tasks, task_id)

    def dataset(self, dataset_id: str) -> Path:
        return self._under(self.datasets, dataset_id)

    def document(self, document_id: str) -> Path:
        return self._under(self.documents, document_id)

    def index(self, collection_id: str) -> Path:
        return self._under(self.indexes, collection_id)

    def chain(self, chain_id: str) -> Path:
        """What the tasks of a chain left for the next, a folder a task."""
        return self._under(self.chains, chain_id)

    def model(self, content_sha256: str) -> Path:
        """The directory of the model with this manifest hash; models of the same bytes share it."""
        return self.models / content_sha256[:32]

    def lock(self, url: str = "") -> ServerLock:
        """Claim the folder for this web process. Raises: Conflict naming the server that has it."""
        from terakoya.storage.server_lock import ServerLock

        return ServerLock.acquire(self.root / "server.lock", url)

    def running_server(self) -> RunningServer | None:
        """The web process that holds the folder, if one does."""
        from terakoya.storage.server_lock import running_server

        return running_server(self.root / "server.lock")

    @staticmethod
    def _under(folder: Path, identifier: str) -> Path:
        if not is_id(identifier):
            raise NotFound(f"{identifier!r} is not an id")
        return folder / identifier
