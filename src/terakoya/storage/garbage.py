"""What a crash can leave in the data folder that nothing names: removed at start, under the folder's lock."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from terakoya.domain.tasks import FINAL_STATES
from terakoya.storage.database import reading
from terakoya.storage.files import DataDir
from terakoya.storage.tables import CollectionRow, DatasetRow, DocumentRow, ModelRow, TaskRow

_HASH = re.compile("[0-9a-f]{64}")


def collect_garbage(engine: Engine, data_dir: DataDir) -> list[str]:
    """Remove directories of models, data sets, documents and indexes without a row, chains that no model and no
    unfinished task is of, files made for an engine of models that are gone, and all uploads; return what went,
    relative to the root.

    Only the holder of ``DataDir.lock`` may call this, before it serves: another process' upload would be garbage.
    """
    with reading(engine) as session:
        named = {
            data_dir.models: {
                data_dir.model(sha256).name for sha256 in session.scalars(select(ModelRow.content_sha256))
            },
            data_dir.datasets: set(session.scalars(select(DatasetRow.id))),
            data_dir.documents: set(session.scalars(select(DocumentRow.id))),
            data_dir.indexes: set(session.scalars(select(CollectionRow.id))),
            data_dir.uploads: set[str](),
            data_dir.chains: _chains_in_use(session),
        }
        contents = set(session.scalars(select(ModelRow.content_sha256)))
    doomed = [path for folder, names in named.items() for path in folder.iterdir() if path.name not in names]
    doomed += [path for path in data_dir.engine_files.glob("*") if not set(_HASH.findall(path.name)) <= contents]
    for path in doomed:
        _remove(path)
    return [path.relative_to(data_dir.root).as_posix() for path in doomed]


def _chains_in_use(session: Session) -> set[str]:
    """Chains that a model stands on or a task is to write in: nothing can ever go on from any other."""
    cards = session.scalars(select(ModelRow.card))
    unfinished = session.scalars(select(TaskRow.resolved).where(TaskRow.state.not_in(FINAL_STATES)))
    return {str(card["chain"]["id"]) for card in cards if card.get("chain")} | {
        str(resolved["chain"]) for resolved in unfinished if resolved.get("chain")
    }


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
