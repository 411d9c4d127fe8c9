"""What can be done with data sets: import, list, look into, delete. Knows the repository as a port and never a
tokenizer.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Any

from terakoya.data.examples import read_examples, to_record
from terakoya.data.importing import import_rows
from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.names import check_name
from terakoya.domain.ports import DatasetRepository
from terakoya.exceptions import Conflict, DatasetNotFound, StorageFull

SAMPLE_NAME = "inbox-sample"
SAMPLE_FILE = "inbox.jsonl"
MAX_PREVIEW_ROWS = 1000


class DatasetService:
    def __init__(self, repository: DatasetRepository, uploads_dir: Path, *, new_id: Callable[[str], str]) -> None:
        """``new_id`` makes an id from its prefix."""
        self._repository = repository
        self._uploads_dir = uploads_dir
        self._new_id = new_id

    def import_file(self, path: Path, *, name: str, original_filename: str | None = None) -> DatasetInfo:
        """Check every row of a file, store the rows as UTF-8 JSONL and register them. Leaves ``path`` alone.

        Raises: InvalidDataset, leaving nothing behind; Conflict if the name is taken; StorageFull.
        """
        name = check_name(name)
        self._refuse_taken(name)
        rows_path = self._uploads_dir / f"rows_{secrets.token_hex(16)}"
        with _removed_at_end(rows_path):
            with rows_path.open("xb") as rows:
                imported = import_rows(path, rows, filename=original_filename)
                rows.flush()
                os.fsync(rows.fileno())
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
            )
            return self._repository.save(info, rows_path)

    def list(self) -> Sequence[DatasetInfo]:
        """Newest first."""
        return self._repository.list_datasets()

    def get(self, id_or_name: str) -> DatasetInfo:
        """Raises: DatasetNotFound."""
        return self._repository.find(id_or_name)

    def preview(self, id_or_name: str, limit: int = 20) -> Sequence[dict[str, Any]]:
        """Return the first rows as ``{"row", "messages", "split"?}``, at most MAX_PREVIEW_ROWS."""
        rows = read_examples(self._repository.rows_path(id_or_name))
        return [to_record(example) for example in islice(rows, max(0, min(limit, MAX_PREVIEW_ROWS)))]

    def delete(self, id_or_name: str) -> None:
        """Raises: DatasetNotFound; Conflict if an unfinished task uses it."""
        self._repository.delete(id_or_name)

    def install_sample(self) -> DatasetInfo:
        """Return the bundled sample, registering it if no data set has its name."""
        try:
            return self._repository.find(SAMPLE_NAME)
        except DatasetNotFound:
            with as_file(files("terakoya") / "samples" / SAMPLE_FILE) as path:
                return self.import_file(path, name=SAMPLE_NAME, original_filename=SAMPLE_FILE)

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
