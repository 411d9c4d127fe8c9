"""A batch of texts that one module writes side by side: rows come and go between two steps. Knows the key-value cache,
nothing of requests, samplers or adapters.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_LEAST_ROOM = 64
"""Tokens that a cache has room for beyond those it holds, when it grows."""


class _Row(DynamicLayer):  # type: ignore[misc]  # Transformers ships no types
    """Keys and values of one layer in a buffer with room: a step writes one token instead of copying all."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.length = 0
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """[rows, heads, new, width] each -> all so far."""
        start, self.length = self.length, self.length + key_states.shape[2]
        if self._buffers is None or self._buffers[0].shape[2] < self.length:
            self._buffers = (self._grown(0, key_states, start), self._grown(1, value_states, start))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self.length] = states
        self.is_initialized = True
        self._look()
        return self.keys, self.values

    def join(self, other: _Row) -> None:
        """Take the rows of ``other`` in; all end at the same place, the shorter ones padded on the left."""
        if self._buffers is None or other._buffers is None:
            return  # a layer that reads another's keys and values
        longest = max(self.length, other.length)
        room = longest + max(_LEAST_ROOM, longest // 4)
        joined = []
        for mine, theirs in zip(self._buffers, other._buffers, strict=True):
            rows = mine.shape[0] + theirs.shape[0]
            buffer = mine.new_zeros(rows, mine.shape[1], room, mine.shape[3])
            buffer[: mine.shape[0], :, longest - self.length : longest] = mine[:, :, : self.length]
            buffer[mine.shape[0] :, :, longest - other.length : longest] = theirs[:, :, : other.length]
            joined.append(buffer)
        self._buffers = (joined[0], joined[1])
        self.length = longest
        self._look()

    def keep(self, rows: Tensor, cut: int) -> None:
        """Drop the other rows, and so many tokens on the left of all."""
        if self._buffers is None:
            return
        keys, values = (buffer[rows, :, cut:] for buffer in self._buffers)
        self._buffers = (keys, values)
        self.length -= cut
        self._look()

    def get_seq_length(self) -> int:
        return self.length

    def _grown(self, which: int, states: Tensor, start: int) -> Tensor:
        room = self.length + max(_LEAST_ROOM, self.length // 4)
        buffer = states.new_empty(states.shape[0], states.shape[1], room, states.shape[3])
        if self._buffers is not None:
            buffer[:, :, :start] = self._buffers[which][:, :, :start]
        return buffer

    def _look(self) -> None:
        assert self._buffers is not None
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self._buffers)


class RowBatch:
    """The rows end at the same place, so that the next token of all is read there."""

    def __init__(self, module: nn.Module) -> None:
        """``module``: a causal language model; of PEFT's wrapper what is inside is worked with."""
        inner: Any = module
        self.module: nn.Module = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
        self._config: Any = self.module.config
        accepted = inspect.signature(self.module.forward).parameters
        # Transformers 5.24 renamed the argument, model by model.
        self._cache_argument = "cache" if "cache" in accepted else "past_key_values"
        # Else the head scores every position of the prompt, for nothing.
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=self._config).layers)
        takes_places = {"attention_mask", "position_ids"} <= set(accepted)
        self.can_hold_several = plain and takes_places and not _turns_by_length(self._config)
        """Not where a layer keeps a window or a state in place of keys and values: those rows cannot be joined. Nor
        where the longest row says how far the keys of all are turned."""
        self._cache: Any = None
        self._mask: Tensor | None = None
        """[rows, tokens]: 1 where one is, 0 where a shorter row is padded."""

    @property
    def count(self) -> int:
        return 0 if self._mask is None else self._mask.shape[0]

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return 0 if self._mask is None else self._mask.shape[1]

    @torch.inference_mode()
    def join(self, prompt_ids: Sequence[int]) -> Tensor:
        """Read a prompt and take it in as the last row; return the logits behind it, [vocabulary], float32."""
        device = next(self.module.parameters()).device
        cache = self._new_cache()
        ids = torch.tensor([list(prompt_ids)], device=device)  # [1, tokens]
        logits = self._logits(ids, cache)
        mask = torch.ones(1, len(prompt_ids), dtype=torch.long, device=device)
        if self._mask is None:
            self._cache, self._mask = cache, mask
        else:
            for mine, theirs in zip(self._cache.layers, cache.layers, strict=True):
                mine.join(theirs)
            longest = max(self.length, len(prompt_ids))
            self._mask = torch.cat([_padded(self._mask, longest), _padded(mask, longest)])
        return logits[0]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read the token that each row was given; return the logits of the next, [rows, vocabulary], float32."""
        assert self._mask is not None
        self._mask = torch.cat([self._mask, self._mask.new_ones(self.count, 1)], dim=1)
        ids = torch.tensor(list(tokens), device=self._mask.device).unsqueeze(1)  # [rows, 1]
        if bool(self._mask.all()):
            return self._logits(ids, self._cache)
        positions = self._mask.sum(dim=1, keepdim=True) - 1
        return self._logits(ids, self._cache, attention_mask=self._mask, position_ids=positions)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop the rows that are not named."""
        assert self._mask is not None
        if not rows:
            self._cache = self._mask = None
            return
        kept = torch.tensor(list(rows), device=self._mask.device)
        mask = self._mask[kept]
        cut = int(mask.any(dim=0).to(torch.long).argmax())  # the first place where any row has a token
        for layer in self._cache.layers:
            layer.keep(kept, cut)
        self._mask = mask[:, cut:]

    def _logits(self, ids: Tensor, cache: Any, **more: Any) -> Tensor:
        output: Any = self.module(
            input_ids=ids, use_cache=True, **{self._cache_argument: cache}, **self._options, **more
        )
        logits: Tensor = output.logits[:, -1]
        return logits.float()

    def _new_cache(self) -> Any:
        cache = DynamicCache(config=self._config)
        if self.can_hold_several:
            cache.layers = [_Row() for _ in cache.layers]
        return cache


def _turns_by_length(config: Any) -> bool:
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    return any(each.get("rope_type") in ("dynamic", "longrope") for each in kinds)


def _padded(mask: Tensor, length: int) -> Tensor:
    return nn.functional.pad(mask, (length - mask.shape[1], 0))
