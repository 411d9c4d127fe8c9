"""Micro-batches of a step computed side by side on a processor, each by a thread that shares nothing with the others:
threads that split every small operation wait for each other thousands of times a step, these once. Knows losses and
parameters; not what a loss means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class WithLoss(Protocol):
    @property
    def loss(self) -> Tensor: ...


S = TypeVar("S", bound=WithLoss)


class Lanes:
    """So many threads, each with its share of the processors. A single lane is the calling thread as it is."""

    def __init__(self, count: int, parameters: Sequence[Tensor]) -> None:
        self.count = count
        self._parameters = list(parameters)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane") if count > 1 else None
        if self._pool is not None:
            _settle(self._pool, count)

    def backward(self, shares: Sequence[Callable[[], S]]) -> list[S]:
        """Compute at most ``count`` shares of a loss; add the gradient of their sum to the parameters.

        The gradients are added in the order of the shares, whichever is done first, so that a run can be repeated.
        """
        if self._pool is None:
            return [_backward(share) for share in shares]
        done = list(self._pool.map(self._gradients, shares))
        for _, gradients in done:
            _accumulate(self._parameters, gradients)
        return [share for share, _ in done]

    def _gradients(self, compute: Callable[[], S]) -> tuple[S, Sequence[Tensor | None]]:
        share = compute()
        return share, torch.autograd.grad(share.loss, self._parameters, allow_unused=True)


def _settle(pool: ThreadPoolExecutor, count: int) -> None:
    """Give every thread of the pool its share of the processors. PyTorch keeps the number for each thread, and one for
    threads to come, which is put back."""
    own, all_here = torch.get_num_threads(), Barrier(count)

    def settle(_: int) -> None:
        all_here.wait()
        torch.get_num_threads()  # a thread's first question sets the number anew
        torch.set_num_threads(max(own // count, 1))

    list(pool.map(settle, range(count)))
    torch.set_num_threads(own)


def _backward(compute: Callable[[], S]) -> S:
    share = compute()
    share.loss.backward()  # type: ignore[no-untyped-call]
    return share


def _accumulate(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    held: list[Tensor] = []
    found: list[Tensor] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient.contiguous()  # an expanded one cannot be added to
        else:
            held.append(parameter.grad)
            found.append(gradient)
    if held:
        torch._foreach_add_(held, found)
