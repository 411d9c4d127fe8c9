"""Earlier rows where none were kept: the model that learned those tasks writes some itself, before it learns the next.
Knows the chat format and how to generate; what the rows are used for is ``chaining.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terakoya.data.chat_template import chat_format
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.datasets import Example, Message
from terakoya.exceptions import InvalidConfig
from terakoya.models.evaluating import evaluating
from terakoya.models.generation import generate_batch, stop_ids_of
from terakoya.models.label_forward import LabelForward
from terakoya.training.continual.chain import read_replay, write_replay
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample
from terakoya.training.continual.replayed import as_row
from terakoya.training.continual.self_replay import self_generated
from terakoya.training.continual.soft_targets import SoftTargets, joined, soft_targets
from terakoya.training.label_parts import label_parts
from terakoya.training.objectives.encodings import Encoding

GENERATED = "generated-rows"
"""Names their task: which of the earlier ones a row is of, nobody knows."""
LIKE_ROWS = 256
"""Of the task to come, looked at for how long questions and answers are."""
_AT_ONCE = 16
_MOST_TOKENS = 512
"""Of a question, and of an answer."""


@dataclass(slots=True)
class Writer:
    """Writes rows like those of the task to come in form and length: what they say comes from the model alone."""

    module: nn.Module
    tokenizer: Any
    encoding: Encoding
    autocast: Callable[[], AbstractContextManager[Any]]
    like: Sequence[EncodedExample]
    """Rows whose lengths bound what is written."""
    seed: int
    tick: Callable[[int, int], None]
    rounds: int = 0

    def rows(self, count: int, *, top_k: int, kept_in: Path) -> ReplayBuffer:
        """Return ``count`` rows with what the model says of them; a resumed run reads those of its first attempt.

        Raises: TrainingError if the model only repeats itself or never ends; InvalidConfig without a token to begin.
        """
        if kept_in.is_dir():
            return read_replay(kept_in)
        forward: LabelForward | None = None

        @torch.no_grad()
        def said_of(example: ReplayExample) -> SoftTargets:
            nonlocal forward
            row = as_row(example)
            forward = forward or LabelForward.choose(self.module, [row])
            parts = [forward.logits([part]) for part in label_parts(row)]
            return joined([soft_targets(logits, min(top_k, logits.shape[-1])) for logits in parts])

        with evaluating(self.module), self.autocast():
            buffer = self_generated(count, lambda missing: self._write(missing, count), said_of)
        aside = kept_in.with_name(f"{kept_in.name}.tmp")
        aside.mkdir(exist_ok=True)
        write_replay(aside, buffer)
        aside.replace(kept_in)
        return buffer

    def _write(self, missing: int, count: int) -> list[ReplayExample]:
        written: list[ReplayExample] = []
        for start in range(0, missing, _AT_ONCE):
            self.tick(count - missing + start, count)
            self.rounds += 1
            number = min(_AT_ONCE, missing - start)
            examples = list(self._conversations(number) if self.encoding.asks else self._texts(number))
            rows = self.encoding.train(examples, self.tokenizer, length=_MOST_TOKENS).examples if examples else []
            written += [ReplayExample(GENERATED, tuple(row.input_ids), tuple(row.label_spans)) for row in rows]
        return written

    def _conversations(self, number: int) -> Iterator[Example]:
        """The model goes on from where a person would speak, then answers that."""
        format = chat_format(self.tokenizer)
        stops = stop_ids_of(self.module, self.tokenizer) | {format.end_token_id}
        longest = max(len(row.prompt_ids) for row in self.like)
        questions = [
            text.splitlines()[0] if not self.tokenizer.chat_template else text
            for text in self._sampled([self._opening()] * number, longest, stops, temperature=1.0)
        ]
        if not questions:
            return
        prompts = format.prompts([[Message("user", question)] for question in questions])
        longest = max(len(row.answer_ids) for row in self.like)
        answers = generate_batch(
            self.module,
            self.tokenizer,
            prompts,
            max_new_tokens=min(2 * longest, _MOST_TOKENS),
            seed=self._seed(),
            stop_ids=stops,
        )
        for place, (question, ids) in enumerate(zip(questions, answers, strict=True), start=1):
            answer = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
            if answer and len(ids) < min(2 * longest, _MOST_TOKENS):  # one that did not end teaches not to end
                yield Example(place, (Message("user", question), Message("assistant", answer)))

    def _texts(self, number: int) -> Iterator[Example]:
        stops = stop_ids_of(self.module, self.tokenizer)
        longest = max(len(row.input_ids) for row in self.like)
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        if start is None:
            raise InvalidConfig("this model's tokenizer has no token a text begins with, so it cannot write one")
        texts = self._sampled([[start]] * number, longest, stops, temperature=1.0)
        for place, text in enumerate(texts, start=1):
            yield Example(place, (), text=text)

    def _sampled(
        self, prompts: Sequence[Sequence[int]], longest: int, stops: frozenset[int], *, temperature: float
    ) -> list[str]:
        """Those that came to an end within ``longest`` tokens, or were cut there, and are not empty."""
        found = generate_batch(
            self.module,
            self.tokenizer,
            prompts,
            max_new_tokens=min(longest, _MOST_TOKENS),
            temperature=temperature,
            seed=self._seed(),
            stop_ids=stops,
        )
        texts = (self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found)
        return [text for text in texts if text]

    def _opening(self) -> list[int]:
        """The tokens before a person's words. Raises: InvalidConfig if there are none."""
        one, other = chat_format(self.tokenizer).prompts([[Message("user", "a")], [Message("user", "0 b")]])
        opening: list[int] = []
        for first, second in zip(one, other, strict=False):
            if first != second:
                break
            opening.append(first)
        if not opening and self.tokenizer.eos_token_id is not None:
            opening = [self.tokenizer.eos_token_id]
        if not opening:
            raise InvalidConfig("this model's chat format begins with nothing, so it cannot begin a question itself")
        return opening

    def _seed(self) -> int:
        return self.seed * 1_000_003 + self.rounds
