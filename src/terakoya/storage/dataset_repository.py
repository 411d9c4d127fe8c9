"""Data sets in the database and their rows in the data folder. Knows nothing of formats: rows arrive normalised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, or_, select
from sqlalchemy.orm import Session

from terakoya.domain.datasets import DatasetInfo, DatasetKind
from terakoya.domain.names import check_name, did_you_mean, name_key
from terakoya.exceptions import Conflict, DatasetNotFound, NotFound
from terakoya.storage.database import reading, writing
from terakoya.storage.files import DataDir, move_file_durably, sync_directory, write_durably
from terakoya.storage.json_text import to_json
from terakoya.storage.tables import DatasetRow
from terakoya.storage.usage import tasks_using

ROWS_FILE = "rows.jsonl"
REPORT_FILE = "report.json"


class SqlDatasetRepository:
    def __init__(self, engine: Engine, data_dir: DataDir) -> None:
        self._engine = engine
        self._data_dir = data_dir

    def list_datasets(self) -> Sequence[DatasetInfo]:
        """Newest first."""
        with reading(self._engine) as session:
            return [_info(row) for row in session.scalars(select(DatasetRow).order_by(DatasetRow.id.desc()))]

    def find(self, id_or_name: str) -> DatasetInfo:
        with reading(self._engine) as session:
            return _info(_find(session, id_or_name))

    def rows_path(self, id_or_name: str) -> Path:
        return self._data_dir.dataset(self.find(id_or_name).id) / ROWS_FILE

    def report(self, id_or_name: str) -> dict[str, Any]:
        info = self.find(id_or_name)
        try:
            report: dict[str, Any] = json.loads((self._data_dir.dataset(info.id) / REPORT_FILE).read_bytes())
        except FileNotFoundError:
            raise NotFound(
                f"the data set {info.name!r} has no report: it was imported by an earlier version; import it again"
            ) from None
        return report

    def save(self, info: DatasetInfo, rows: Path, report: Mapping[str, Any]) -> DatasetInfo:
        stored = replace(info, name=check_name(info.name))
        folder = self._data_dir.dataset(info.id)
        with reading(self._engine) as session:
            _refuse_taken_name(session, stored.name)
        folder.mkdir(parents=True)
        try:
            write_durably(folder / REPORT_FILE, to_json(report))
            move_file_durably(rows, folder / ROWS_FILE)
            sync_directory(folder.parent)
            with writing(self._engine) as session:
                _refuse_taken_name(session, stored.name)
                session.add(_row(stored))
        except BaseException:
            shutil.rmtree(folder)
            raise
        return stored

    def delete(self, id_or_name: str) -> None:
        with writing(self._engine) as session:
            row = _find(session, id_or_name)
            if users := tasks_using(session, row.id, row.name, keys=frozenset({"dataset", "dataset_id"})):
                raise Conflict(f"the data set {row.name!r} is needed by the unfinished task {users[0]!r}; cancel it")
            session.delete(row)
        shutil.rmtree(self._data_dir.dataset(row.id))
        for tokens in self._data_dir.tokens.glob(f"{row.content_sha256[:16]}-*"):
            shutil.rmtree(tokens, ignore_errors=True)  # another data set with these rows tokenises them again


def _find(session: Session, id_or_name: str) -> DatasetRow:
    wanted = or_(DatasetRow.id == id_or_name, DatasetRow.name_key == name_key(id_or_name))
    row = session.scalars(select(DatasetRow).where(wanted)).one_or_none()
    if row is None:
        names = session.scalars(select(DatasetRow.name)).all()
        raise DatasetNotFound(f"no data set {id_or_name!r}{did_you_mean(id_or_name, names)}")
    return row


def _refuse_taken_name(session: Session, name: str) -> None:
    taken = session.scalars(select(DatasetRow.name).where(DatasetRow.name_key == name_key(name))).first()
    if taken is not None:
        raise Conflict(f"there is already a data set {taken!r}; choose another name or delete that data set")


def _row(info: DatasetInfo) -> DatasetRow:
    return DatasetRow(
        id=info.id,
        name=info.name,
        name_key=name_key(info.name),
        rows=info.rows,
        heldout_rows=info.heldout_rows,
        format=info.format,
        encoding=info.encoding,
        size_bytes=info.size_bytes,
        content_sha256=info.content_sha256,
        created_at=info.created_at,
        notices=list(info.notices),
        statistics=info.statistics,
        kind=info.kind,
    )


def _info(row: DatasetRow) -> DatasetInfo:
    return DatasetInfo(
        id=row.id,
        name=row.name,
        rows=row.rows,
        heldout_rows=row.heldout_rows,
        format=row.format,
        encoding=row.encoding,
        size_bytes=row.size_bytes,
        content_sha256=row.content_sha256,
        created_at=row.created_at,
        notices=tuple(row.notices),
        statistics=row.statistics,
        kind=DatasetKind(row.kind),
    )
