"""The fixed prompts that a run answers while it trains: those asked for, else a few held-out rows. Knows how a
prompt becomes tokens, not when it is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terakoya.data.chat_template import chat_format
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.datasets import Message
from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.engine.evaluation_plan import spread

_ROWS = 2
_MOST_NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    ids: Sequence[int]
    text: str
    reference: str | None


@dataclass(frozen=True, slots=True)
class Sampling:
    prompts: Sequence[SamplePrompt]
    max_new_tokens: int
    is_asked_for: bool
    """Prompts that a person chose are answered every time, whatever it costs."""


def choose_samples(
    resolved: ResolvedTraining, heldout: Sequence[EncodedExample], tokenizer: Any, *, context: int
) -> Sampling:
    """Raises: InvalidConfig for a prompt that leaves no room for an answer."""
    asked = resolved.sample_prompts
    prompts = _asked(asked, tokenizer) if asked else _from_rows(heldout)
    longest = max((len(row.answer_ids) for row in heldout), default=_MOST_NEW_TOKENS)
    tokens = resolved.sample_tokens or min(longest + 8, _MOST_NEW_TOKENS)
    for number, prompt in enumerate(prompts, start=1):
        if len(prompt.ids) + tokens > context:
            raise InvalidConfig(
                f"sample prompt {number} has {len(prompt.ids):,} tokens and its answer may have {tokens}; the model "
                f"knows {context:,} positions at most: shorten it, or lower evaluation.sample_tokens"
            )
    return Sampling(prompts, tokens, is_asked_for=asked is not None)


def _asked(texts: Sequence[str], tokenizer: Any) -> list[SamplePrompt]:
    written = chat_format(tokenizer).prompts([(Message("user", text),) for text in texts])
    return [SamplePrompt(ids, text, None) for ids, text in zip(written, texts, strict=True)]


def _from_rows(heldout: Sequence[EncodedExample]) -> list[SamplePrompt]:
    rows = [heldout[index] for index in spread(len(heldout), _ROWS)] if heldout else []
    return [SamplePrompt(row.prompt_ids, row.prompt, row.answer) for row in rows]
