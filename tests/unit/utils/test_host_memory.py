from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from terakoya.utils.host_memory import cgroup_room_bytes, host_room_bytes, host_total_bytes

MIB = 2**20


def group(folder: Path, limit: str, usage: int, *, inactive_file: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\n")


def test_the_room_is_within_what_the_machine_has() -> None:
    assert 0 < host_room_bytes() <= host_total_bytes() <= psutil.virtual_memory().total


def test_cached_files_are_room_since_the_kernel_takes_them_back(tmp_path: Path) -> None:
    group(tmp_path, str(100 * MIB), 90 * MIB, inactive_file=60 * MIB)
    assert cgroup_room_bytes(tmp_path, tmp_path / "none") == 70 * MIB


def test_a_limit_anywhere_above_a_process_counts(tmp_path: Path) -> None:
    group(tmp_path / "slice" / "own", "max", 10 * MIB)
    group(tmp_path / "slice", str(50 * MIB), 30 * MIB)
    own = tmp_path / "cgroup"
    own.write_text("0::/slice/own\n")
    assert cgroup_room_bytes(tmp_path, own) == 20 * MIB


def test_the_older_kind_of_group_is_understood(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(80 * MIB))
    (folder / "memory.usage_in_bytes").write_text(str(60 * MIB))
    (folder / "memory.stat").write_text(f"cache 1\ntotal_inactive_file {10 * MIB}\n")
    own = tmp_path / "cgroup"
    own.write_text("4:cpu,memory:/job\n1:name=systemd:/\n")
    assert cgroup_room_bytes(tmp_path, own) == 30 * MIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_no_limit_is_no_limit(tmp_path: Path, limit: str) -> None:
    group(tmp_path, limit, MIB)
    assert cgroup_room_bytes(tmp_path, tmp_path / "none") is None
