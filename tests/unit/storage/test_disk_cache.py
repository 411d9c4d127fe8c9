from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from terakoya.storage.disk_cache import DiskCache


def fill(size: int = 100):
    return lambda folder: (folder / "data").write_bytes(b"x" * size)


def names(cache: DiskCache) -> set[str]:
    return {path.name for path in cache.root.iterdir()}


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache", 250)


def test_what_was_made_is_found(cache: DiskCache) -> None:
    assert cache.hold("a") is None
    made = cache.make("a", fill())
    found = cache.hold("a")
    assert found is not None
    assert (found.path, (found.path / "data").read_bytes()) == (made.path, b"x" * 100)


def test_nothing_is_kept_of_what_failed(cache: DiskCache) -> None:
    def fails(folder: Path) -> None:
        (folder / "data").write_bytes(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.make("a", fails)
    assert (names(cache), cache.hold("a")) == (set(), None)


def test_the_longest_unused_goes_first_and_what_is_held_stays(cache: DiskCache) -> None:
    held = cache.make("oldest", fill())
    for age, key in ((30, "old"), (20, "newer"), (10, "newest")):
        cache.make(key, fill()).release()
        os.utime(cache.root / key / ".lock", (time.time() - age,) * 2)
    os.utime(cache.root / "oldest" / ".lock", (time.time() - 40,) * 2)
    found = cache.hold("old")
    assert found is not None
    found.release()  # it is now the last one used
    cache.trim()
    assert names(cache) == {"oldest", "old", "newest"}
    held.release()
    cache.trim()
    assert names(cache) == {"old", "newest"}


def test_without_a_budget_nothing_outlives_its_use(cache: DiskCache) -> None:
    nothing = DiskCache(cache.root, 0)
    held = nothing.make("a", fill())
    nothing.trim()
    assert (held.path / "data").exists()
    held.release()
    nothing.trim()
    assert names(nothing) == set()


def test_what_two_make_at_once_is_kept_once(cache: DiskCache) -> None:
    inner = []

    def slow(folder: Path) -> None:
        inner.append(cache.make("a", fill(7)))
        fill(7)(folder)

    outer = cache.make("a", slow)
    assert outer.path == inner[0].path
    assert names(cache) == {"a"}


def _dies(root: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "data").write_bytes(b"half")
        os._exit(1)

    DiskCache(root, 250).make("a", write)


def test_what_a_killed_process_left_is_removed(cache: DiskCache) -> None:
    process = multiprocessing.get_context("fork").Process(target=_dies, args=(cache.root,))
    process.start()
    process.join()
    assert len(names(cache)) == 1
    assert cache.hold("a") is None
    cache.trim()
    assert names(cache) == set()


def test_what_is_dropped_is_made_anew(cache: DiskCache) -> None:
    cache.make("a", fill(1)).release()
    cache.drop("a")
    cache.drop("a")
    assert cache.hold("a") is None
    assert (cache.make("a", fill(2)).path / "data").stat().st_size == 2


def test_what_another_process_removes_meanwhile_is_no_error(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = DiskCache(cache.root, 0)
    nothing.make("a", fill()).release()
    listed = list(nothing._folders())
    (nothing.root / ".new-left").mkdir()
    left = (0.0, 0, nothing.root / ".new-left")
    nothing.trim()
    (nothing.root / ".new-left").rmdir()
    monkeypatch.setattr(nothing, "_folders", lambda: iter([*listed, left]))
    nothing.trim()
    assert names(nothing) == set()
