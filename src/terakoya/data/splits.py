"""Which rows a run learns from and which it is judged by. Decided by hashes of the prompts, so it does not depend on
the order of rows. Goes through the rows once and holds nine bytes of each. Knows nothing of files or tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from terakoya.data.examples import prompt_key
from terakoya.domain.datasets import Example, Split
from terakoya.exceptions import InvalidConfig

Places = NDArray[np.int64]
"""Positions in a sequence of rows, rising."""


def split_rows(examples: Iterable[Example], heldout_fraction: float, seed: int) -> tuple[Places, Places]:
    """Return the places (to train on, held out) of rows in the order given.

    If any row says "heldout", the rows decide and those that say nothing are trained on. Otherwise about
    ``heldout_fraction`` (0 to below 1) of the rows are held out, at least one where that is above 0 and there are
    two prompts, and more only if every prompt has more rows than that; rows with the same prompt (case, width and
    spacing aside) stay on one side.
    """
    if not 0 <= heldout_fraction < 1:
        raise InvalidConfig(f"the held-out fraction must be at least 0 and below 1; got {heldout_fraction}")
    told, keys = bytearray(), bytearray()
    for example in examples:
        told.append(example.split is Split.HELDOUT)
        keys += prompt_key(example)
    heldout = np.frombuffer(told, np.bool_)
    if not heldout.any():
        heldout = _drawn(np.frombuffer(keys, np.dtype(">u8")), heldout_fraction, seed)
    return np.flatnonzero(~heldout), np.flatnonzero(heldout)


def _drawn(keys: NDArray[np.uint64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """[rows] keys of prompts -> [rows] whether each is held out."""
    if fraction == 0:
        return np.zeros(len(keys), np.bool_)
    prompts, prompt_of, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    salt = str(seed).encode()[:16]
    order = np.argsort(np.array([_drawing(key, salt) for key in prompts.tolist()], np.uint64))
    wanted = max(1, round(fraction * len(keys)))
    taken = np.zeros(len(prompts), np.bool_)
    count = 0
    for prompt in order[:-1].tolist():  # one prompt is always left to train on
        if count >= wanted:
            break
        if count + sizes[prompt] <= wanted:
            taken[prompt] = True
            count += int(sizes[prompt])
    if not count and len(order) > 1:
        taken[order[np.argmin(sizes[order])]] = True
    return taken[prompt_of]


def _drawing(key: int, salt: bytes) -> int:
    """Return the number by which a prompt is drawn, smallest first."""
    return int.from_bytes(hashlib.blake2b(key.to_bytes(8), digest_size=8, salt=salt).digest())
