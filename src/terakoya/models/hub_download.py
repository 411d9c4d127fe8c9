"""Brings files of a hub's repository onto the disk: each goes on where an earlier attempt stopped, and counts only when
its bytes have the hash that the hub gave for them. Knows nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from terakoya.exceptions import ModelLoadError, StorageFull, TooBusy
from terakoya.models.hub import HubConnection, HubFailure, HubFile, HubRepository

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before another try of what broke off; counted anew whenever bytes have come in."""
KEPT_SECONDS = 7 * 24 * 3600.0
"""Parts of files that nobody has asked for again for so long are removed."""
_REPORT_SECONDS = 0.25
_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 64_000_000
"""To stay free beside what is fetched: the database lives on the same disk."""


class Cancelled(Exception):
    """Somebody asked for the end."""


class HubDownload:
    """Of one repository into ``folder``, where files lie under their hashes until ``place`` or ``forget``."""

    def __init__(
        self,
        connection: HubConnection,
        repository: HubRepository,
        folder: Path,
        *,
        progress: Progress,
        is_cancelled: Callable[[], bool],
        retry_pauses: Sequence[float] = RETRY_PAUSES,
    ) -> None:
        self._connection, self._repository, self._folder = connection, repository, folder
        self._progress, self._is_cancelled, self._retry_pauses = progress, is_cancelled, retry_pauses
        self._total = self._done = 0
        self._reported_at = 0.0

    def expect(self, files: Sequence[HubFile]) -> None:
        """Say what is going to be fetched. Raises: StorageFull if that has no room."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove_forgotten(self._folder)
        self._total = sum(file.size_bytes for file in files)
        self._done = sum(min(_size(self._part(file)), file.size_bytes) for file in files)
        needed, free = self._total - self._done + _SPARE_BYTES, shutil.disk_usage(self._folder).free
        if needed > free:
            raise StorageFull(
                f"{self._repository.name!r} needs {needed // 10**6} MB more on the disk; {free // 10**6} MB are free"
            )
        self._report(at_once=True)

    def fetch(self, file: HubFile, target: Path) -> None:
        """Leave the file's bytes, checked, at ``target`` too.

        Raises: Cancelled; HubFailure or TooBusy after the last try; ModelLoadError if they have another hash; OSError
        where the disk is full.
        """
        part = self._part(file)
        is_resumed = part.exists()
        self._complete(file, part)
        if not _has_hash(part, file):
            found, self._done = _size(part), self._done - _size(part)
            part.unlink()
            if not is_resumed:
                raise ModelLoadError(
                    f"the {found} bytes that came for {file.name!r} of {self._repository.name!r} do not have the "
                    f"hash {file.key} that the hub gives for them; they were deleted"
                )
            self.fetch(file, target)  # the part left by an earlier attempt was bad: once more, from the start
            return
        _link_or_copy(part, target)

    def forget(self, files: Sequence[HubFile]) -> None:
        """Remove what was fetched from the folder; what was linked to its target stays there."""
        for file in files:
            self._part(file).unlink(missing_ok=True)

    def _complete(self, file: HubFile, part: Path) -> None:
        pauses = iter(self._retry_pauses)
        while _size(part) != file.size_bytes or not part.exists():
            before = _size(part)
            try:
                self._continue(file, part)
            except (HubFailure, TooBusy):
                if _size(part) > before:
                    pauses = iter(self._retry_pauses)
                pause = next(pauses, None)
                if pause is None:
                    raise
                self._wait(pause)

    def _continue(self, file: HubFile, part: Path) -> None:
        """Append what is missing; raises HubFailure if it breaks off on the way."""
        have = _size(part)
        if have > file.size_bytes:
            part.unlink()
            self._done -= file.size_bytes
            have = 0
        with self._connection.file(self._repository, file, first_byte=have) as response:
            goes_on = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            if have and not goes_on:
                self._done -= have
                have = 0
            with part.open("ab" if goes_on else "wb") as stream:
                for chunk in response.iter_bytes():  # as they come: a piece that waits for more is lost with the line
                    if have + len(chunk) > file.size_bytes:
                        raise ModelLoadError(
                            f"more bytes come for {file.name!r} of {self._repository.name!r} than the "
                            f"{file.size_bytes} that the hub announced"
                        )
                    stream.write(chunk)
                    have += len(chunk)
                    self._done += len(chunk)
                    self._report()
        if have < file.size_bytes:
            raise HubFailure(f"only {have} of {file.size_bytes} bytes came for {file.name!r}; try again")

    def _report(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._reported_at > _REPORT_SECONDS or self._done == self._total:
            if self._is_cancelled():
                raise Cancelled
            self._reported_at = now
            self._progress(self._done, self._total)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._is_cancelled():
                raise Cancelled
            time.sleep(min(0.2, seconds))

    def _part(self, file: HubFile) -> Path:
        return self._folder / file.key


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _has_hash(path: Path, file: HubFile) -> bool:
    with path.open("rb") as stream:
        if file.sha256 is not None:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
        # Git's own name for it, which is no protection against who can forge SHA-1: the hub has none better.
        digest = hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
        return digest.hexdigest() == file.git_sha1


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _remove_forgotten(folder: Path) -> None:
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            path.unlink()
