"""What can be done with data sets: import, list, look into, delete. Knows the repository as a port and never a
tokenizer.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Any

from terakoya.data.examples import read_examples, to_record
from terakoya.data.importing import ImportedRows, ImportOptions, import_file
from terakoya.data.mapping import shape_of
from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.names import check_name
from terakoya.domain.ports import DatasetRepository
from terakoya.exceptions import Conflict, DatasetNotFound, StorageFull

SAMPLE_NAME = "inbox-sample"
SAMPLE_FILE = "inbox.jsonl"
MAX_PREVIEW_ROWS = 1000
Importer = Callable[[Path, Path, ImportOptions], ImportedRows]
"""Writes the rows of a file to a new file: ``importing.import_file``, or a child process that calls it."""


class DatasetService:
    def __init__(
        self,
        repository: DatasetRepository,
        uploads_dir: Path,
        *,
        new_id: Callable[[str], str],
        importer: Importer = import_file,
        limit_bytes: int | None = None,
    ) -> None:
        """``new_id`` makes an id from its prefix; ``limit_bytes``: what a compressed file may unpack to."""
        self._repository = repository
        self._uploads_dir = uploads_dir
        self._new_id = new_id
        self._importer = importer
        self._limit_bytes = limit_bytes

    def import_file(
        self,
        path: Path,
        *,
        name: str,
        original_filename: str | None = None,
        mapping: Mapping[str, str] | None = None,
        skip_bad_rows: bool = False,
    ) -> DatasetInfo:
        """Check every row of a file, store the rows as UTF-8 JSONL and register them. Leaves ``path`` alone.

        Raises: InvalidDataset, leaving nothing behind, with the report in its details; InvalidConfig for a mapping
        that makes no sense; Conflict if the name is taken; StorageFull.
        """
        if mapping:
            shape_of(mapping)  # before gigabytes are read
        options = ImportOptions(original_filename, dict(mapping or {}), skip_bad_rows, self._limit_bytes)
        return self._register(path, name, options, self._importer)

    def list(self) -> Sequence[DatasetInfo]:
        """Newest first."""
        return self._repository.list_datasets()

    def get(self, id_or_name: str) -> DatasetInfo:
        """Raises: DatasetNotFound."""
        return self._repository.find(id_or_name)

    def preview(self, id_or_name: str, limit: int = 20) -> Sequence[dict[str, Any]]:
        """Return the first rows as they are stored, at most MAX_PREVIEW_ROWS."""
        rows = read_examples(self._repository.rows_path(id_or_name))
        return [to_record(example) for example in islice(rows, max(0, min(limit, MAX_PREVIEW_ROWS)))]

    def report(self, id_or_name: str) -> dict[str, Any]:
        """Return what the import found. Raises: DatasetNotFound, NotFound."""
        return self._repository.report(id_or_name)

    def delete(self, id_or_name: str) -> None:
        """Raises: DatasetNotFound; Conflict if an unfinished task uses it."""
        self._repository.delete(id_or_name)

    def install_sample(self) -> DatasetInfo:
        """Return the bundled sample, registering it if no data set has its name."""
        try:
            return self._repository.find(SAMPLE_NAME)
        except DatasetNotFound:
            with as_file(files("terakoya") / "samples" / SAMPLE_FILE) as path:
                return self._register(path, SAMPLE_NAME, ImportOptions(SAMPLE_FILE), import_file)  # ours: no child

    def _register(self, path: Path, name: str, options: ImportOptions, importer: Importer) -> DatasetInfo:
        name = check_name(name)
        self._refuse_taken(name)
        rows_path = self._uploads_dir / f"rows_{secrets.token_hex(16)}"
        with _removed_at_end(rows_path):
            imported = importer(path, rows_path, options)
            info = DatasetInfo(
                id=self._new_id("data"),
                name=name,
                rows=imported.rows,
                heldout_rows=imported.heldout_rows,
                format=imported.format,
                encoding=imported.encoding,
                size_bytes=imported.size_bytes,
                content_sha256=imported.sha256,
                created_at=datetime.now(UTC),
                notices=imported.notices,
                statistics=imported.statistics,
                kind=imported.kind,
            )
            return self._repository.save(info, rows_path, imported.report)

    def _refuse_taken(self, name: str) -> None:
        """Say so before gigabytes are read; the repository has the last word."""
        try:
            taken = self._repository.find(name)
        except DatasetNotFound:
            return
        raise Conflict(f"there is already a data set {taken.name!r}; choose another name or delete that data set")


@contextmanager
def _removed_at_end(path: Path) -> Iterator[None]:
    """Whatever happens, leave no ``path`` behind; name a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the disk has no room for these rows; free some space and import them again") from error
        raise
    finally:
        path.unlink(missing_ok=True)
