from __future__ import annotations

from typing import Any

import pytest
import torch

from terakoya.domain.models import ModelArtifact
from terakoya.models.base_loader import LoadedModel
from terakoya.models.full_loader import FullModelLoader
from terakoya.models.generation import Detokenizer, generate_batch, stop_ids_of

PROMPTS = [[1, 50, 60, 70], [1, 9], [1, 30, 31, 32, 33, 34, 35, 36, 37]]


@pytest.fixture(scope="module")
def loaded(tiny_base: ModelArtifact) -> LoadedModel:
    return FullModelLoader().load(tiny_base)


def greedy_by_hand(loaded: LoadedModel, prompt: list[int], count: int) -> list[int]:
    """Recompute everything for every token, without a cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(loaded.module(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_a_padded_batch_writes_what_each_prompt_gets_alone(loaded: LoadedModel) -> None:
    expected = [greedy_by_hand(loaded, prompt, 12) for prompt in PROMPTS]
    assert generate_batch(loaded.module, loaded.tokenizer, PROMPTS, max_new_tokens=12, stop_ids=()) == expected


def test_rows_that_end_leave_the_others_unchanged(loaded: LoadedModel) -> None:
    whole = [greedy_by_hand(loaded, prompt, 12) for prompt in PROMPTS]
    stop = whole[0][4]
    expected = [answer[: answer.index(stop)] if stop in answer else answer for answer in whole]
    assert generate_batch(loaded.module, loaded.tokenizer, PROMPTS, max_new_tokens=12, stop_ids={stop}) == expected


def test_a_seed_fixes_what_is_sampled(loaded: LoadedModel) -> None:
    def sampled(seed: int) -> list[list[int]]:
        return generate_batch(
            loaded.module, loaded.tokenizer, PROMPTS, max_new_tokens=8, temperature=1.0, seed=seed, stop_ids=()
        )

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_no_prompts_give_no_answers(loaded: LoadedModel) -> None:
    assert generate_batch(loaded.module, loaded.tokenizer, [], max_new_tokens=5) == []


def test_the_end_of_turn_stops_even_if_the_configuration_names_only_the_end_of_text(loaded: LoadedModel) -> None:
    assert stop_ids_of(loaded.module, loaded.tokenizer) == {2}
    assert loaded.tokenizer.convert_ids_to_tokens(2) == "<|im_end|>"


@pytest.mark.parametrize("text", ["寺子屋でまなぶ。", "a 👩‍👩‍👧 b", "naïve café\n\n  indented", "  leading", ""])
def test_pieces_add_up_to_the_text_and_never_show_half_a_character(loaded: LoadedModel, text: str) -> None:
    detokenizer = Detokenizer(loaded.tokenizer)
    pieces = [detokenizer.push(token) for token in loaded.tokenizer(text)["input_ids"]]
    assert "".join(pieces) + detokenizer.flush() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_an_unfinished_character_comes_out_marked_at_the_end(loaded: LoadedModel) -> None:
    detokenizer = Detokenizer(loaded.tokenizer)
    ids: list[Any] = loaded.tokenizer("aあ")["input_ids"][:-1]
    assert "".join(detokenizer.push(token) for token in ids) == "a"
    assert detokenizer.flush() == "\N{REPLACEMENT CHARACTER}"


def test_special_tokens_are_not_shown(loaded: LoadedModel) -> None:
    detokenizer = Detokenizer(loaded.tokenizer)
    ids = [*loaded.tokenizer("hi")["input_ids"], 2, *loaded.tokenizer("!")["input_ids"]]
    assert "".join(detokenizer.push(token) for token in ids) + detokenizer.flush() == "hi!"
