"""Links on disk: whole or not at all, unchangeable, and refused when they are not what they claim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from terakoya.exceptions import Conflict, InvalidConfig
from terakoya.storage.manifest import MANIFEST
from terakoya.training.continual.chain import Link, load_link, write_link
from terakoya.training.continual.errors import ChainMismatch, DamagedChain
from terakoya.training.continual.link import LinkFacts, damages_of, erase_kept, kept_rows, lineage, links_in
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample, with_targets
from terakoya.training.continual.soft_targets import soft_targets
from terakoya.training.continual.state import tensors_sha256

ANCHOR = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
IMPORTANCE = {"w": torch.tensor([0.5, 0.0]), "b": torch.tensor([[0.25]])}
FACTS = LinkFacts(
    number=1,
    task="sort-mail",
    parent=None,
    base_sha256="b" * 64,
    tokenizer_sha256="c" * 64,
    space="full",
    anchor_sha256=tensors_sha256(ANCHOR),
    estimator="s_rademacher",
    label_mode="model",
    sequences=256,
    targets=1024,
    reduction="sum over targets, mean over sequences",
    dtype="float32",
    seed=0,
    data_sha256="d" * 64,
    gamma=1.0,
    strength=10.0,
    trace=0.75,
    versions={"torch": "2"},
    scores=(0.5, 0.25),
)


def kept() -> ReplayBuffer:
    torch.manual_seed(0)
    soft = with_targets(ReplayExample("sort-mail", (1, 2, 3, 4), ((1, 2), (3, 4))), soft_targets(torch.randn(2, 9), 3))
    hard = ReplayExample("sort-mail", (5, 6), ((1, 2),))
    more = with_targets(ReplayExample("sort-mail", (7, 8, 9), ((1, 3),)), soft_targets(torch.randn(2, 9), 3))
    return ReplayBuffer((soft, hard, more))


def written(chain: Path, facts: LinkFacts = FACTS, replay: ReplayBuffer | None = None) -> tuple[Path, str]:
    return write_link(
        chain, facts, importance=IMPORTANCE, replay=kept() if replay is None else replay, metrics={"acc": 0.5}
    )


def loaded(link: Path, sha256: str, *, base: str = "b" * 64, tokenizer: str = "c" * 64) -> Link:
    return load_link(link, sha256, base_sha256=base, tokenizer_sha256=tokenizer)


def test_a_link_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path, sha256 = written(tmp_path)
    assert path.name == "001-sort-mail"
    assert {each.name for each in path.iterdir()} == {
        *("manifest.json", "fisher.safetensors", "metrics.json", "replay.jsonl", "replay_logits.safetensors")
    }
    link = loaded(path, sha256)
    assert link.facts == FACTS
    assert link.metrics == {"acc": 0.5}
    assert all(torch.equal(link.importance[name], value) for name, value in IMPORTANCE.items())
    for found, expected in zip(link.replay.examples, kept().examples, strict=True):
        assert (found.input_ids, found.label_spans, found.key) == (
            *(expected.input_ids, expected.label_spans),
            expected.key,
        )
        assert (found.targets is None) == (expected.targets is None)
        if found.targets is not None and expected.targets is not None:
            assert torch.equal(found.targets.tokens, expected.targets.tokens)
            assert torch.equal(found.targets.log_rest, expected.targets.log_rest)
    state = link.state(ANCHOR)
    assert (state.tasks, state.anchor.keys()) == (1, ANCHOR.keys())
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "name", ["manifest.json", "fisher.safetensors", "metrics.json", "replay.jsonl", "replay_logits.safetensors"]
)
def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path, name: str) -> None:
    path, sha256 = written(tmp_path)
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(DamagedChain, match="changed"):
        loaded(path, sha256)
    assert [(each.file, each.problem) for each in damages_of(path, sha256)] == [(name, "changed")]


def test_a_missing_or_foreign_file_is_noticed(tmp_path: Path) -> None:
    path, sha256 = written(tmp_path)
    (path / "replay.jsonl").unlink()
    with pytest.raises(DamagedChain, match=r"'replay.jsonl' is missing"):
        loaded(path, sha256)
    other, other_sha256 = written(tmp_path, replace(FACTS, task="other"))
    (other / "notes.txt").write_text("mine")
    with pytest.raises(DamagedChain, match=r"'notes.txt'"):
        loaded(other, other_sha256)
    with pytest.raises(DamagedChain, match="gone"):
        loaded(tmp_path / "003-nothing", sha256)


def test_another_base_or_tokenizer_is_refused(tmp_path: Path) -> None:
    path, sha256 = written(tmp_path)
    with pytest.raises(ChainMismatch, match="another base model"):
        loaded(path, sha256, base="e" * 64)
    with pytest.raises(ChainMismatch, match="another tokenizer"):
        loaded(path, sha256, tokenizer="e" * 64)


def test_weights_other_than_those_the_task_ended_with_are_no_anchor(tmp_path: Path) -> None:
    link = loaded(*written(tmp_path))
    with pytest.raises(ChainMismatch, match="other weights"):
        link.state(ANCHOR | {"w": torch.tensor([1.0, 2.000001])})
    with pytest.raises(ChainMismatch, match="other weights"):
        link.state({f"module.{name}": value for name, value in ANCHOR.items()})


def test_an_importance_that_names_other_weights_is_refused(tmp_path: Path) -> None:
    path, sha256 = write_link(tmp_path, FACTS, importance={"w": torch.ones(2)}, replay=ReplayBuffer())
    with pytest.raises(ChainMismatch, match="'b'"):
        loaded(path, sha256).state(ANCHOR)
    path, sha256 = write_link(
        tmp_path, replace(FACTS, task="shape"), importance=IMPORTANCE | {"w": torch.ones(3)}, replay=ReplayBuffer()
    )
    with pytest.raises(ChainMismatch, match="shape"):
        loaded(path, sha256).state(ANCHOR)


def test_a_link_that_tracks_nothing_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ChainMismatch, match="protect nothing"):
        write_link(tmp_path, FACTS, importance={}, replay=ReplayBuffer())
    assert not list(tmp_path.iterdir())


def test_links_are_never_overwritten(tmp_path: Path) -> None:
    path, sha256 = written(tmp_path)
    with pytest.raises(Conflict, match="001-sort-mail"):
        written(tmp_path, replace(FACTS, seed=1))
    assert loaded(path, sha256).facts.seed == 0


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from terakoya.training.continual import chain

    def failing(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chain, "write_manifest", failing)
    with pytest.raises(Exception, match="no space left"):
        written(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_chain_is_followed_by_hash_and_branches(tmp_path: Path) -> None:
    first, first_sha256 = written(tmp_path)
    second = replace(FACTS, number=2, task="second", parent=first_sha256)
    path, sha256 = written(tmp_path, second)
    branch, branch_sha256 = written(tmp_path, replace(second, task="branch"))
    written(tmp_path, replace(FACTS, task="elsewhere"))
    assert lineage(path, sha256) == [(first, first_sha256), (path, sha256)]
    assert lineage(branch, branch_sha256) == [(first, first_sha256), (branch, branch_sha256)]


def test_a_parent_that_is_gone_or_changed_breaks_the_chain(tmp_path: Path) -> None:
    first, first_sha256 = written(tmp_path)
    path, sha256 = written(tmp_path, replace(FACTS, number=2, task="second", parent=first_sha256))
    manifest = json.loads((first / MANIFEST).read_bytes())
    manifest["facts"]["gamma"] = 0.5
    (first / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedChain, match="the task before '002-second'"):
        lineage(path, sha256)


def test_kept_examples_can_be_erased_and_the_chain_goes_on(tmp_path: Path) -> None:
    path, sha256 = written(tmp_path)
    there = kept_rows(path)
    assert (there.replay_rows, there.soft_rows, there.erased) == (3, 2, False)
    assert erase_kept(path) == there.size_bytes > 0
    assert (kept_rows(path).is_empty, kept_rows(path).size_bytes) == (True, 0)
    assert damages_of(path, sha256) == []
    assert links_in(tmp_path) == [path]
    link = loaded(path, sha256)
    assert link.erased
    assert link.replay.examples == ()
    assert link.state(ANCHOR).tasks == 1
    assert erase_kept(path) == 0  # again does no harm
    (path / "fisher.safetensors").unlink()
    with pytest.raises(DamagedChain, match="fisher"):
        loaded(path, sha256)


def test_a_manifest_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from terakoya.training.continual import link

    path, sha256 = written(tmp_path)
    monkeypatch.setattr(link, "SCHEMA", 2)
    with pytest.raises(ChainMismatch, match="schema 1"):
        loaded(path, sha256)


@pytest.mark.parametrize("task", ["", "Upper", "../up", "a/b", "x" * 64])
def test_names_cannot_leave_the_chain_folder(tmp_path: Path, task: str) -> None:
    with pytest.raises(InvalidConfig, match="lower-case"):
        written(tmp_path, replace(FACTS, task=task))


def test_a_file_that_is_no_safetensors_is_damage(tmp_path: Path) -> None:
    """Also when the manifest agrees: a chain written by something else."""
    import hashlib

    path, _ = written(tmp_path)
    save_file({}, path / "fisher.safetensors")
    manifest = json.loads((path / MANIFEST).read_bytes())
    (path / "fisher.safetensors").write_bytes(b"not tensors")
    for entry in manifest["files"]:
        if entry["path"] == "fisher.safetensors":
            entry |= {"size": 11, "sha256": hashlib.sha256(b"not tensors").hexdigest()}
    content = json.dumps(manifest).encode()
    (path / MANIFEST).write_bytes(content)
    with pytest.raises(DamagedChain):
        loaded(path, hashlib.sha256(content).hexdigest())
