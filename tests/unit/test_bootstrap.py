from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.bootstrap import build_container
from terakoya.config import Settings
from terakoya.exceptions import Unavailable

COLLECTION = "coll_01m8cr4cebzgns60k2cfj99045"


async def test_a_qdrant_server_that_is_named_is_used_and_need_not_be_there_at_start(tmp_path: Path) -> None:
    container = build_container(Settings(data_dir=tmp_path / "data", qdrant_url="http://127.0.0.1:9"))
    with pytest.raises(Unavailable, match="TERAKOYA_QDRANT_URL"):
        await container.index_keeper._store.exists(COLLECTION)
    await container.index_keeper.close()
    container.engine.dispose()


async def test_without_one_the_indexes_are_in_the_data_folder(tmp_path: Path) -> None:
    container = build_container(Settings(data_dir=tmp_path / "data"))
    await container.index_keeper._store.create(COLLECTION, dimension=4)
    assert (container.data_dir.index(COLLECTION) / "current.json").exists()
    await container.index_keeper.close()
    container.engine.dispose()
