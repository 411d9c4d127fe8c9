"""Models in the database and in the store. Knows rows and verified directories; opening them is ``models/``'s work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from terakoya.domain.models import ExternalModel, ModelArtifact, ModelInfo, ModelKind, ModelMarks
from terakoya.domain.names import check_name, did_you_mean, name_key
from terakoya.domain.tasks import NewModel
from terakoya.exceptions import Conflict, InvalidConfig, ModelLoadError, ModelNotFound
from terakoya.storage.database import reading, writing
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.manifest import verify_manifest
from terakoya.storage.model_store import StoredContent, place, remove, store_lock
from terakoya.storage.tables import CollectionRow, ModelRow
from terakoya.storage.usage import tasks_using


class SqlModelRepository:
    """The ModelRepository. Saving the same bytes under a second name adds a row; the directory is shared and goes
    with the last row that names it."""

    def __init__(self, engine: Engine, data_dir: DataDir) -> None:
        self._engine = engine
        self._data_dir = data_dir

    def list_models(self) -> Sequence[ModelInfo]:
        with reading(self._engine) as session:
            return [model_info(row) for row in session.scalars(select(ModelRow).order_by(ModelRow.id.desc()))]

    def find(self, id_or_name: str) -> ModelInfo:
        with reading(self._engine) as session:
            return model_info(find_model_row(session, id_or_name))

    def load_model(self, id_or_name: str) -> ModelArtifact:
        with reading(self._engine) as session:
            chain = [find_model_row(session, id_or_name)]
            while chain[-1].kind == ModelKind.ADAPTER and chain[-1].parent_id is not None:
                chain.append(find_model_row(session, chain[-1].parent_id))
            infos = [model_info(row) for row in chain]
        if not infos[0].has_files:
            raise InvalidConfig(
                f"{infos[0].name!r} is an endpoint elsewhere, without files here: it can be asked, but not tuned, "
                "merged, exported or built upon"
            )
        if infos[-1].kind is ModelKind.ADAPTER:
            raise ModelLoadError(f"the adapter {infos[-1].name!r} names no base model")
        artifact = ModelArtifact(infos[-1], self._verified(infos[-1]))
        for info in reversed(infos[:-1]):
            artifact = ModelArtifact(info, self._verified(info), artifact)
        return artifact

    def save_model(self, model: NewModel, *, task_id: str | None = None) -> ModelInfo:
        with store_lock:
            with reading(self._engine) as session:
                if task_id is not None and (earlier := _of_task(session, task_id)) is not None:
                    return model_info(earlier)
                refuse_taken_name(session, model.name)
            content = place(self._data_dir, model.directory)
            with writing(self._engine) as session:
                refuse_taken_name(session, model.name)
                row = add_model_row(session, model, content, name=model.name, task_id=task_id)
                info = model_info(row)
        shutil.rmtree(model.directory, ignore_errors=True)
        return info

    def list_external(self, models: Sequence[ExternalModel]) -> None:
        """Make the external models of the registry these: added, brought up to date, or taken out. What people said of
        one stays as long as it has its name.

        Raises: Conflict if a name belongs to a model that is here.
        """
        wanted = {name_key(model.name): model for model in models}
        with writing(self._engine) as session:
            for row in session.scalars(select(ModelRow).where(ModelRow.kind == ModelKind.EXTERNAL)).all():
                if row.name_key not in wanted:
                    session.delete(row)
            session.flush()
            for key, model in wanted.items():
                row_or_none = session.scalars(select(ModelRow).where(ModelRow.name_key == key)).one_or_none()
                if row_or_none is None:
                    content = StoredContent(model.configuration_sha256, 0)
                    new = NewModel(
                        *(model.name, ModelKind.EXTERNAL, Path(), None, "", 0, model.license, model.source, model.card)
                    )
                    row_or_none = add_model_row(session, new, content, name=model.name, task_id=None)
                    row_or_none.notes = model.notes
                elif row_or_none.kind != ModelKind.EXTERNAL:
                    raise Conflict(
                        f"the endpoint {model.name!r} has the name of a model that is here; rename it in the file of "
                        "endpoints"
                    )
                row_or_none.source, row_or_none.license = model.source, model.license
                row_or_none.card, row_or_none.content_sha256 = model.card, model.configuration_sha256

    def mark(self, id_or_name: str, marks: ModelMarks) -> ModelInfo:
        with writing(self._engine) as session:
            row = find_model_row(session, id_or_name)
            for name in ("notes", "stage", "engine", "license"):
                if (value := getattr(marks, name)) is not None:
                    setattr(row, name, value)
            if marks.tags is not None:
                row.tags = list(marks.tags)
            session.flush()
            return model_info(row)

    def delete(self, id_or_name: str) -> None:
        with store_lock:
            with writing(self._engine) as session:
                row = find_model_row(session, id_or_name)
                if row.kind == ModelKind.EXTERNAL:
                    raise Conflict(
                        f"the endpoint {row.name!r} is the administrator's: take it out of the file of endpoints and "
                        "start again"
                    )
                children = session.scalars(select(ModelRow.name).where(ModelRow.parent_id == row.id)).all()
                if children:
                    raise Conflict(
                        f"the model {row.name!r} is what {', '.join(map(repr, children))} "
                        f"{'is' if len(children) == 1 else 'are'} built on; delete that first"
                    )
                if users := tasks_using(session, row.id, row.name, keys=frozenset({"model", "model_id", "parent_id"})):
                    raise Conflict(f"the model {row.name!r} is needed by the unfinished task {users[0]!r}; cancel it")
                pinned = (
                    select(CollectionRow.name).where(CollectionRow.embedder_id == row.id).order_by(CollectionRow.name)
                )
                if collections := session.scalars(pinned).all():
                    raise Conflict(
                        f"the embedder {row.name!r} is what {_listed(collections)} of documents "
                        f"{'was' if len(collections) == 1 else 'were'} embedded with; without it they cannot be asked: "
                        "delete them first"
                    )
                session.delete(row)
                session.flush()
                sharing = select(func.count()).where(ModelRow.content_sha256 == row.content_sha256)
                is_last = session.scalar(sharing) == 0
            if is_last:
                remove(self._data_dir, row.content_sha256)
                for made in self._data_dir.engine_files.glob(f"*{row.content_sha256}*"):
                    made.unlink(missing_ok=True)

    def _verified(self, info: ModelInfo) -> Path:
        path = self._data_dir.model(info.content_sha256)
        verify_manifest(path, info.content_sha256)
        return path


def find_model_row(session: Session, id_or_name: str) -> ModelRow:
    """Raises: ModelNotFound, with close names."""
    wanted = or_(ModelRow.id == id_or_name, ModelRow.name_key == name_key(id_or_name))
    row = session.scalars(select(ModelRow).where(wanted)).one_or_none()
    if row is None:
        names = session.scalars(select(ModelRow.name)).all()
        raise ModelNotFound(f"no model {id_or_name!r}{did_you_mean(id_or_name, names)}")
    return row


def refuse_taken_name(session: Session, name: str) -> None:
    """Raises: Conflict; InvalidConfig for a name no model may have."""
    taken = session.scalars(select(ModelRow.name).where(ModelRow.name_key == name_key(check_name(name)))).first()
    if taken is not None:
        raise Conflict(f"there is already a model {taken!r}; choose another name or delete that model")


def free_name(session: Session, name: str) -> str:
    """Return the name, or the name with the first free number behind it."""
    stored = check_name(name)
    taken = set(session.scalars(select(ModelRow.name_key)))
    if name_key(stored) not in taken:
        return stored
    number = 2
    while name_key(f"{stored[:90]}-{number}") in taken:
        number += 1
    return f"{stored[:90]}-{number}"


def add_model_row(
    session: Session, model: NewModel, content: StoredContent, *, name: str, task_id: str | None
) -> ModelRow:
    """Raises: ModelNotFound if the parent is gone."""
    if model.parent_id is not None:
        find_model_row(session, model.parent_id)
    row = ModelRow(
        id=new_id("model"),
        name=check_name(name),
        name_key=name_key(name),
        kind=ModelKind(model.kind),
        architecture=model.architecture,
        parameters=model.parameters,
        size_bytes=content.size_bytes,
        content_sha256=content.sha256,
        source=model.source,
        license=model.license,
        created_at=datetime.now(UTC),
        parent_id=model.parent_id,
        task_id=task_id,
        notes="",
        tags=[],
        stage="draft",
        engine="auto",
        card=model.card,
    )
    session.add(row)
    session.flush()
    return row


def model_info(row: ModelRow) -> ModelInfo:
    return ModelInfo(
        id=row.id,
        name=row.name,
        kind=ModelKind(row.kind),
        architecture=row.architecture,
        parameters=row.parameters,
        size_bytes=row.size_bytes,
        content_sha256=row.content_sha256,
        source=row.source,
        license=row.license,
        created_at=row.created_at,
        parent_id=row.parent_id,
        task_id=row.task_id,
        notes=row.notes,
        tags=tuple(row.tags),
        stage=row.stage,
        engine=row.engine,
        card=row.card,
    )


def _listed(collections: Sequence[str]) -> str:
    names = ", ".join(map(repr, collections))
    return f"the collection {names}" if len(collections) == 1 else f"the collections {names}"


def _of_task(session: Session, task_id: str) -> ModelRow | None:
    return session.scalars(select(ModelRow).where(ModelRow.task_id == task_id)).one_or_none()
