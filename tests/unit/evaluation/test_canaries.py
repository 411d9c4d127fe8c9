from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_model import build_tiny_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.evaluation.canaries import (
    KNOWN_BELOW_BITS,
    LANGUAGES,
    WORSE_FROM,
    CanaryScores,
    CanarySet,
    canary_set,
    compare_canaries,
    evaluate_canaries,
    forgetting,
)
from terakoya.exceptions import TrainingError

FEW = CanarySet("en", ("The tide was out.", "Rain!", "It has rained since the morning."), "test")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def scored(language: str, bits: float, rises: list[float] | None = None, passages: int = 30) -> CanaryScores:
    """Passages of 200 bytes at about so many bits a byte, each changed by a share."""
    rises = rises or [0.0] * passages
    bases = [bits * (1 + 0.05 * math.sin(number)) for number in range(passages)]
    nats = [200 * base * (1 + rise) * math.log(2) for base, rise in zip(bases, rises, strict=True)]
    return CanaryScores(language, nats, [200] * passages)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_bundled_passages_are_varied_and_of_like_size(language: str) -> None:
    passages = canary_set(language).passages
    assert len(passages) == len(set(passages)) == 30
    assert all(150 <= len(passage.encode()) <= 350 for passage in passages)
    assert all("\n" not in passage for passage in passages)
    kana = [any("\u3040" <= letter <= "\u30ff" for letter in passage) for passage in passages]
    assert set(kana) == {language == "ja"}


def test_bits_per_byte_are_those_of_every_token_of_each_passage(tiny: tuple[Any, Any]) -> None:
    module, tokenizer = tiny
    expected = []
    for passage in FEW.passages:
        ids = torch.tensor([[0, *tokenizer(passage)["input_ids"]]])  # after <|endoftext|>, as at a document's start
        with torch.no_grad():
            logits = module(ids).logits[0, :-1]
        expected.append(cross_entropy(logits, ids[0, 1:], reduction="sum").item())

    scores = evaluate_canaries(module, tokenizer, FEW, batch_tokens=40)

    assert scores.nats == pytest.approx(expected, rel=1e-5)
    assert scores.bits_per_byte == pytest.approx(sum(expected) / math.log(2) / sum(map(len, FEW.passages)))
    assert scores == evaluate_canaries(module, tokenizer, FEW, batch_tokens=40)


def test_progress_reaches_every_passage_and_can_end_it(tiny: tuple[Any, Any]) -> None:
    heard: list[tuple[int, int]] = []
    evaluate_canaries(*tiny, FEW, batch_tokens=40, progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (3, 3)


def test_diverged_weights_are_an_error_not_a_score(tiny: tuple[Any, Any]) -> None:
    module, tokenizer = tiny
    weights = module.model.norm.weight.data
    kept = weights.clone()
    weights.fill_(math.nan)
    with pytest.raises(TrainingError, match="diverged"):
        evaluate_canaries(module, tokenizer, FEW)
    weights.copy_(kept)


@pytest.mark.parametrize(
    ("rise", "code"),
    [(0.0, "no_clear_change"), (0.02, "slightly_worse"), (0.2, "worse"), (-0.03, "better")],
)
def test_the_change_is_relative_with_a_paired_interval(rise: float, code: str) -> None:
    noise = [rise + 0.01 * math.cos(3 * number) for number in range(30)]

    report = compare_canaries(scored("en", 1.2), scored("en", 1.2, noise))

    assert report["change"]["value"] == pytest.approx(rise, abs=0.003)
    assert report["change"]["low"] < rise + 0.003
    assert report["change"]["high"] > rise - 0.003
    assert report["change"]["high"] - report["change"]["low"] < 0.02, "paired: passages differ by far more than this"
    assert report["code"] == code
    assert 0.02 < WORSE_FROM < 0.2


def test_a_language_the_model_never_had_is_not_applicable() -> None:
    unknown = scored("ja", KNOWN_BELOW_BITS["ja"] + 0.3)
    assert not unknown.is_known
    assert scored("ja", 1.3).is_known
    assert scored("en", 9.0).is_known, "general text is English: there is always some to lose"

    report = compare_canaries(unknown, None)

    assert (report["is_applicable"], report["code"]) == (False, "not_applicable")
    assert "after" not in report


def test_the_verdict_is_the_worst_of_the_languages_in_words() -> None:
    english = compare_canaries(
        scored("en", 1.2), scored("en", 1.2, [0.008 + 0.05 * math.sin(9 * n) for n in range(30)])
    )
    japanese = compare_canaries(scored("ja", 1.4), scored("ja", 1.4, [0.3 + 0.01 * (n % 3) for n in range(30)]))

    verdict = forgetting([english, japanese])

    assert verdict["code"] == "worse"
    assert verdict["text"].startswith("General English text: loss +0.")
    assert "no clear change. General Japanese text: loss +31.0%" in verdict["text"]
    assert verdict["text"].endswith("clearly worse: it has forgotten some of what it knew.")
    none = forgetting([english, compare_canaries(scored("ja", 2.6), None)])
    assert none["code"] == "no_clear_change"
    assert "General Japanese text: not applicable, the model had none before (2.6" in none["text"]
