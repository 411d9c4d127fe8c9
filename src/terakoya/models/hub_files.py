"""Which of a repository's files make a model: its weights in one safe form, its configuration, tokenizer, chat template
and licence. Everything else stays where it is. Knows names only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from terakoya.domain.names import did_you_mean
from terakoya.exceptions import InvalidConfig, ModelLoadError, UnsafeArtifact
from terakoya.models.hub import HubFile, HubRepository

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ABOUT = frozenset({"README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt"})
_OPENED = frozenset(
    {
        *("config.json", "generation_config.json", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"),
        *("chat_template.jinja", "chat_template.json", ADAPTER_CONFIG),
    }
)
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def choose_files(repository: HubRepository, wanted: str | None = None) -> list[HubFile]:
    """Return the files to fetch, texts first, so that they are checked before gigabytes come in.

    ``wanted``: the GGUF file to take, where a repository has several.
    Raises: InvalidConfig naming the GGUF files there are; UnsafeArtifact if all weights are pickles; ModelLoadError if
    there are none, or not all.
    """
    files = {file.name: file for file in repository.files if "/" not in file.name}
    if wanted is not None:
        return [*_named(files, _ABOUT), _wanted(repository, files, wanted)]
    weights = _safetensors(repository, files)
    if weights:
        opened = _OPENED if _is_adapter(files) else _OPENED - {ADAPTER_CONFIG}  # left behind by who merged it
        return [*_named(files, opened | _ABOUT), *weights]
    ggufs = [file for name, file in files.items() if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return [*_named(files, _ABOUT), *ggufs]
    if ggufs:
        names = ", ".join(repr(file.name) for file in ggufs[:20])
        raise InvalidConfig(
            f"{repository.name!r} has {len(ggufs)} GGUF files; name one, as in "
            f"'hf:{repository.name}:{ggufs[0].name}'; there are {names}"
        )
    pickles = [name for name in files if PurePosixPath(name).suffix in _PICKLES]
    if pickles:
        raise UnsafeArtifact(
            f"{repository.name!r} has its weights only as pickles ({pickles[0]!r}), which run code when they are "
            "opened; ask its authors for safetensors, or take a repository that has them"
        )
    raise ModelLoadError(f"{repository.name!r} has no weights that can be used: no safetensors and no GGUF file")


def _safetensors(repository: HubRepository, files: dict[str, HubFile]) -> list[HubFile]:
    if _is_adapter(files):
        return [files[ADAPTER_WEIGHTS]]
    if "model.safetensors" in files:
        return [files["model.safetensors"]]
    shards = {match[1]: (match[2], file) for name, file in files.items() if (match := _SHARD.fullmatch(name))}
    if not shards:
        return []
    totals = {total for total, _ in shards.values()}
    expected = {f"{number:05}" for number in range(1, int(max(totals)) + 1)}
    if len(totals) != 1 or set(shards) != expected:
        missing = ", ".join(sorted(expected - set(shards))[:5])
        raise ModelLoadError(f"{repository.name!r} lacks a part of its weights: {missing} of {max(totals)}")
    return [file for _, (_, file) in sorted(shards.items())]


def _is_adapter(files: dict[str, HubFile]) -> bool:
    """A base's config.json beside it changes nothing; a whole model's weights do."""
    is_whole = "model.safetensors" in files or any(map(_SHARD.fullmatch, files))
    return not is_whole and {ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= files.keys()


def _wanted(repository: HubRepository, files: dict[str, HubFile], name: str) -> HubFile:
    ggufs = [known for known in files if known.endswith(".gguf")]
    if name not in ggufs:
        raise InvalidConfig(f"{repository.name!r} has no GGUF file {name!r}{did_you_mean(name, ggufs)}")
    return files[name]


def _named(files: dict[str, HubFile], names: frozenset[str]) -> Sequence[HubFile]:
    return [file for name, file in sorted(files.items()) if name in names]
