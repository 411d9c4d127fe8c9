from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_model import build_tiny_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.evaluation.heldout import HeldoutScores, default_max_new_tokens, evaluate_heldout
from terakoya.exceptions import InvalidDataset, TrainingError


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of 64 columns gain nothing from more, and lose much where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def module(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def encode(tokenizer: Any, *pairs: tuple[str, str]) -> list[EncodedExample]:
    examples = [
        Example(row, (Message("user", prompt), Message("assistant", answer)))
        for row, (prompt, answer) in enumerate(pairs, start=1)
    ]
    return encode_examples(examples, tokenizer).complete()


def teach(module: Any, *examples: EncodedExample) -> Any:
    """Train until greedy decoding says each answer."""
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(100):
        losses = []
        for example in examples:
            ids = torch.tensor([example.input_ids])
            labels = torch.tensor([[-100] * example.labels_start + example.answer_ids])
            losses.append(module(ids, labels=labels).loss)
        loss = torch.stack(losses).mean()
        if loss.item() < 0.02:
            return module.eval()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"not learned: loss {loss.item()}")


def test_losses_are_those_of_each_row_alone_whatever_the_batch(module: Any, tokenizer: Any) -> None:
    encoded = encode(tokenizer, *((f"question {'x' * n}", f"answer {n}" * (1 + n % 3)) for n in range(9)))

    for batch_tokens in (200, 10_000):
        scores = evaluate_heldout(module, tokenizer, encoded, batch_tokens=batch_tokens, shown=0)
        for row, loss_sum, count in zip(encoded, scores.loss_sums, scores.label_counts, strict=True):
            with torch.no_grad():
                logits = module(torch.tensor([row.input_ids])).logits[0]
            labels = torch.tensor(row.answer_ids)
            alone = cross_entropy(logits[row.labels_start - 1 : -1], labels, reduction="sum").item()
            # Float32 through another order of additions.
            assert loss_sum == pytest.approx(alone, rel=1e-4)
            assert count == len(labels)
    assert scores.loss == pytest.approx(sum(scores.loss_sums) / sum(scores.label_counts))


def test_an_answer_that_greedy_decoding_would_give_is_an_exact_match(module: Any, tokenizer: Any) -> None:
    right, wrong = encode(tokenizer, ("one?", "yes"), ("two?", "no"))
    taught = teach(module, right, replace(wrong, input_ids=[*wrong.prompt_ids, *right.answer_ids]))

    scores = evaluate_heldout(taught, tokenizer, [wrong, right])

    assert scores.exact == [False, True]
    assert scores.exact_match == 0.5
    assert scores.predictions == ["yes", "yes"]
    assert scores.cut == [False, False]


def test_the_same_text_in_other_tokens_is_an_exact_match(module: Any, tokenizer: Any) -> None:
    said, spaced = encode(tokenizer, ("one?", "yes"), ("one?", "yes "))

    scores = evaluate_heldout(teach(module, said), tokenizer, [spaced], shown=0)

    assert scores.exact == [True]
    assert scores.predictions == ["yes"]


def test_an_answer_that_goes_on_is_no_match_and_marked_as_cut(module: Any, tokenizer: Any) -> None:
    short, babble = encode(tokenizer, ("one?", "yes"), ("one?", "yesyesyesyes"))

    scores = evaluate_heldout(teach(module, babble), tokenizer, [short], max_new_tokens=3)

    assert scores.exact == [False]
    assert scores.predictions == ["yes"]
    assert scores.cut == [True]


def test_only_so_many_wrong_answers_are_generated_as_are_shown(module: Any, tokenizer: Any) -> None:
    encoded = encode(tokenizer, *((f"question {n}", "zzzz") for n in range(6)))

    scores = evaluate_heldout(module, tokenizer, encoded, shown=2, max_new_tokens=3)

    assert [prediction is not None for prediction in scores.predictions] == [True, True, False, False, False, False]


def test_progress_reaches_the_end_and_what_it_raises_stops_the_evaluation(module: Any, tokenizer: Any) -> None:
    encoded = encode(tokenizer, *((f"question {n}", "zzzz") for n in range(5)))
    heard: list[tuple[int, int]] = []

    evaluate_heldout(module, tokenizer, encoded, shown=3, progress=lambda done, total: heard.append((done, total)))

    assert heard == sorted(heard)
    assert heard[-1] == (5, 5)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    module.train()
    with pytest.raises(KeyboardInterrupt):
        evaluate_heldout(module, tokenizer, encoded, progress=stop)
    assert module.training


def test_a_diverged_model_is_an_error_and_not_a_score(module: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        module.lm_head.weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match="not a finite number"):
        evaluate_heldout(module, tokenizer, encode(tokenizer, ("a", "b")))


def test_no_examples_are_refused(module: Any, tokenizer: Any) -> None:
    with pytest.raises(InvalidDataset, match="no held-out examples"):
        evaluate_heldout(module, tokenizer, [])


def test_scores_survive_json(module: Any, tokenizer: Any) -> None:
    scores = evaluate_heldout(module, tokenizer, encode(tokenizer, ("a", "b"), ("c", "d")), shown=1)

    assert HeldoutScores.from_json(scores.to_json()) == scores
    with pytest.raises(KeyError):
        HeldoutScores.from_json({"loss_sums": []})


def test_generated_answers_may_be_somewhat_longer_than_any_reference(tokenizer: Any) -> None:
    assert default_max_new_tokens(encode(tokenizer, ("a", "bbb"), ("a", "b"))) == len("bbb") + 1 + 8
