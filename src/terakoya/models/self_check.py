"""Whether an exported model is the one it was made of: at places of many texts both say what comes next, each in its
own engine. Knows texts and logits, nothing of formats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn

from terakoya.exceptions import ModelLoadError
from terakoya.models.export_formats import ExportFormat

PROMPTS = 100
PLACES = 6
"""Of each prompt, spread over it."""
PROMPT_TOKENS = 48
TOP = 5
ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Place:
    """What one of the two thinks comes after a prompt: tokens with their log-probabilities, the likeliest first."""

    top: tuple[tuple[int, float], ...]


class Reader(Protocol):
    """One of the two."""

    def next_after(self, prompts: Sequence[Sequence[int]]) -> list[Place]: ...

    def stops_after(self, prompt: Sequence[int]) -> bool:
        """Whether it ends an answer here."""
        ...

    def tokenize(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Check:
    format: str
    prompts: int
    places: int
    top1_agreement: float
    least_agreement: float
    """What was to be reached."""
    largest_difference: float
    """Of the log-probabilities both give to one of the original's likeliest tokens."""
    tokenized_alike: int
    """Prompts that became the same tokens."""
    answers: int
    """That ended by themselves in the original."""
    stopped_alike: int
    """Of these, the ones that end at the same place."""

    @property
    def failures(self) -> list[str]:
        found = []
        if self.top1_agreement < self.least_agreement:
            found.append(
                f"the likeliest next token is the same at {self.top1_agreement:.1%} of {self.places} places, and "
                f"{self.least_agreement:.1%} are needed"
            )
        if self.tokenized_alike < self.prompts:
            found.append(f"{self.prompts - self.tokenized_alike} of {self.prompts} texts become other tokens")
        if self.stopped_alike < 0.9 * self.answers:
            found.append(f"{self.answers - self.stopped_alike} of {self.answers} answers do not end where they did")
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": not self.failures}


class TorchReader:
    """A module in memory."""

    def __init__(self, module: nn.Module, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._module = module
        self._tokenizer = tokenizer
        self._stops = stop_ids

    @torch.inference_mode()
    def next_after(self, prompts: Sequence[Sequence[int]]) -> list[Place]:
        return [self._place(prompt) for prompt in prompts]

    def stops_after(self, prompt: Sequence[int]) -> bool:
        with torch.inference_mode():
            return self._place(prompt).top[0][0] in self._stops

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _place(self, prompt: Sequence[int]) -> Place:
        logits = self._module(input_ids=torch.tensor([list(prompt)])).logits[0, -1].float()
        values, tokens = torch.log_softmax(logits, dim=-1).topk(TOP)
        return Place(tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def check(
    original: Reader,
    exported: Reader,
    *,
    format: ExportFormat,
    texts: Sequence[str],
    answered: Sequence[tuple[Sequence[int], Sequence[int]]],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Check:
    """Compare the two. ``answered``: prompts with the answers that the original ended by itself."""
    places = same = alike = 0
    largest = 0.0
    for done, text in enumerate(texts, start=1):
        ids = original.tokenize(text)
        alike += exported.tokenize(text) == ids
        ids = ids[:PROMPT_TOKENS]
        step = max(1, len(ids) // PLACES)
        prompts = [ids[:end] for end in range(step, len(ids) + 1, step)][-PLACES:]
        for wanted, found in zip(original.next_after(prompts), exported.next_after(prompts), strict=True):
            places += 1
            same += wanted.top[0][0] == found.top[0][0]
            theirs = dict(found.top)
            differences = [abs(value - theirs[token]) for token, value in wanted.top if token in theirs]
            largest = max([largest, *differences])
        progress(done, len(texts))
    stopped = sum(exported.stops_after([*prompt, *answer]) for prompt, answer in answered)
    return Check(
        format=format,
        prompts=len(texts),
        places=places,
        top1_agreement=same / max(1, places),
        least_agreement=format.least_agreement,
        largest_difference=round(largest, 5),
        tokenized_alike=alike,
        answers=len(answered),
        stopped_alike=stopped,
    )


def refuse_failed(result: Check, name: str) -> None:
    """Raises: ModelLoadError saying what of the export is not the original."""
    if result.failures:
        raise ModelLoadError(
            f"the export of {name!r} as {result.format} was opened again and is not the model it was made of: "
            f"{'; '.join(result.failures)}. It was not kept."
        )


def texts_of(passages: Sequence[str]) -> list[str]:
    """Return ``PROMPTS`` texts: the passages, then what follows each of their sentences, until there are enough."""
    texts = list(passages)
    for passage in passages:
        pieces = passage.replace("。", "。\n").replace(". ", ".\n").split("\n")
        texts += [rest for number in range(1, len(pieces)) if len(rest := " ".join(pieces[number:]).strip()) > 20]
    return texts[:PROMPTS]
