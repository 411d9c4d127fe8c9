from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from terakoya.domain.tasks import NewModel
from terakoya.storage.database import database_engine, open_database
from terakoya.storage.dataset_repository import SqlDatasetRepository
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = DataDir(tmp_path_factory.mktemp("migrated")).create()
    open_database(data_dir).dispose()
    return data_dir.database


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data").create()


@pytest.fixture
def engine(data_dir: DataDir, migrated: Path) -> Iterator[Engine]:
    shutil.copy(migrated, data_dir.database)
    engine = database_engine(f"sqlite:///{data_dir.database}")
    yield engine
    engine.dispose()


@pytest.fixture
def models(engine: Engine, data_dir: DataDir) -> SqlModelRepository:
    return SqlModelRepository(engine, data_dir)


@pytest.fixture
def datasets(engine: Engine, data_dir: DataDir) -> SqlDatasetRepository:
    return SqlDatasetRepository(engine, data_dir)


@pytest.fixture
def tasks(engine: Engine, data_dir: DataDir) -> SqlTaskRepository:
    return SqlTaskRepository(engine, data_dir)


@pytest.fixture
def new_model(tmp_path: Path) -> Callable[..., NewModel]:
    def make(
        name: str = "base", *, weights: bytes = b"weights", kind: str = "base", parent_id: str | None = None
    ) -> NewModel:
        directory = tmp_path / f"made-{name}"
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(weights)
        (directory / "config.json").write_text("{}")
        return NewModel(name, kind, directory, parent_id, "llama", 7, "apache-2.0", "folder:made")

    return make


@pytest.fixture
def documents(engine: Engine, data_dir: DataDir) -> SqlDocumentRepository:
    return SqlDocumentRepository(engine, data_dir)
