"""Looks at a model folder before any library opens it: which files may be there, whether they are what their names
say, and whether a configuration tries to run code. Knows nothing of torch.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig, ModelLoadError, UnsafeArtifact
from terakoya.models.gguf_header import read_gguf_header
from terakoya.models.safetensors_header import read_safetensors_header

MANIFEST = "manifest.json"
EMBEDDER_FILE = "embedder.json"
"""Makes a folder an embedder; ``embedder_config.py`` has its fields."""
WEIGHT_SUFFIXES = frozenset({".safetensors", ".gguf"})
TEXT_LIMITS_BYTES = {
    ".json": 64 << 20,  # tokenizer.json of the largest vocabularies has about 35 MB
    ".txt": 64 << 20,  # merges and vocabularies
    ".jinja": 128 << 10,  # the longest templates in use have about 20 kB
    ".md": 4 << 20,
}
ALLOWED_SUFFIXES = frozenset({*WEIGHT_SUFFIXES, *TEXT_LIMITS_BYTES, ".model"})
ALLOWED_NAMES = frozenset({"LICENSE", "NOTICE", "Modelfile"})
MAX_TEMPLATE_CHARS = 128 << 10
MAX_FILES = 1000
_SMALL_JSON_BYTES = 4 << 20
_LARGE_JSON = frozenset({"tokenizer.json", "vocab.json"})
_MAX_DEPTH = 64
_HOSTILE_KEYS = frozenset(
    {
        "auto_map",  # names Python files to import
        "auto_mapping",  # PEFT: names a library to import
        "trust_remote_code",
        "custom_pipelines",
        "custom_generate",
        "attn_implementation",  # may name kernels to download
        "experts_implementation",
        "parent_library",
    }
)
"""Refused at any depth of any JSON file, with leading underscores or an ``_internal`` ending too."""
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive, as PyTorch writes pickles",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "a numpy file, which may hold pickles",
    b"\x89HDF": "an HDF5 file",
    **{bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)},
}


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What the files of a checked folder say without opening a tensor."""

    loader_type: str
    architecture: str
    """"" for an adapter: its base has one."""
    parameters: int


def check_folder(path: Path) -> None:
    """Refuse a folder that holds anything but weights and text, or whose configuration could run code.

    Raises: UnsafeArtifact naming the file; ModelLoadError if there is no folder.
    """
    if path.is_symlink() or not path.is_dir():
        raise ModelLoadError(f"there is no model folder {path.name!r}")
    for count, file in enumerate(_files(path), start=1):
        if count > MAX_FILES:
            raise UnsafeArtifact(f"the model folder {path.name!r} has more than {MAX_FILES} files")
        check_file(file)


def check_file(path: Path) -> None:
    """Check one regular file by its name and its bytes."""
    if path.suffix not in ALLOWED_SUFFIXES and path.name not in ALLOWED_NAMES:
        raise UnsafeArtifact(
            f"{path.name!r} may not be in a model folder; allowed are {', '.join(sorted(ALLOWED_SUFFIXES))}"
        )
    with path.open("rb") as file:
        start = file.read(16)
    for magic, meaning in _FOREIGN_MAGIC.items():
        if start.startswith(magic) and path.suffix != ".safetensors":
            raise UnsafeArtifact(f"{path.name!r} is {meaning}; only safetensors, GGUF and text are opened")
    if path.suffix == ".safetensors":
        read_safetensors_header(path)
    elif path.suffix == ".gguf":
        read_gguf_header(path)
    elif path.suffix != ".model":
        _check_text(path)


def read_json(path: Path) -> Any:
    """Parse a JSON file of a model folder, bounded in size and depth. Raises: UnsafeArtifact."""
    limit = TEXT_LIMITS_BYTES[".json"] if path.name in _LARGE_JSON else _SMALL_JSON_BYTES
    if path.stat().st_size > limit:
        raise UnsafeArtifact(f"{path.name!r} has {path.stat().st_size} bytes; at most {limit} are read")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnsafeArtifact(f"{path.name!r} is not valid JSON ({type(error).__name__})") from error


def loader_type_of(path: Path) -> str:
    """Return which loader opens the folder, by what lies in it. Raises: ModelLoadError."""
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if "adapter_config.json" in names:
        return "lora"
    if "config.json" in names and any(name.endswith(".safetensors") for name in names):
        return "embedder" if EMBEDDER_FILE in names else "reranker" if _classifies(path) else "full"
    if any(name.endswith(".gguf") for name in names):
        return "gguf"
    raise ModelLoadError(
        f"the folder {path.name!r} is no model: it needs config.json with safetensors, a PEFT adapter "
        "(adapter_config.json) or a .gguf file"
    )


