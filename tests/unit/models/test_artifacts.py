from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError, UnsafeArtifact
from terakoya.models.artifacts import MAX_TEMPLATE_CHARS, check_folder, describe_folder, loader_type_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    return path


def test_real_folders_pass(tiny_base: ModelArtifact, tiny_adapter: ModelArtifact, tiny_gguf: ModelArtifact) -> None:
    for artifact in (tiny_base, tiny_adapter, tiny_gguf):
        check_folder(artifact.path)


def test_facts_come_from_headers_alone(tiny_base: ModelArtifact, tiny_adapter: ModelArtifact) -> None:
    embedding = 259 * 64
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    base, adapter = describe_folder(tiny_base.path), describe_folder(tiny_adapter.path)
    assert (base.loader_type, base.architecture, base.parameters) == ("full", "llama", embedding + 2 * layer + 64)
    assert (adapter.loader_type, adapter.architecture) == ("lora", "")
    assert 0 < adapter.parameters < base.parameters


@pytest.mark.parametrize(
    "hostile",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
        {"trust_remote_code": True},
        {"trust_remote_code": "yes"},
        {"_attn_implementation_internal": "attacker/kernels"},
        {"_attn_implementation": "attacker/kernels"},
        {"attn_implementation": "attacker/kernels"},
        {"_experts_implementation_internal": "attacker/kernels"},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
        {"custom_generate": "attacker/code"},
        {"AUTO_MAP": "x"},
    ],
    ids=str,
)
@pytest.mark.parametrize("depth", [0, 1, 30])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_hostile_keys_are_refused_at_any_depth(folder: Path, hostile: dict[str, object], depth: int, name: str) -> None:
    value: object = hostile
    for level in range(depth):
        value = {"inner": value} if level % 2 else [value]
    (folder / name).write_text(json.dumps({"top": value}))
    with pytest.raises(UnsafeArtifact, match=next(iter(hostile))):
        check_folder(folder)


def test_a_number_is_no_excuse_outside_a_vocabulary(folder: Path) -> None:
    (folder / "config.json").write_text('{"trust_remote_code": 1}')
    with pytest.raises(UnsafeArtifact, match="trust_remote_code"):
        check_folder(folder)


def test_harmless_values_of_those_keys_pass(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"auto_mapping": null, "trust_remote_code": false}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"auto_map": 17, "trust_remote_code": 18}}}')
    check_folder(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 2_000 + "1" + "}" * 2_000, '{"a": ', "\xff", "{}" * 2])
def test_a_json_bomb_or_broken_json_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UnsafeArtifact, match=r"config\.json"):
        check_folder(folder)


def test_an_oversized_template_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x" * (MAX_TEMPLATE_CHARS + 1)}))
    with pytest.raises(UnsafeArtifact, match="chat template"):
        check_folder(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text("x" * (MAX_TEMPLATE_CHARS + 1))
    with pytest.raises(UnsafeArtifact, match="chat_template"):
        check_folder(folder)


@pytest.mark.parametrize(
    "name", ["run.py", "model.so", "model.pkl", "model.bin", "x.h5", "config.json.lnk", ".hidden", "noend"]
)
def test_files_a_model_does_not_need_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(UnsafeArtifact, match=name):
        check_folder(folder)


def test_an_archive_under_a_text_name_is_refused(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x")
    for name in ("tokenizer.model", "notes.txt", "README.md"):
        (folder / name).write_bytes(buffer.getvalue())
        with pytest.raises(UnsafeArtifact, match="zip archive"):
            check_folder(folder)
        (folder / name).unlink()


def test_folders_links_pipes_and_binary_texts_are_refused(folder: Path) -> None:
    def refused(spoil: Path, match: str) -> None:
        with pytest.raises(UnsafeArtifact, match=match):
            check_folder(folder)
        spoil.rmdir() if spoil.is_dir() and not spoil.is_symlink() else spoil.unlink()

    (folder / "inner").mkdir()
    refused(folder / "inner", "a folder")
    (folder / "x.json").symlink_to("/etc/hostname")
    refused(folder / "x.json", "a link")
    (folder / "dangling.json").symlink_to("/nowhere")
    refused(folder / "dangling.json", "a link")
    os.mkfifo(folder / "pipe.json")
    refused(folder / "pipe.json", "a special file")
    (folder / "merges.txt").write_bytes(b"a\0b")
    refused(folder / "merges.txt", "NUL")
    (folder / "merges.txt").write_bytes(b"\xff\xfe")
    refused(folder / "merges.txt", "UTF-8")
    check_folder(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ModelLoadError, match="link"):
        check_folder(tmp_path / "link")


def test_a_folder_that_is_no_model_says_what_one_needs(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"adapter_config\.json"):
        loader_type_of(folder)
