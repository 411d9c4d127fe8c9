from __future__ import annotations

import math

import pytest
import torch

from terakoya.models.sampling import StopTexts, TokenSampler
from terakoya.models.wire import Sampling

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])


def sampler(
    sampling: Sampling, *, temperature: float = 1.0, seed: int = 0, prompt: tuple[int, ...] = ()
) -> TokenSampler:
    return TokenSampler(sampling, temperature=temperature, seed=seed, prompt_ids=prompt, device=torch.device("cpu"))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    probabilities = torch.softmax(LOGITS[0], dim=-1)
    first_two = float(probabilities[:2].sum())
    for top_p, allowed in ((first_two - 0.01, {0, 1}), (first_two + 0.01, {0, 1, 2}), (0.01, {0})):
        chooser = sampler(Sampling(top_p=top_p))
        assert {int(chooser.pick(LOGITS)) for _ in range(300)} == allowed


def test_penalties_are_taken_off_once_and_by_count() -> None:
    chooser = sampler(Sampling(presence_penalty=0.5, frequency_penalty=0.25), temperature=0.0, prompt=(0, 0, 1))
    # 2.0 - 0.5 - 2 * 0.25 = 1.0 against 1.0 - 0.5 - 0.25 = 0.25: token 0, then 2.0 - 0.5 - 0.75 = 0.75: token 0 again
    assert [int(chooser.pick(LOGITS)) for _ in range(4)] == [0, 0, 0, 0]
    strong = sampler(Sampling(presence_penalty=1.5), temperature=0.0, prompt=(0,))
    assert [int(strong.pick(LOGITS)) for _ in range(3)] == [1, 0, 0]  # 0.5 < 1.0, then 0.5 against -0.5 and 0.0


def test_what_is_said_of_a_choice_is_the_models_own_likelihood() -> None:
    chooser = sampler(Sampling(top_logprobs=2, presence_penalty=2.0), temperature=0.0, prompt=(0,))
    assert int(chooser.pick(LOGITS)) == 1
    total = math.log(sum(math.exp(value) for value in LOGITS[0].tolist()))
    assert chooser.logprob == pytest.approx(1.0 - total)
    assert [token for token, _ in chooser.top] == [0, 1]
    assert chooser.top[0][1] == pytest.approx(2.0 - total)


def test_a_stop_is_found_across_pieces_and_nothing_of_it_comes_out() -> None:
    watch = StopTexts(["END", "\n\n"])
    assert [watch.push(piece) for piece in ("abE", "N", "x", "E", "ND later")] == ["ab", "", "ENx", "", ""]
    assert watch.is_found


def test_the_first_of_two_stops_counts() -> None:
    watch = StopTexts(["later", "\n"])
    assert watch.push("one\ntwo later") == "one"


def test_what_was_only_the_beginning_of_a_stop_is_given_back() -> None:
    watch = StopTexts(["END"])
    assert watch.push("the E") == "the "
    assert watch.flush() == "E"
