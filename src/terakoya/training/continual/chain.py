"""A chain on disk: one immutable folder a task, named by its number, that holds what the next task needs. A folder
appears whole or not at all, its manifest hashes every file in it and names the manifest before. Knows tensors and
rows; not how they were made or who may read them.

    chain/NNN-task/{manifest.json, fisher.safetensors, metrics.json, replay.jsonl, replay_logits.safetensors}

The anchor is not copied: the manifest has the hash of the weights it must be. Kept examples can be erased later, as
their owner may ask: the manifest stays and a note beside the folder says that they were.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from terakoya.exceptions import AppException, Conflict, InvalidConfig, TrainingError
from terakoya.storage.files import full_disk_is_named, sync_directory, write_durably
from terakoya.storage.json_text import to_json
from terakoya.storage.manifest import ALLOWED_SUFFIXES, MANIFEST, verify_manifest, write_manifest
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample
from terakoya.training.continual.soft_targets import SoftTargets, joined
from terakoya.training.continual.state import ChainMismatch, RetentionState, require_same, tensors_sha256

SCHEMA = 1
_FISHER, _METRICS = "fisher.safetensors", "metrics.json"
_REPLAY, _TARGETS = "replay.jsonl", "replay_logits.safetensors"
_SUFFIXES = ALLOWED_SUFFIXES | {".jsonl"}
_TASK = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class DamagedChain(TrainingError):
    """A link of a chain is missing, incomplete or was changed after it was written."""

    code = "damaged_chain"


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What a manifest says beside the hashes of its files."""

    number: int
    """Of the task in its chain, from 1."""
    task: str
    """Lower-case letters, digits and hyphens."""
    parent: str | None
    """SHA-256 of the manifest before; None for the first."""
    base_sha256: str
    tokenizer_sha256: str
    space: Literal["full", "lora"]
    anchor_sha256: str
    """Of the weights that the next task starts from, by ``tensors_sha256``."""
    estimator: str
    label_mode: str
    """Whose labels the Fisher is of: "model" for the true one."""
    sequences: int
    targets: int
    """Labels the importance was estimated from."""
    reduction: str
    dtype: str
    seed: int
    data_sha256: str
    gamma: float
    strength: float
    """lambda, as it was at the end."""
    trace: float
    """Of this task's Fisher alone."""
    versions: dict[str, str]
    scores: tuple[float, ...] = ()
    """Its row of R."""


@dataclass(frozen=True, slots=True)
class Link:
    facts: LinkFacts
    sha256: str
    importance: dict[str, Tensor]
    replay: ReplayBuffer
    """Of this task alone; empty if none was kept, or if it was erased."""
    erased: bool
    metrics: dict[str, Any]

    def state(self, anchor: Mapping[str, Tensor]) -> RetentionState:
        """Join the importance with the weights it is about. Raises: ChainMismatch if they are others."""
        found = tensors_sha256(anchor)
        if found != self.facts.anchor_sha256:
            raise ChainMismatch(
                f"task {self.facts.number} ({self.facts.task!r}) ended with other weights than these "
                f"(sha256 {self.facts.anchor_sha256[:12]}..., found {found[:12]}...); go on from the model it made"
            )
        if self.facts.space == "full":
            require_same(self.importance, anchor, what="the chain's state")
        return RetentionState(self.importance, dict(anchor), self.facts.number)


