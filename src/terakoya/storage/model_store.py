"""Model directories under their content's hash. Knows files only: which rows name a directory is the repositories'
business, and two rows may name the same one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terakoya.exceptions import ModelLoadError
from terakoya.storage.files import DataDir, full_disk_is_named, sync_directory
from terakoya.storage.manifest import MANIFEST, file_sha256, verify_manifest, write_manifest

_SHARED_FROM_BYTES = 1 << 20
"""Smaller files are not worth the search."""
store_lock = threading.RLock()
"""Held from placing a directory until the row that names it is committed, and likewise for removal: otherwise a
deletion between the two could take a directory that the new row shares. One web process owns the folder, so a lock
of this process is enough."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    sha256: str
    size_bytes: int


def place(data_dir: DataDir, source: Path) -> StoredContent:
    """Make ``models/<hash>`` hold what ``source`` holds, durably and all at once; leave ``source`` as it is.

    Files are hard-linked, or copied where that is not possible, so a crash before the commit loses nothing: doing it
    again gives the same directory. Content that is already there is shared if it verifies, else replaced. A large file
    that another model has too, the same weights under another README say, is on the disk once.

    Raises: UnsafeArtifact, ModelLoadError, StorageFull.
    """
    if not source.is_dir():
        raise ModelLoadError(f"the model directory {source.name!r} is missing")
    sha256 = write_manifest(source)
    target = data_dir.model(sha256)
    if target.exists():
        try:
            return StoredContent(sha256, verify_manifest(target, sha256))
        except ModelLoadError:
            remove(data_dir, sha256)
    incoming = data_dir.models / f".incoming-{secrets.token_hex(8)}"
    with full_disk_is_named(target):
        try:
            shutil.copytree(source, incoming, copy_function=_Placing(data_dir, source))
            for folder, _, _ in os.walk(incoming, topdown=False):
                sync_directory(Path(folder))
            incoming.rename(target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        sync_directory(data_dir.models)
    return StoredContent(sha256, verify_manifest(target, sha256))


def remove(data_dir: DataDir, sha256: str) -> None:
    """Take the directory away; renamed first, so that what a crash leaves is never mistaken for a model."""
    doomed = data_dir.models / f".removed-{secrets.token_hex(8)}"
    try:
        data_dir.model(sha256).rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed)


class _Placing:
    """Puts one file in its place: a link to the same bytes in the store, or else to where it comes from."""

    def __init__(self, data_dir: DataDir, source: Path) -> None:
        self._source = source
        self._hashes = {entry["path"]: entry["sha256"] for entry in _entries(source)}
        wanted = set(self._hashes.values())
        self._stored = {
            entry["sha256"]: folder / entry["path"]
            for folder in data_dir.models.iterdir()
            for entry in _entries(folder)
            if entry["size"] >= _SHARED_FROM_BYTES and entry["sha256"] in wanted
        }

    def __call__(self, source: str, target: str) -> None:
        sha256 = self._hashes.get(Path(source).relative_to(self._source).as_posix(), "")
        twin = self._stored.get(sha256)
        if twin is not None and twin.is_file() and file_sha256(twin) == sha256:
            _link_or_copy(str(twin), target)
        else:
            _link_or_copy(source, target)


def _entries(folder: Path) -> list[dict[str, Any]]:
    """Return what the manifest in the folder lists; nothing where there is none that can be read."""
    try:
        files: list[dict[str, Any]] = json.loads((folder / MANIFEST).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return files


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
