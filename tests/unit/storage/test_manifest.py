from __future__ import annotations

import os
from pathlib import Path

import pytest

from terakoya.exceptions import ModelLoadError, UnsafeArtifact
from terakoya.storage import manifest
from terakoya.storage.manifest import verify_manifest, write_manifest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "extra").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "extra" / "chat_template.jinja").write_text("{{ x }}")
    return directory


def test_the_same_files_have_the_same_hash_wherever_they_are(model: Path, tmp_path: Path) -> None:
    first = write_manifest(model)
    assert write_manifest(model) == first
    moved = model.rename(tmp_path / "elsewhere")
    assert write_manifest(moved) == first
    assert verify_manifest(moved, first) == len(b"weights{{ x }}")


def test_a_changed_byte_a_missing_file_and_a_foreign_file_are_named(model: Path) -> None:
    sha256 = write_manifest(model)
    (model / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(ModelLoadError, match=r"'model\.safetensors'.*changed"):
        verify_manifest(model, sha256)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "code.py").touch()
    with pytest.raises(ModelLoadError, match=r"'code\.py'.*not in its manifest"):
        verify_manifest(model, sha256)
    (model / "code.py").unlink()
    (model / "extra" / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match=r"'extra/chat_template\.jinja' is missing"):
        verify_manifest(model, sha256)
    with pytest.raises(ModelLoadError, match="manifest"):
        verify_manifest(model, "0" * 64)


@pytest.mark.parametrize("name", ["weights.bin", "model.pt", "modeling.py", "run.sh", "noend"])
def test_what_could_hold_code_is_refused(model: Path, name: str) -> None:
    (model / name).touch()
    with pytest.raises(UnsafeArtifact, match=name):
        write_manifest(model)


def test_a_link_out_of_the_model_is_refused(model: Path) -> None:
    (model / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeArtifact, match="link"):
        write_manifest(model)


def test_unchanged_files_are_hashed_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_SETTLED_SECONDS", -1)
    sha256 = write_manifest(model)
    verify_manifest(model, sha256)
    hashed = []
    file_sha256 = manifest.file_sha256
    monkeypatch.setattr(manifest, "file_sha256", lambda path: hashed.append(path.name) or file_sha256(path))
    verify_manifest(model, sha256)
    assert hashed == []
    os.utime(model / "model.safetensors", ns=(1, 1))
    verify_manifest(model, sha256)
    assert hashed == ["model.safetensors"]
