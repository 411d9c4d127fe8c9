"""A tokenizer.json as the metadata of a GGUF file. Knows byte-level BPE, the kind that Llama 3, SmolLM and Qwen have;
refuses others by name. Knows nothing of weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terakoya.exceptions import InvalidConfig
from terakoya.models.artifacts import read_json

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
"""llama.cpp's types of tokens."""
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {_LLAMA3_SPLIT: "llama-bpe", _QWEN2_SPLIT: "qwen2"}
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")


@dataclass(frozen=True, slots=True)
class GGUFTokenizer:
    scheme: str
    """How text is split before the merges, by llama.cpp's name."""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: dict[str, int]
    """bos, eos, pad, eot, where there is one."""
    adds_bos: bool
    chat_template: str | None


def read_gguf_tokenizer(folder: Path, *, vocabulary: int) -> GGUFTokenizer:
    """Return what a GGUF file says of the tokenizer in ``folder``, for a model with that many embeddings.

    Raises: InvalidConfig naming what llama.cpp would read differently.
    """
    saved = read_json(folder / "tokenizer.json")
    model = saved["model"]
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") or saved.get("normalizer") is not None:
        raise InvalidConfig(
            f"tokenizers of the type {model.get('type')!r} with normalizer {_type(saved.get('normalizer'))!r} are not "
            "written as GGUF here; byte-level BPE is"
        )
    tokens = ["" for _ in range(vocabulary)]
    types = [_UNUSED] * vocabulary
    for token, number in model["vocab"].items():
        tokens[number], types[number] = token, _NORMAL
    for added in saved["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    tokens = [token or f"[PAD{number}]" for number, token in enumerate(tokens)]
    config = read_json(folder / "tokenizer_config.json")
    ids = {name: tokens.index(text) for name in ("bos", "eos", "pad") if (text := _text(config.get(f"{name}_token")))}
    added = {entry["content"] for entry in saved["added_tokens"]}
    turn = next((token for token in _END_OF_TURN if token in added), None)
    if turn is not None:
        ids["eot"] = tokens.index(turn)
    return GGUFTokenizer(
        scheme=_scheme(saved["pre_tokenizer"]),
        tokens=tokens,
        types=types,
        # Without one, llama.cpp refuses the file. Where there is none, this pair becomes nothing in the vocabulary,
        # and what becomes nothing is taken byte by byte.
        merges=[_merge(pair) for pair in model["merges"]] or ["<|nothing|> <|nothing|>"],
        ids=ids,
        adds_bos=_adds_bos(saved.get("post_processor"), config),
        chat_template=_template(folder, config),
    )


def _scheme(rule: dict[str, Any] | None) -> str:
    parts = (rule or {}).get("pretokenizers") or [rule or {}]
    kinds = [part.get("type") for part in parts]
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and (name := _SPLITS.get(parts[0].get("pattern", {}).get("Regex", ""))):
        return name
    raise InvalidConfig(f"the tokenizer splits text in a way that llama.cpp has no name for here: {kinds!r}")


def _adds_bos(processor: dict[str, Any] | None, config: dict[str, Any]) -> bool:
    steps = (processor or {}).get("processors") or [processor or {}]
    written = any("SpecialToken" in part for step in steps for part in (step.get("single") or [])[:1])
    return bool(config.get("add_bos_token")) or written


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    return template if isinstance(template, str) else None


def _merge(pair: Any) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _type(part: Any) -> str | None:
    return part.get("type") if isinstance(part, dict) else None
