from __future__ import annotations

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terakoya.data import repeats
from terakoya.data.repeats import KeyFile

Noted = list[tuple[int, bool]]
noted = st.lists(st.tuples(st.integers(0, 12).map(lambda n: n * (2**64 // 13)), st.booleans()), max_size=60)


def key_file(file: tempfile._TemporaryFileWrapper[bytes], rows: Noted) -> KeyFile:
    keys = KeyFile(file)
    for number, (key, mark) in enumerate(rows, start=1):
        keys.add(key.to_bytes(8, "little"), number, mark=mark)
    return keys


@pytest.fixture(params=[1, 4, 2**20], autouse=True)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few records in a part that there are several, too."""
    monkeypatch.setattr(repeats, "_PART_RECORDS", request.param)
    monkeypatch.setattr(repeats, "_WAITING", 3)


def test_repeats_are_those_that_a_dictionary_would_find() -> None:
    @given(noted, st.integers(0, 5))
    def check(rows: Noted, show: int) -> None:
        first: dict[int, int] = {}
        expected = [
            (number, first[key])
            for number, (key, _) in enumerate(rows, start=1)
            if first.setdefault(key, number) != number
        ]
        with tempfile.TemporaryFile() as file:
            found = key_file(file, rows).repeated(show)
        assert (found.count, list(found.shown)) == (len(expected), expected[:show])

    check()


def test_overlap_is_what_a_dictionary_would_find() -> None:
    @given(noted, st.integers(0, 5))
    def check(rows: Noted, show: int) -> None:
        first: dict[int, int] = {}
        for number, (key, mark) in enumerate(rows, start=1):
            if not mark:
                first.setdefault(key, number)
        expected = [(number, first[key]) for number, (key, mark) in enumerate(rows, start=1) if mark and key in first]
        with tempfile.TemporaryFile() as file:
            found = key_file(file, rows).on_both_sides(show)
        assert (found.count, list(found.shown)) == (len(expected), expected[:show])

    check()
