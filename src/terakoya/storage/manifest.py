"""The manifest of a model directory: every file with its size and SHA-256. The manifest's own hash names the content.
Knows nothing of models beyond which kinds of file may be in one.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from terakoya.exceptions import ModelLoadError, UnsafeArtifact
from terakoya.storage.files import sync_file, write_durably
from terakoya.storage.json_text import to_json

MANIFEST = "manifest.json"
ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".jinja", ".md", ".model", ".gguf"})
"""``.model`` is a SentencePiece vocabulary. None of these can hold code."""
ALLOWED_NAMES = frozenset({"LICENSE", "NOTICE", "Modelfile"})
_SETTLED_SECONDS = 0.1
"""A file changed so recently may change again without its times showing it: its hash is not remembered."""


def write_manifest(
    directory: Path, *, facts: Mapping[str, Any] | None = None, suffixes: Set[str] = ALLOWED_SUFFIXES
) -> str:
    """Hash every file, sync all to disk, write ``manifest.json`` last; return its SHA-256.

    ``facts`` are kept in it, and so are part of what its hash names. ``suffixes`` are the kinds of file allowed.
    Raises: UnsafeArtifact for a link, a special file or a kind of file that a model does not need.
    """
    files = _files(directory)
    if not files:
        raise ModelLoadError(f"the model directory {directory.name!r} is empty")
    for path in files:
        if path.suffix not in suffixes and path.name not in ALLOWED_NAMES:
            allowed = ", ".join(sorted(suffixes))
            raise UnsafeArtifact(f"{_name(path, directory)!r} may not be in a model; allowed: {allowed}")
        sync_file(path)
    entries = [
        {"path": _name(path, directory), "size": path.stat().st_size, "sha256": file_sha256(path)} for path in files
    ]
    content = to_json({"version": 1, **({"facts": facts} if facts else {}), "files": entries}, indent=1)
    write_durably(directory / MANIFEST, content)
    return hashlib.sha256(content).hexdigest()


def verify_manifest(
    directory: Path,
    expected_sha256: str,
    *,
    may_be_absent: Set[str] = frozenset(),
    whose: str = "model",
    remedy: str = "import the model again",
) -> int:
    """Check that the directory holds exactly what its manifest says; return the bytes of its files.

    Files in ``may_be_absent`` may have been deleted, but not changed.
    A file whose size, times and inode are as when this process last hashed it is not hashed again.

    Raises: ModelLoadError naming the first file that is missing, changed or foreign.
    """
    try:
        content = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise ModelLoadError(
            f"the {whose} directory {directory.name!r} or its manifest is gone; delete the {whose}"
        ) from None
    if hashlib.sha256(content).hexdigest() != expected_sha256:
        raise ModelLoadError(f"the manifest of {whose} directory {directory.name!r} was changed; {remedy}")
    entries = {entry["path"]: entry for entry in json.loads(content)["files"]}
    found = {_name(path, directory): path for path in _files(directory)}
    if foreign := sorted(found.keys() - entries.keys()):
        name = foreign[0]
        raise ModelLoadError(f"{name!r} in {whose} directory {directory.name!r} is not in its manifest; remove it")
    for name, entry in entries.items():
        path = found.get(name)
        if path is None and name in may_be_absent:
            continue
        if path is None:
            raise ModelLoadError(f"{name!r} is missing from {whose} directory {directory.name!r}; {remedy}")
        if path.stat().st_size != entry["size"] or _hashes.of(path) != entry["sha256"]:
            raise ModelLoadError(f"{name!r} in {whose} directory {directory.name!r} was changed; {remedy}")
    return sum(entry["size"] for name, entry in entries.items() if name in found)


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not as its manifest says."""

    file: str
    problem: Literal["missing", "changed", "foreign"]


def damages(directory: Path, expected_sha256: str, *, may_be_absent: Set[str] = frozenset()) -> list[Damage]:
    """Hash every file anew, whatever this process knows of it, and return all that differ, by name.

    Only the manifest is told of where that itself is not the one expected: what it says of files is then worth nothing.
    """
    try:
        content = (directory / MANIFEST).read_bytes()
    except OSError:
        return [Damage(MANIFEST, "missing")]
    if hashlib.sha256(content).hexdigest() != expected_sha256:
        return [Damage(MANIFEST, "changed")]
    try:
        entries = {entry["path"]: entry for entry in json.loads(content)["files"]}
    except (ValueError, KeyError, TypeError):
        return [Damage(MANIFEST, "changed")]
    there = {_name(path, directory) for path in directory.rglob("*") if not path.is_dir() or path.is_symlink()}
    found = [Damage(name, "foreign") for name in there - entries.keys() - {MANIFEST}]
    for name, entry in entries.items():
        path = directory / name
        if name not in there:
            found += [] if name in may_be_absent else [Damage(name, "missing")]
        elif path.is_symlink() or path.stat().st_size != entry["size"] or file_sha256(path) != entry["sha256"]:
            found.append(Damage(name, "changed"))
    return sorted(found, key=lambda each: each.file)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def _files(directory: Path) -> list[Path]:
    """All files but the manifest, in an order that depends on their names alone."""
    found = []
    for path in directory.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UnsafeArtifact(f"{path.name!r} in model directory {directory.name!r} is a link or special file")
        if path.is_file() and path != directory / MANIFEST:
            found.append(path)
    return sorted(found, key=lambda path: _name(path, directory))


class _Hashes:
    """Hashes by (path, size, times, inode), so that gigabytes are hashed once a process, not once a prompt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def of(self, path: Path) -> str:
        before = self._fingerprint(path)
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == before:
            return known[1]
        sha256 = file_sha256(path)
        if time.time() - path.stat().st_ctime > _SETTLED_SECONDS:
            with self._lock:
                self._known[path] = (before, sha256)
        return sha256

    @staticmethod
    def _fingerprint(path: Path) -> tuple[int, ...]:
        status = path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


_hashes = _Hashes()
