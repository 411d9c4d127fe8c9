from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.servers import EMBEDDER, pull_starter, running_server

# Before torch is loaded: the suite's own computing and its servers' share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def folder_with_starter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Make data folders that hold the starter model, which is fetched once a session."""
    fetched = tmp_path_factory.mktemp("starter") / "data"
    with running_server(fetched) as server:
        pull_starter(server)

    def copy(target: Path) -> Path:
        return Path(shutil.copytree(fetched, target))

    return copy


@pytest.fixture(scope="session")
def folder_with_embedder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Make data folders that hold the embedder, which is fetched once a session."""
    fetched = tmp_path_factory.mktemp("embedder") / "data"
    with running_server(fetched) as server:
        pull_starter(server, EMBEDDER)

    def copy(target: Path) -> Path:
        return Path(shutil.copytree(fetched, target))

    return copy
