"""Folders that can be made again, kept for the next process that needs one and removed least recently used first. One
that a process holds stays. Knows nothing of what is in them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from terakoya.storage.files import full_disk_is_named, sync_directory, sync_file

_LOCK = ".lock"
_NEW = ".new-"
_LEFT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class HeldFolder:
    """A folder that stays while this process holds it, and no longer than the process lives."""

    path: Path
    _lock: int

    def release(self) -> None:
        os.close(self._lock)


class DiskCache:
    """One folder with a folder for each key. Any number of processes may use it at once."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """``max_bytes``: of all folders; those in use count, and stay. 0 keeps none beyond its use."""
        self.root = root
        self.max_bytes = max_bytes

    def hold(self, key: str) -> HeldFolder | None:
        """Return the folder of a key if there is one, as recently used now."""
        lock = _open_lock(self.root / key)
        if lock is None:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        held = _open_lock(self.root / key)  # it may have been removed before it was held
        is_same = held is not None and os.path.sameopenfile(lock, held)
        if held is not None:
            os.close(held)
        if not is_same:
            os.close(lock)
            return None
        os.utime(lock)
        return HeldFolder(self.root / key, lock)

    def make(self, key: str, write: Callable[[Path], None]) -> HeldFolder:
        """Have ``write`` fill an empty folder, and keep it under the key once it is whole and on disk.

        What two processes make at once is kept once. Raises: StorageFull; what ``write`` raises, with nothing kept.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self.root / f"{_NEW}{secrets.token_hex(8)}"
        folder.mkdir()
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            with full_disk_is_named(folder):
                write(folder)
                for path in folder.iterdir():
                    sync_file(path)
                sync_directory(folder)
            try:
                folder.rename(self.root / key)
            except OSError:  # another process was faster
                pass
            else:
                sync_directory(self.root)
                return HeldFolder(self.root / key, lock)
        except BaseException:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        other = self.hold(key)
        if other is None:  # and it has been removed already
            return HeldFolder(folder, lock)
        os.close(lock)
        shutil.rmtree(folder)
        return other

    def drop(self, key: str) -> None:
        """Remove what is under a key if there is anything, held or not: it is no good."""
        with suppress(FileNotFoundError):
            _remove(self.root / key)

    def trim(self) -> None:
        """Remove what nobody holds: what was never finished, and what is over the budget, oldest use first."""
        folders = sorted(self._folders(), key=lambda each: each[0], reverse=True)
        kept = 0
        for _, size, folder in folders:
            kept += size
            if (kept > self.max_bytes or folder.name.startswith(_NEW)) and _remove_unheld(folder):
                kept -= size

    def _folders(self) -> Iterator[tuple[float, int, Path]]:
        """Yield of each folder its last use, its bytes and its path."""
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            with suppress(OSError):  # removed meanwhile
                used = (folder / _LOCK) if (folder / _LOCK).exists() else folder
                yield used.stat().st_mtime, sum(each.stat().st_size for each in folder.iterdir()), folder


def _open_lock(folder: Path) -> int | None:
    try:
        return os.open(folder / _LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _remove_unheld(folder: Path) -> bool:
    lock = _open_lock(folder)
    try:
        if lock is None:  # about to be held, or what an interrupted removal left
            if time.time() - folder.stat().st_mtime <= _LEFT_SECONDS:
                return False
            shutil.rmtree(folder)
            return True
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    except FileNotFoundError:  # another process was faster
        return True
    except OSError:
        return False
    finally:
        if lock is not None:
            os.close(lock)
    return True


def _remove(folder: Path) -> None:
    """Out of sight first, so that nobody finds half of it."""
    gone = folder.with_name(f"{_NEW}{secrets.token_hex(8)}")
    folder.rename(gone)
    shutil.rmtree(gone)
