"""Model directories under their content's hash. Knows files only: which rows name a directory is the repositories'
business, and two rows may name the same one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from terakoya.exceptions import ModelLoadError
from terakoya.storage.files import DataDir, full_disk_is_named, sync_directory
from terakoya.storage.manifest import verify_manifest, write_manifest

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
    again gives the same directory. Content that is already there is shared if it verifies, else replaced.

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
            shutil.copytree(source, incoming, copy_function=_link_or_copy)
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
