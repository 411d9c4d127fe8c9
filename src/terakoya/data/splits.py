"""Which examples a run learns from and which it is judged by. Decided by hashes of the prompts, so it does not
depend on the order of rows. Knows nothing of files or tokens.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from terakoya.data.examples import prompt_key
from terakoya.domain.datasets import Example, Split
from terakoya.exceptions import InvalidConfig


def split_examples(
    examples: Sequence[Example], heldout_fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return (train, heldout), each in the order given.

    If any row says "heldout", the rows decide and those that say nothing are trained on. Otherwise about
    ``heldout_fraction`` (0 to below 1) of the rows are held out, at least one where that is above 0 and there are
    two prompts, and more only if every prompt has more rows than that; rows with the same prompt (case, width and
    spacing aside) stay on one side.
    """
    if not 0 <= heldout_fraction < 1:
        raise InvalidConfig(f"the held-out fraction must be at least 0 and below 1; got {heldout_fraction}")
    if any(example.split is Split.HELDOUT for example in examples):
        heldout = {index for index, example in enumerate(examples) if example.split is Split.HELDOUT}
    else:
        heldout = _drawn(examples, heldout_fraction, seed)
    train = [example for index, example in enumerate(examples) if index not in heldout]
    return train, [examples[index] for index in sorted(heldout)]


def count_overlap(train: Sequence[Example], heldout: Sequence[Example]) -> int:
    """Return how many held-out examples have a prompt that is also trained on."""
    seen = {prompt_key(example) for example in train}
    return sum(prompt_key(example) in seen for example in heldout)


def _drawn(examples: Sequence[Example], fraction: float, seed: int) -> set[int]:
    if fraction == 0:
        return set()
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[prompt_key(example)].append(index)
    wanted = max(1, round(fraction * len(examples)))
    salt = str(seed).encode()
    drawn: set[int] = set()
    order = sorted(groups, key=lambda key: hashlib.blake2b(key, digest_size=8, salt=salt[:16]).digest())
    for key in order[:-1]:  # one prompt is always left to train on
        if len(drawn) >= wanted:
            break
        if len(drawn) + len(groups[key]) <= wanted:
            drawn.update(groups[key])
    if not drawn and len(order) > 1:
        drawn.update(groups[min(order, key=lambda key: len(groups[key]))])
    return drawn
