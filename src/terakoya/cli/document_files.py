"""Which files ``documents add`` is about: those named, and those in the folders named, with their paths in them. Links
are not followed, hidden files and other types passed over, archives in folders named but not opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from terakoya.exceptions import UnreadableDocument


@dataclass(frozen=True, slots=True)
class FileToAdd:
    path: Path
    source: str | None = None
    """Its folder's name and its path in it; None for a file that was named itself."""


@dataclass(slots=True)
class FilesToAdd:
    files: list[FileToAdd] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    """Named themselves."""
    refused: dict[str, str] = field(default_factory=dict)
    """Path -> what it is: "link" or "archive"."""
    passed_over: int = 0
    """Files of types that are not read."""


def files_to_add(paths: Iterable[Path]) -> FilesToAdd:
    """Raises: UnreadableDocument if a path is not there, or a folder holds nothing that is read."""
    from terakoya.rag.indexing.archives import is_archive
    from terakoya.rag.indexing.parsers import known_suffixes

    found = FilesToAdd()
    for path in paths:
        if path.is_file():
            if is_archive(path.name):
                found.archives.append(path)
            else:
                found.files.append(FileToAdd(path))
            continue
        if not path.is_dir():
            raise UnreadableDocument(f"there is no file or folder {str(path)!r}")
        before = len(found.files) + len(found.refused)
        _add_folder(found, path, known_suffixes())
        if len(found.files) + len(found.refused) == before:
            known = ", ".join(known_suffixes())
            raise UnreadableDocument(f"the folder {str(path)!r} holds no file of these types: {known}")
    return found


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_folder(found: FilesToAdd, folder: Path, suffixes: tuple[str, ...]) -> None:
    from terakoya.rag.indexing.archives import is_archive

    name = folder.resolve().name or "folder"
    for path in _walked(folder):
        if path.is_symlink():
            if path.is_dir() or path.name.lower().endswith(suffixes):
                found.refused[str(path)] = "link"
        elif is_archive(path.name):
            found.refused[str(path)] = "archive"
        elif path.name.lower().endswith(suffixes) and path.is_file():
            found.files.append(FileToAdd(path, f"{name}/{path.relative_to(folder).as_posix()}"))
        else:
            found.passed_over += 1


def _walked(folder: Path) -> Iterator[Path]:
    """Yield files and links below a folder, in order, without hidden ones."""
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in folders if Path(root, name).is_symlink())
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))