def _classifies(path: Path) -> bool:
    """Tell whether the folder's configuration names a head that classifies: what a cross-encoder is stored as."""
    config = read_json(path / "config.json")
    named = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(named, list) and any(str(name).endswith("ForSequenceClassification") for name in named)


def check_unquantised(name: str, config: Any) -> None:
    """Raises: ModelLoadError if the weights that the configuration is of are stored quantised."""
    if isinstance(config, dict) and "quantization_config" in config:
        stated = config["quantization_config"]
        method = stated.get("quant_method", "unknown") if isinstance(stated, dict) else "unknown"
        raise ModelLoadError(
            f"the model {name!r} is stored quantised ({method!r}); "
            "import one stored as float32, bfloat16 or float16, or as GGUF"
        )


def check_mergeable(artifact: ModelArtifact) -> None:
    """Raises: InvalidConfig unless it is an adapter on weights that are not quantised."""
    if artifact.base is None:
        raise InvalidConfig(f"{artifact.info.name!r} is a whole model: there is nothing to merge; an adapter can be")
    base = artifact.root
    if loader_type_of(base.path) == "gguf":
        raise InvalidConfig(f"the base {base.info.name!r} is a GGUF file; adapters are merged into safetensors only")
    if "quantization_config" in read_json(base.path / "config.json"):
        raise InvalidConfig(
            f"the weights of {base.info.name!r} are quantised; adapters are merged into whole ones only"
        )


def describe_folder(path: Path) -> FolderFacts:
    """Read loader type, architecture and number of parameters from headers alone."""
    kind = loader_type_of(path)
    if kind == "gguf":
        facts = read_gguf_header(gguf_file_of(path))
        return FolderFacts(kind, str(facts.get("general.architecture", "")), 0)
    architecture = "" if kind == "lora" else str(read_json(path / "config.json").get("model_type", ""))
    return FolderFacts(kind, architecture, count_parameters(path))


def count_parameters(path: Path) -> int:
    """Return how many numbers the folder's safetensors hold; tied weights are stored, and so counted, once."""
    return sum(
        entry.elements
        for file in sorted(path.glob("*.safetensors"))
        for entry in read_safetensors_header(file).values()
    )


def gguf_file_of(path: Path) -> Path:
    """Raises: ModelLoadError unless there is exactly one."""
    files = sorted(path.glob("*.gguf"))
    if len(files) != 1:
        raise ModelLoadError(f"the folder {path.name!r} has {len(files)} .gguf files; exactly one is needed")
    return files[0]


def _files(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            mode = entry.stat(follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a special file"
                raise UnsafeArtifact(f"{entry.name!r} is {kind}; a model folder holds plain files only")
            yield Path(entry.path)


def _check_text(path: Path) -> None:
    limit = TEXT_LIMITS_BYTES.get(path.suffix, TEXT_LIMITS_BYTES[".md"])
    if path.stat().st_size > limit:
        raise UnsafeArtifact(f"{path.name!r} has {path.stat().st_size} bytes; at most {limit} are read")
    if path.suffix == ".json":
        _check_json(path.name, read_json(path))
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnsafeArtifact(f"{path.name!r} is not UTF-8 text") from error
    if "\0" in text:
        raise UnsafeArtifact(f"{path.name!r} is not text: it holds NUL characters")


def _check_json(name: str, root: Any) -> None:
    """Walk without recursion: depth is the sender's choice."""
    waiting = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise UnsafeArtifact(f"{name!r} is nested more than {_MAX_DEPTH} deep")
        if isinstance(value, dict):
            for key, inner in value.items():
                _check_entry(name, key, inner)
                waiting.append((inner, depth + 1))
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value if isinstance(inner, dict | list))


def _check_entry(name: str, key: str, value: Any) -> None:
    # A vocabulary may hold any word as a key; its values are numbers.
    in_vocabulary = name in _LARGE_JSON and type(value) is int
    plain = key.lower().strip("_").removesuffix("_internal").rstrip("_")
    if plain in _HOSTILE_KEYS and value is not None and value is not False and not in_vocabulary:
        raise UnsafeArtifact(f"{name!r} has {key!r}, by which a model could run its own code; it is refused")
    if key == "chat_template" and len(json.dumps(value)) > MAX_TEMPLATE_CHARS:
        raise UnsafeArtifact(f"the chat template in {name!r} is longer than {MAX_TEMPLATE_CHARS} characters")
