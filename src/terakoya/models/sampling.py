"""Chooses tokens as a request asks for it: temperature, top-p, penalties, and how likely each choice was. Knows
logits, not models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from terakoya.models.wire import Sampling


class TokenSampler:
    """Of one answer. Penalties first, then temperature, then top-p: the order in which llama.cpp is told to."""

    def __init__(
        self, sampling: Sampling, *, temperature: float, seed: int, prompt_ids: Sequence[int], device: torch.device
    ) -> None:
        self._sampling = sampling
        self._temperature = temperature
        self._generator = torch.Generator(device).manual_seed(seed)
        self._seen: dict[int, int] = {}
        """Token -> how often it stands in the prompt and the answer."""
        self._penalises = bool(sampling.presence_penalty or sampling.frequency_penalty)
        for token in prompt_ids:
            self._saw(token)
        self.logprob = 0.0
        """Of the last choice, by the model's own logits."""
        self.top: list[tuple[int, float]] = []
        """The likeliest tokens at the last choice."""

    def pick(self, logits: Tensor) -> Tensor:
        """[1, vocabulary] -> [1]"""
        row = logits[0]
        chosen = self._choose(self._penalised(row))
        if self._sampling.top_logprobs is not None:
            self._record(torch.log_softmax(row, dim=-1), chosen)
        self._saw(chosen)
        return torch.tensor([chosen], device=logits.device)

    def _choose(self, logits: Tensor) -> int:
        if self._temperature <= 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / self._temperature, dim=-1)
        if self._sampling.top_p < 1.0:
            ranked, order = probabilities.sort(descending=True)
            # The smallest set that reaches top_p: what comes after it goes. The first always stays.
            ranked[ranked.cumsum(dim=-1) - ranked >= self._sampling.top_p] = 0.0
            return int(order[torch.multinomial(ranked, 1, generator=self._generator)])
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def _penalised(self, logits: Tensor) -> Tensor:
        if not self._penalises or not self._seen:
            return logits
        tokens = torch.tensor(list(self._seen), device=logits.device)
        counts = torch.tensor(list(self._seen.values()), dtype=logits.dtype, device=logits.device)
        off = self._sampling.presence_penalty + self._sampling.frequency_penalty * counts
        return logits.index_add(0, tokens, -off)

    def _record(self, logprobs: Tensor, chosen: int) -> None:
        self.logprob = float(logprobs[chosen])
        values, tokens = logprobs.topk(self._sampling.top_logprobs or 1)
        self.top = list(zip(tokens.tolist(), values.tolist(), strict=True))[: self._sampling.top_logprobs]

    def _saw(self, token: int) -> None:
        if self._penalises:
            self._seen[token] = self._seen.get(token, 0) + 1


class StopTexts:
    """Watches an answer's text for what ends it, and holds back what may be the beginning of that."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.is_found = False

    def push(self, text: str) -> str:
        """Return the text that is certain now; nothing of a stop, nor of what follows it."""
        self._held += text
        if not self._stops:
            return self.flush()
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.is_found = True
            self._held = self._held[: min(places)]
            return self.flush()
        kept = max(_overlap(self._held, stop) for stop in self._stops)
        certain = self._held[: len(self._held) - kept]
        self._held = self._held[len(certain) :]
        return certain

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` with which ``stop`` begins."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
