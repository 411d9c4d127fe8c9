"""Writes text with a causal language model: one short loop over a key-value cache, for a batch whose rows begin
together (evaluation; those that come and go are ``row_batch``'s), and what turns tokens into text. Knows nothing of
chat templates, requests or threads.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
"""Tokens that end an answer in common chat formats, for models whose configuration names only the end of text."""


def stop_ids_of(module: nn.Module, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer: the model's own, the tokenizer's, and any end of turn it knows."""
    generation: Any = getattr(module, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    added = tokenizer.get_added_vocab()
    ids |= {added[token] for token in END_OF_TURN if token in added}
    return frozenset(number for number in ids if number is not None)


@torch.inference_mode()
def generate_batch(
    module: nn.Module,
    tokenizer: Any,
    prompts_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop_ids: Collection[int] | None = None,
) -> list[list[int]]:
    """Answer every prompt; an answer does not include the token that ended it.

    Finished rows leave the batch. At temperature 0 the likeliest token is taken, and a row's answer does not depend
    on its neighbours but for rounding.
    """
    if not prompts_ids:
        return []
    stops = stop_ids_of(module, tokenizer) if stop_ids is None else frozenset(stop_ids)
    answers: list[list[int]] = [[] for _ in prompts_ids]
    rows = list(range(len(prompts_ids)))  # rows[i]: which prompt the batch's row i answers
    device = next(module.parameters()).device
    decoder = _Decoder(module)
    sampler = _Sampler(temperature, seed, device)
    ids, mask = _left_padded(prompts_ids, device)  # [rows, longest]
    for _ in range(max_new_tokens):
        chosen = sampler.pick(decoder.next_logits(ids, mask))  # [rows]
        going_on = []
        for place, token in enumerate(chosen.tolist()):
            if token not in stops:
                answers[rows[place]].append(token)
                going_on.append(place)
        if not going_on:
            break
        if len(going_on) < len(rows):
            kept = torch.tensor(going_on, device=device)
            decoder.keep_rows(kept)
            chosen, mask = chosen[kept], mask[kept]
            rows = [rows[place] for place in going_on]
        ids = chosen.unsqueeze(1)  # [rows, 1]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return answers


class Detokenizer:
    """Turns tokens into text piece by piece; holds back bytes that do not yet make a whole character.

    Each piece is the difference between decoding a few tokens and decoding them with the new one, since a token's
    text depends on its neighbour (leading spaces) and a character may span several tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0
        """Where the tokens begin that are decoded for context; their text is out already, up to ``_done``."""
        self._done = 0

    def push(self, token: int) -> str:
        """Return the text that is certain now; "" while a character is incomplete."""
        self._ids.append(token)
        before, after = self._decode(self._context, self._done), self._decode(self._context, len(self._ids))
        if len(after) <= len(before) or after.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return after[len(before) :]

    def flush(self) -> str:
        """Return what is held back, incomplete characters as U+FFFD."""
        before, after = self._decode(self._context, self._done), self._decode(self._context, len(self._ids))
        self._context = self._done = len(self._ids)
        return after[len(before) :]

    def _decode(self, start: int, end: int) -> str:
        text = self._tokenizer.decode(
            self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)  # one sequence gives one text
        return text


class _Decoder:
    """The model with its cache: give it the new tokens, get the logits of the next."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        inner: Any = module
        plain = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
        accepted = inspect.signature(plain.forward).parameters
        self._cache = DynamicCache(config=plain.config)
        # Transformers 5.24 renamed the argument, model by model.
        self._options: dict[str, Any] = {"cache" if "cache" in accepted else "past_key_values": self._cache}
        if "logits_to_keep" in accepted:  # else the head scores every position of the prompt, for nothing
            self._options["logits_to_keep"] = 1

    def next_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids [rows, new], mask [rows, all so far] -> [rows, vocabulary], float32."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        self._options |= {"attention_mask": mask, "position_ids": positions}
        output = self._module(input_ids=ids, use_cache=True, **self._options)
        logits: Tensor = output.logits[:, -1]
        return logits.float()

    def keep_rows(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)


class _Sampler:
    def __init__(self, temperature: float, seed: int, device: torch.device) -> None:
        self._temperature = temperature
        self._generator = torch.Generator(device).manual_seed(seed)

    def pick(self, logits: Tensor) -> Tensor:
        """[rows, vocabulary] -> [rows]"""
        if self._temperature <= 0:
            return logits.argmax(dim=-1)
        probabilities = torch.softmax(logits / self._temperature, dim=-1)
        return torch.multinomial(probabilities, 1, generator=self._generator).squeeze(1)


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask [rows, longest]; all rows end at the right edge, where the next token is read."""
    longest = max(len(prompt) for prompt in prompts)
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