def write_link(
    chain: Path,
    facts: LinkFacts,
    *,
    importance: Mapping[str, Tensor],
    replay: ReplayBuffer,
    metrics: Mapping[str, Any] | None = None,
) -> tuple[Path, str]:
    """Write ``chain/NNN-task`` and return it with the SHA-256 of its manifest.

    Raises: Conflict if it is there already; ChainMismatch if nothing is tracked; StorageFull.
    """
    if not _TASK.fullmatch(facts.task):
        raise InvalidConfig(f"a task of a chain is named by lower-case letters, digits and hyphens; got {facts.task!r}")
    if not importance:
        raise ChainMismatch(f"task {facts.task!r} has no weight whose importance is known; it would protect nothing")
    final = chain / f"{facts.number:03d}-{facts.task}"
    if final.exists():
        raise Conflict(f"the chain has a task {final.name!r} already; links are never overwritten, take another name")
    temporary = chain / f"{final.name}.tmp"
    with full_disk_is_named(final):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            save_file({name: _plain(value) for name, value in importance.items()}, temporary / _FISHER)
            write_durably(temporary / _METRICS, to_json(dict(metrics or {}), indent=1))
            if replay.examples:
                _write_replay(temporary, replay)
            facts_json = {"schema": SCHEMA} | asdict(facts)
            sha256 = write_manifest(temporary, facts=facts_json, suffixes=_SUFFIXES)
            temporary.replace(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_directory(chain)
    return final, sha256


def load_link(link: Path, sha256: str, *, base_sha256: str, tokenizer_sha256: str) -> Link:
    """Verify every byte and that the link is of this base and tokenizer.

    Raises: DamagedChain; ChainMismatch for another base, tokenizer or schema, or if nothing is tracked.
    """
    erased = _erasure(link).exists()
    try:
        gone = {_REPLAY, _TARGETS} if erased else set()
        verify_manifest(link, sha256, may_be_absent=gone, whose="chain", remedy="go on from another model of the chain")
        facts = _facts(link)
        importance = load_file(link / _FISHER)
        metrics = json.loads((link / _METRICS).read_bytes())
        replay = _read_replay(link)
    except ChainMismatch:
        raise
    except (AppException, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedChain(str(error)) from error
    for what, expected, found in (
        ("base model", facts.base_sha256, base_sha256),
        ("tokenizer", facts.tokenizer_sha256, tokenizer_sha256),
    ):
        if expected != found:
            raise ChainMismatch(
                f"task {facts.task!r} was learned with another {what} (sha256 {expected[:12]}..., this one "
                f"{found[:12]}...); a chain keeps one {what} throughout"
            )
    if not importance:
        raise ChainMismatch(f"task {facts.task!r} tracks no weight; it would protect nothing")
    return Link(facts, sha256, importance, replay, erased, metrics)


def lineage(link: Path, sha256: str) -> list[tuple[Path, str]]:
    """Return the links from the first task to this one, each verified to be the one that the next was built on.

    Raises: DamagedChain if one is missing or was changed.
    """
    found: list[tuple[Path, str]] = []
    wanted: tuple[Path, str] | None = (link, sha256)
    while wanted is not None:
        path, expected = wanted
        if _manifest_sha256(path) != expected:
            raise DamagedChain(f"the manifest of {path.name!r} is gone or was changed; the chain cannot be followed")
        found.append(wanted)
        facts = _facts(path)
        wanted = None if facts.parent is None else (_parent_of(path, facts), facts.parent)
    return found[::-1]


def erase_replay(link: Path) -> int:
    """Delete the examples kept with a task, for good, and leave a note that they were; return the bytes freed."""
    files = [link / _REPLAY, link / _TARGETS]
    freed = sum(path.stat().st_size for path in files if path.exists())
    write_durably(_erasure(link), to_json({"erased": [path.name for path in files]}))
    for path in files:
        path.unlink(missing_ok=True)
    sync_directory(link)
    return freed


def _parent_of(link: Path, facts: LinkFacts) -> Path:
    for path in sorted(link.parent.glob(f"{facts.number - 1:03d}-*")):
        if path.is_dir() and _manifest_sha256(path) == facts.parent:
            return path
    raise DamagedChain(
        f"the task before {link.name!r} (manifest {str(facts.parent)[:12]}...) is gone or was changed; "
        "the chain cannot be followed"
    )


def _manifest_sha256(link: Path) -> str | None:
    try:
        return hashlib.sha256((link / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None


def _facts(link: Path) -> LinkFacts:
    """Raises: ChainMismatch for a schema of another version."""
    content = json.loads((link / MANIFEST).read_bytes())
    fields = content["facts"]
    if fields["schema"] != SCHEMA:
        raise ChainMismatch(f"{link.name!r} has schema {fields['schema']!r}; this version reads {SCHEMA}")
    fields = {name: fields[name] for name in LinkFacts.__slots__}
    return replace(LinkFacts(**fields), scores=tuple(fields["scores"]))


def _erasure(link: Path) -> Path:
    return link.with_name(f"{link.name}.erased.json")


def _write_replay(link: Path, replay: ReplayBuffer) -> None:
    lines = []
    for example in replay.examples:
        soft = 0 if example.targets is None else example.labels
        fields = {"task": example.task, "ids": example.input_ids, "labels": example.label_spans, "soft": soft}
        lines.append(to_json(fields) + b"\n")
    write_durably(link / _REPLAY, b"".join(lines))
    targets = [example.targets for example in replay.examples if example.targets is not None]
    if targets:
        whole = joined(targets)
        tensors = {"tokens": whole.tokens, "log_probabilities": whole.log_probabilities, "log_rest": whole.log_rest}
        save_file({name: _plain(value) for name, value in tensors.items()}, link / _TARGETS)


def _read_replay(link: Path) -> ReplayBuffer:
    if not (link / _REPLAY).exists():
        return ReplayBuffer()
    whole = SoftTargets(**load_file(link / _TARGETS)) if (link / _TARGETS).exists() else None
    examples, place = [], 0
    for line in (link / _REPLAY).read_bytes().splitlines():
        fields = json.loads(line)
        targets = None
        if fields["soft"]:
            assert whole is not None, "soft targets are written with their rows"
            targets = whole.slice(place, place + fields["soft"])
            place += fields["soft"]
        spans = tuple((start, end) for start, end in fields["labels"])
        examples.append(ReplayExample(fields["task"], tuple(fields["ids"]), spans, targets))
    return ReplayBuffer(tuple(examples))


def _plain(tensor: Tensor) -> Tensor:
    plain = tensor.detach().cpu().contiguous()
    return plain.to(torch.float32) if plain.dtype is torch.float64 else plain
