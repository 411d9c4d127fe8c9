"""A link's folder as anyone may read it, without torch: what its manifest says, whether every byte is as written, how
it hangs together with the links before it, and the erasing of what it keeps of people's data.

    chain/NNN-task/{manifest.json, fisher.safetensors, metrics.json, replay.jsonl, replay_logits.safetensors,
                    heldout.jsonl}

Tensors and rows in it are ``chain.py``'s.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from terakoya.storage.files import sync_directory, write_durably
from terakoya.storage.json_text import to_json
from terakoya.storage.manifest import MANIFEST, Damage, damages
from terakoya.training.continual.errors import ChainMismatch, DamagedChain

SCHEMA = 1
FISHER, METRICS = "fisher.safetensors", "metrics.json"
REPLAY, TARGETS, HELDOUT = "replay.jsonl", "replay_logits.safetensors", "heldout.jsonl"
KEPT_DATA = frozenset({REPLAY, TARGETS, HELDOUT})
"""What a link has of people's rows: it may be erased, nothing else may."""
KeptRow = tuple[int, tuple[tuple[int, int], ...]]
"""Tokens of a kept row, and where its labels are."""
_LINK = re.compile(r"[0-9]{3,}-[a-z0-9][a-z0-9-]{0,62}")


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
class KeptRows:
    """What a link has of people's data, by its files."""

    replay_rows: int
    soft_rows: int
    """Of them with what the model said of every label."""
    heldout_rows: int
    size_bytes: int
    erased: bool

    @property
    def is_empty(self) -> bool:
        return self.replay_rows + self.heldout_rows == 0


def links_in(chain: Path) -> list[Path]:
    """Return the folders of a chain's links, by number and name; no temporary ones, and none if the chain is gone."""
    try:
        found = [path for path in chain.iterdir() if _LINK.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda path: (int(path.name.partition("-")[0]), path.name))


def link_facts(link: Path) -> LinkFacts:
    """Raises: DamagedChain if its manifest cannot be read; ChainMismatch for a schema of another version."""
    try:
        fields = json.loads((link / MANIFEST).read_bytes())["facts"]
        schema = fields["schema"]
        if schema == SCHEMA:
            fields = {name: fields[name] for name in LinkFacts.__slots__}
            return replace(LinkFacts(**fields), scores=tuple(fields["scores"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedChain(f"the manifest of {link.name!r} is gone or was changed; it cannot be read") from error
    raise ChainMismatch(f"{link.name!r} has schema {schema!r}; this version reads {SCHEMA}")


def manifest_sha256(link: Path) -> str | None:
    """None if it has none."""
    try:
        return hashlib.sha256((link / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None


def lineage(link: Path, sha256: str) -> list[tuple[Path, str]]:
    """Return the links from the first task to this one, each verified to be the one that the next was built on.

    Raises: DamagedChain if one is missing or was changed.
    """
    found: list[tuple[Path, str]] = []
    wanted: tuple[Path, str] | None = (link, sha256)
    while wanted is not None:
        path, expected = wanted
        if manifest_sha256(path) != expected:
            raise DamagedChain(f"the manifest of {path.name!r} is gone or was changed; the chain cannot be followed")
        found.append(wanted)
        facts = link_facts(path)
        wanted = None if facts.parent is None else (_parent_of(path, facts), facts.parent)
    return found[::-1]


def damages_of(link: Path, sha256: str) -> list[Damage]:
    """Hash every file anew and return what is not as it was written; erased rows are no damage."""
    return damages(link, sha256, may_be_absent=erased_names(link))


def metrics_of(link: Path) -> dict[str, Any]:
    """Raises: DamagedChain if they cannot be read."""
    try:
        found: dict[str, Any] = json.loads((link / METRICS).read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedChain(f"{METRICS!r} of {link.name!r} is gone or was changed") from error
    return found


def kept_rows(link: Path) -> KeptRows:
    """Count what is there, once as long as the files are the same. Raises: DamagedChain if a row cannot be read."""
    files = (link / REPLAY, link / TARGETS, link / HELDOUT, _erasure(link))
    return _counted(link, tuple(map(_stamp, files)))


@lru_cache(maxsize=1024)
def _counted(link: Path, _: tuple[tuple[int, int] | None, ...]) -> KeptRows:
    try:
        replay = [bool(json.loads(line)["soft"]) for line in _lines(link / REPLAY)]
        heldout = sum("ids" in json.loads(line) for line in _lines(link / HELDOUT))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedChain(f"the rows kept in {link.name!r} were changed: one cannot be read") from error
    size = sum((link / name).stat().st_size for name in KEPT_DATA if (link / name).exists())
    return KeptRows(len(replay), sum(replay), heldout, size, bool(erased_names(link)))


def kept_lengths(link: Path) -> list[KeptRow]:
    """Return each row kept to be shown again, without its tokens. Raises: DamagedChain if one cannot be read."""
    try:
        rows = [json.loads(line) for line in _lines(link / REPLAY)]
        return [(len(row["ids"]), tuple((start, end) for start, end in row["labels"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedChain(f"the rows kept in {link.name!r} were changed: one cannot be read") from error


def erased_names(link: Path) -> frozenset[str]:
    """The files that were erased on purpose; never one that holds no rows."""
    try:
        return frozenset(json.loads(_erasure(link).read_bytes())["erased"]) & KEPT_DATA
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return frozenset()


def erase_kept(link: Path) -> int:
    """Delete the rows kept with a task, for good, and leave a note that they were; return the bytes freed."""
    files = sorted(link / name for name in KEPT_DATA)
    freed = sum(path.stat().st_size for path in files if path.exists())
    write_durably(_erasure(link), to_json({"erased": [path.name for path in files]}))
    for path in files:
        path.unlink(missing_ok=True)
    sync_directory(link)
    return freed


def notes_of(link: Path) -> list[Path]:
    """Files beside the folder that belong to it."""
    return [path for path in (_erasure(link),) if path.exists()]


def _parent_of(link: Path, facts: LinkFacts) -> Path:
    for path in sorted(link.parent.glob(f"{facts.number - 1:03d}-*")):
        if path.is_dir() and manifest_sha256(path) == facts.parent:
            return path
    raise DamagedChain(
        f"the task before {link.name!r} (manifest {str(facts.parent)[:12]}...) is gone or was changed; "
        "the chain cannot be followed"
    )


def _erasure(link: Path) -> Path:
    return link.with_name(f"{link.name}.erased.json")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
