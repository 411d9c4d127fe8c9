"""The rows of tokens that an example becomes: answers, windows of text, or pairs. A plan asks this without torch, so
it knows tokenizers and no models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from terakoya.data.preferences import encode_pairs
from terakoya.data.text_windows import encode_documents
from terakoya.data.tokenization import EncodedSet, RowSink, encode_examples
from terakoya.domain.datasets import Example

WINDOW_TOKENS = 1024
"""Longer windows cost attention by their square and show a small model little more."""
Progress = Callable[[int], None]
"""Hears how many examples are done."""


class Encoding(ABC):
    rows_per_example: ClassVar[int] = 1
    asks: ClassVar[bool] = True
    """Whether its held-out rows are prompts with answers, rather than running text."""
    cuts_by_length: ClassVar[bool] = False
    """Whether ``length`` decides where rows end, rather than only which are too long."""

    @abstractmethod
    def train(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        *,
        length: int,
        progress: Progress | None = None,
        into: RowSink | None = None,
    ) -> EncodedSet:
        """Return the rows to train on, ``rows_per_example`` for each example, one after the other.

        ``length``: the most tokens a row may have. Longer rows are the caller's to refuse. Rows go ``into`` a sink if
        one is given.
        """

    def heldout(
        self, examples: Sequence[Example], tokenizer: Any, *, length: int, progress: Progress | None = None
    ) -> EncodedSet:
        """Return the rows to be judged by, by default the same as those to train on."""
        return self.train(examples, tokenizer, length=length, progress=progress)

    def limit(self, max_length: int | None, context: int) -> int:
        """Return the most tokens a row may have under a model that knows ``context``."""
        return context if max_length is None else min(max_length, context)


class Answers(Encoding):
    """Conversations; of preference data those with the better answers."""

    def train(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        *,
        length: int,
        progress: Progress | None = None,
        into: RowSink | None = None,
    ) -> EncodedSet:
        return encode_examples(examples, tokenizer, join_answers=True, progress=progress, into=into)

    def heldout(
        self, examples: Sequence[Example], tokenizer: Any, *, length: int, progress: Progress | None = None
    ) -> EncodedSet:
        """One row an answer, so that each can be asked for."""
        return encode_examples(examples, tokenizer, progress=progress)


class Documents(Encoding):
    asks: ClassVar[bool] = False
    cuts_by_length: ClassVar[bool] = True

    def train(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        *,
        length: int,
        progress: Progress | None = None,
        into: RowSink | None = None,
    ) -> EncodedSet:
        return encode_documents(examples, tokenizer, window=length, progress=progress, into=into)

    def limit(self, max_length: int | None, context: int) -> int:
        return min(max_length or WINDOW_TOKENS, context)


class Pairs(Encoding):
    """Of each pair the better answer, then the worse one."""

    rows_per_example: ClassVar[int] = 2

    def train(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        *,
        length: int,
        progress: Progress | None = None,
        into: RowSink | None = None,
    ) -> EncodedSet:
        return encode_pairs(examples, tokenizer, progress=progress, into=into)


ANSWERS, DOCUMENTS, PAIRS = Answers(), Documents(), Pairs()
