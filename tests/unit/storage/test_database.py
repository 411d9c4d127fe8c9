from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from terakoya.domain.tasks import NewModel
from terakoya.exceptions import AppException
from terakoya.storage.database import HEAD, alembic_config, database_engine, migrate, reading, writing
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.tables import Base
from terakoya.storage.task_repository import SqlTaskRepository


def test_an_acknowledged_commit_is_on_disk_and_references_hold(engine: Engine) -> None:
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_a_reference_to_nothing_is_refused(models: SqlModelRepository, new_model: Callable[..., NewModel]) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        models.save_model(new_model(), task_id="no such task")


def test_the_migrations_make_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


def test_an_up_to_date_database_opens_without_alembic(engine: Engine, data_dir: DataDir) -> None:
    program = (
        "import sys; from pathlib import Path; from terakoya.storage.database import open_database;"
        "from terakoya.storage.files import DataDir; open_database(DataDir(Path(sys.argv[1])));"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(data_dir.root)], check=True)


def test_a_database_of_a_newer_terakoya_is_left_alone(engine: Engine) -> None:
    with writing(engine) as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'r9999'"))
    with pytest.raises(AppException, match=r"'r9999'.*upgrade Terakoya"):
        migrate(engine)


def test_a_writer_that_reads_first_waits_for_the_other_instead_of_failing(engine: Engine) -> None:
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with writing(engine) as session:
            session.execute(text("UPDATE alembic_version SET version_num = 'one'"))
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(5)
    with reading(engine) as session:  # readers do not wait
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
    threading.Timer(0.05, leave.set).start()
    with writing(engine) as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "one"
        session.execute(text("UPDATE alembic_version SET version_num = 'two'"))
    thread.join()


def test_an_exception_rolls_back(engine: Engine) -> None:
    def fail_half_way() -> None:
        with writing(engine) as session:
            session.execute(text("DELETE FROM alembic_version"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with reading(engine) as session:
        assert session.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1


def test_a_migration_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from terakoya.storage import database

    engine = database.database_engine(f"sqlite:///{tmp_path / 'half.db'}")
    monkeypatch.setattr("alembic.op.create_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrate(engine)
    engine.dispose()
    connection = sqlite3.connect(tmp_path / "half.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()


def test_what_waited_under_an_older_version_keeps_its_order(tmp_path: Path) -> None:
    from alembic import command

    engine = database_engine(f"sqlite:///{tmp_path / 'old.db'}")
    configuration = alembic_config()
    row = (
        "INSERT INTO tasks (id, kind, name, state, request, resolved, created_at, queued_at, attempt, fencing_token, "
        "result, announced) VALUES ('{id}', 'training', 'n', '{state}', '{{}}', '{{}}', '2026-01-01', '{at}', 1, 0, "
        "'{{}}', 0)"
    )
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "r0002")
        for task_id, state, at in (
            ("b", "queued", "2026-01-02"),
            ("a", "queued", "2026-01-03"),
            ("c", "failed", "2026"),
        ):
            connection.exec_driver_sql(row.format(id=task_id, state=state, at=at))
    migrate(engine)
    assert [task.id for task in SqlTaskRepository(engine, DataDir(tmp_path)).queue()] == ["b", "a"]
    engine.dispose()


def test_documents_keep_their_passages_when_their_table_is_altered(tmp_path: Path) -> None:
    from alembic import command

    engine = database_engine(f"sqlite:///{tmp_path / 'old.db'}")
    configuration = alembic_config()
    rows = (
        "INSERT INTO collections VALUES ('c', 'n', 'n', 'm', '0', 3, 0.0, '2026-01-01')",
        "INSERT INTO documents (id, collection_id, title, filename, parser, size_bytes, content_sha256, version, "
        "status, created_at, characters, notices) "
        "VALUES ('d', 'c', 't', 'f', 'plain', 1, '0', 1, 'ready', '2026-01-01', 1, '[]')",
        "INSERT INTO document_texts VALUES ('d', 'the text')",
        "INSERT INTO passages VALUES ('p', 'd', 1, 0, 0, 8, NULL, '[]', 'the text', x'', 2, NULL)",
    )
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "r0005")
        for row in rows:
            connection.exec_driver_sql(row)
    migrate(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT text FROM passages").scalar_one() == "the text"
        assert connection.exec_driver_sql("SELECT text FROM document_texts").scalar_one() == "the text"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    engine.dispose()
