"""How one model's tokenizer writes a conversation as tokens: by its chat template, or plainly if it has none.
Training, evaluation and chat all write it here, so that they cannot differ. Knows neither rows nor labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from terakoya.domain.datasets import Message
from terakoya.exceptions import InvalidDataset, ModelLoadError, UnsafeArtifact

Conversation = Sequence[Message]


class ChatFormat(Protocol):
    """One way to write conversations. Text that looks like a control token is written as the text it is."""

    @property
    def end_token_id(self) -> int:
        """What ends an answer: learned with it, and where generation stops."""
        ...

    def prompts(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Return for each the tokens up to where the assistant's answer begins."""
        ...

    def wholes(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Return for each the tokens of all of it, the end token of its last answer included.

        Raises: InvalidDataset if the template refuses a conversation.
        """
        ...


def chat_format(tokenizer: Any) -> ChatFormat:
    """Return the format of a Transformers tokenizer.

    Raises: ModelLoadError if an answer would have no end, so that a model could never learn to stop.
    """
    return TemplateFormat.of(tokenizer) if tokenizer.chat_template else PlainFormat.of(tokenizer)


@dataclass(frozen=True, slots=True)
class TemplateFormat:
    """By the tokenizer's own Jinja template."""

    tokenizer: Any
    end_token_id: int

    @classmethod
    def of(cls, tokenizer: Any) -> TemplateFormat:
        """Find the end token by asking: it is the last special token after a short answer."""
        question, answer = Message("user", "1"), Message("assistant", "2")
        format = cls(tokenizer, -1)
        prompt, whole = format.prompts([[question]])[0], format.wholes([[question, answer]])[0]
        special = set(tokenizer.all_special_ids) | {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        ends = [token for token in whole[len(prompt) :] if token in special]
        if not ends:
            raise ModelLoadError(
                "the chat template ends an answer without a special token, so a model would never learn to stop; "
                "a template that writes the end-of-sequence token after an answer would work"
            )
        return cls(tokenizer, ends[-1])

    def prompts(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        return self._apply(conversations, add_generation_prompt=True)

    def wholes(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        return self._apply(conversations, add_generation_prompt=False)

    def _apply(self, conversations: Sequence[Conversation], *, add_generation_prompt: bool) -> list[list[int]]:
        plain = [[{"role": part.role, "content": part.content} for part in messages] for messages in conversations]
        try:
            ids: list[list[int]] = self.tokenizer.apply_chat_template(
                plain, add_generation_prompt=add_generation_prompt, return_dict=False, sanitize_control_tokens=True
            )
        except SecurityError as error:
            raise UnsafeArtifact(f"the model's chat template reaches for what a template may not: {error}") from error
        except TemplateError as error:
            raise InvalidDataset(f"the model's chat template refuses it: {error}") from error
        return ids


@dataclass(frozen=True, slots=True)
class PlainFormat:
    """For a model without a template: each message, then a newline; the end-of-sequence token after the answer."""

    tokenizer: Any
    end_token_id: int

    @classmethod
    def of(cls, tokenizer: Any) -> PlainFormat:
        if tokenizer.eos_token_id is None:
            raise ModelLoadError(
                "the tokenizer has neither a chat template nor an end-of-sequence token, so a model would never "
                "learn to stop; a tokenizer_config.json that names an eos_token would work"
            )
        return cls(tokenizer, tokenizer.eos_token_id)

    def prompts(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        return self._encode(["".join(message.content + "\n" for message in messages) for messages in conversations])

    def wholes(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        texts = ["\n".join(message.content for message in messages) for messages in conversations]
        return [[*ids, self.end_token_id] for ids in self._encode(texts)]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Return ids with whatever the tokenizer puts before a text, and without an end it may put after it."""
        rows: list[list[int]] = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        return [ids[:-1] if ids and ids[-1] == self.end_token_id else ids for ids in rows]
