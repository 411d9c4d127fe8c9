"""The database engine: SQLite set so that an acknowledged commit survives a power cut, and its schema brought up to
date when it is opened. Knows no table by name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from terakoya.exceptions import AppException, StorageFull, Unavailable
from terakoya.storage.files import DataDir
from terakoya.storage.json_text import to_json

HEAD = "r0009"
"""The newest migration in ``migrations/versions``; named here so that an up-to-date database opens without Alembic."""
_WRITES = "terakoya_writes"
_BUSY_TIMEOUT_SECONDS = 10


def open_database(data_dir: DataDir) -> Engine:
    """Return an engine on the data folder's database, made or migrated to ``HEAD``."""
    engine = database_engine(f"sqlite:///{data_dir.database}")
    migrate(engine)
    return engine


def database_engine(url: str) -> Engine:
    sqlite = url.startswith("sqlite")
    engine = create_engine(
        url,
        json_serializer=lambda value: to_json(value).decode(),
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS} if sqlite else {},
    )
    if sqlite:
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # the driver opens no transaction of its own; _begin does
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # NORMAL loses acknowledged commits in a power cut
        "foreign_keys=ON",
        "secure_delete=ON",  # what is deleted is overwritten, not left legible in a free page
        "fullfsync=ON",  # macOS: fsync that reaches the disk
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another wrote in between; one that will write
    # takes the write lock at once instead.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session on one consistent snapshot."""
    with Session(engine) as session:
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """One transaction, serialised against all other writers: committed at the end, rolled back by an exception.

    Raises: StorageFull; Unavailable if another process keeps the database locked.
    """
    try:
        with Session(engine.execution_options(**{_WRITES: True}), expire_on_commit=False) as session, session.begin():
            yield session
    except OperationalError as error:
        reason = str(error.orig)
        if "full" in reason:
            raise StorageFull(f"the database cannot be written: {reason}; free some space") from error
        if "locked" in reason:
            raise Unavailable(
                f"another process kept the database locked for {_BUSY_TIMEOUT_SECONDS} seconds; try again"
            ) from error
        raise


def forget_deleted(engine: Engine) -> None:
    """Empty SQLite's log, which still holds what was deleted; while others read, it stays until the next time."""
    if engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as connection:  # in no transaction, where it would be refused
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()


def migrate(engine: Engine) -> None:
    """Bring the schema to ``HEAD`` in one transaction. Raises: AppException if a newer Terakoya wrote it."""
    with engine.connect() as connection:
        found = schema_revision(connection)
    if found == HEAD:
        return
    # Alembic takes a third of a second to import; at HEAD it is not needed.
    from alembic import command
    from alembic.script import ScriptDirectory

    configuration = alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()}
    if found is not None and found not in known:
        raise AppException(
            f"the database {engine.url.database!r} has schema {found!r}, of a newer Terakoya "
            f"(this one knows {HEAD!r}); upgrade Terakoya, or set TERAKOYA_DATA_DIR to another folder"
        )
    with engine.execution_options(**{_WRITES: True}).connect() as connection, _without_cascades(connection):
        configuration.attributes["connection"] = connection
        with connection.begin():
            command.upgrade(configuration, HEAD)


@contextmanager
def _without_cascades(connection: Connection) -> Iterator[None]:
    """SQLite alters a table by copying it; dropping the former one would take along what refers to its rows."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection  # outside of a transaction, where alone this is heard
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def schema_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def alembic_config() -> Any:
    """Return Alembic's Config on the packaged migrations; there is no alembic.ini."""
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    configuration.set_main_option("path_separator", "os")
    return configuration
