"""Which label a model finds likeliest: against the model's own forward, one sequence after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_model import build_tiny_model

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.label_choice import asked_rows, choose_labels, labels_of
from terakoya.evaluation.metrics import normalise_answer
from terakoya.evaluation.task_scores import TaskRows, score_task

LABELS = {"even": (5, 6, 2), "odd": (9, 2), "neither": (5, 6, 7, 2)}


def rows(count: int) -> list[EncodedExample]:
    names = list(LABELS)
    return [
        EncodedExample(
            n, [1, 20 + n, 30, *LABELS[names[n % 3]]], ((3, 3 + len(LABELS[names[n % 3]])),), answer=names[n % 3]
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("batch_tokens", [2048, 8])
def test_the_likeliest_label_is_that_of_the_models_own_log_probabilities(tmp_path: Path, batch_tokens: int) -> None:
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(build_tiny_model(tmp_path / "tiny")).eval()
    expected = []
    for row in rows(12):
        scores = {}
        for name, ids in LABELS.items():
            whole = torch.tensor([[*row.prompt_ids, *ids]])
            with torch.no_grad():
                log_p = module(whole).logits.float().log_softmax(-1)[0]
            scores[name] = sum(float(log_p[2 + n, token]) for n, token in enumerate(ids))
        expected.append(max(scores, key=lambda name: scores[name]) == row.answer)
    assert choose_labels(module, rows(12), LABELS, batch_tokens=batch_tokens) == expected
    assert {True, False} == set(expected)


def test_labels_are_few_short_answers_that_come_again() -> None:
    assert labels_of(rows(6)) == {normalise_answer(name): ids for name, ids in LABELS.items()}
    assert labels_of(rows(3)) == {}  # each answer once: no labels
    assert labels_of([]) == {}


def test_rows_that_were_cut_do_not_change_a_label() -> None:
    cut = EncodedExample(9, [1, 29, 30, 5, 6], ((3, 5),), answer="even")
    piece = EncodedExample(9, [1, 29, 30, 5, 6, 2, 40, 41], ((3, 6),), answer="even")
    assert labels_of([cut, *rows(6), cut, piece]) == {normalise_answer(name): ids for name, ids in LABELS.items()}


def test_more_rows_than_the_tokens_allow_are_an_even_selection() -> None:
    assert asked_rows(rows(12), LABELS) == list(range(12))
    assert asked_rows(rows(12), LABELS, most_tokens=36) == [0, 4, 8]  # 3 tokens of prompt, 9 of labels each
    assert asked_rows(rows(12), LABELS, most_tokens=1) == [0]
    assert asked_rows(rows(12), {}) == []


def test_a_run_can_be_stopped_while_labels_are_asked_for(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_tiny_model(tmp_path / "tiny")
    module, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    heard: list[int] = []
    task = TaskRows(rows(6), {name: tuple(ids) for name, ids in LABELS.items()}, asks=True)
    scores = score_task(module, tokenizer, task, progress=heard.append)
    assert len(scores.likeliest) == 6
    assert heard[-6:] == [6] * 6  # once a row that is asked
