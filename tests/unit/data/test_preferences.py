from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import build_tiny_tokenizer
from transformers import AutoTokenizer

from terakoya.data.preferences import encode_pairs
from terakoya.domain.datasets import Example, Message


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    build_tiny_tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def pair(row: int, chosen: str, rejected: str | None, *before: str) -> Example:
    roles = ("user", "assistant") * 4
    turns = [Message(role, content) for role, content in zip(roles, (*before, "ask"), strict=False)]
    return Example(row, (*turns, Message("assistant", chosen)), rejected=rejected)


def test_a_pair_is_two_rows_behind_one_prompt_and_only_last_answers_are_labels(tokenizer: Any) -> None:
    better, worse = encode_pairs([pair(7, "Yes, sir.", "No.", "hi", "hello")], tokenizer).complete()

    assert (better.row, worse.row) == (7, 7)
    assert better.prompt_ids == worse.prompt_ids
    assert tokenizer.decode(better.answer_ids) == "Yes, sir.<|im_end|>"
    assert tokenizer.decode(worse.answer_ids) == "No.<|im_end|>"
    assert len(better.label_spans) == len(worse.label_spans) == 1


def test_what_is_no_pair_is_refused_by_number_and_the_others_stay_together(tokenizer: Any) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'].strip('!')")
    rows = [
        pair(1, "a", "b"),
        pair(2, "same", "same"),
        pair(3, "a", None),
        pair(4, "!", "b"),
        pair(5, "a", "!"),
        pair(6, "c", "d"),
    ]
    encoded = encode_pairs(rows, tokenizer)

    assert [(each.row, each.answer) for each in encoded.examples] == [(1, "a"), (1, "b"), (6, "c"), (6, "d")]
    reasons = {each.row: each.reason for each in encoded.refused}
    assert list(reasons) == [2, 3, 4, 5]
    assert "both of its answers are the same" in reasons[2]
    assert "no worse one to compare" in reasons[3]
    assert reasons[4].startswith("of its better answer: no token")
    assert reasons[5].startswith("of its worse answer: no token")


def test_progress_counts_pairs(tokenizer: Any) -> None:
    heard: list[int] = []
    encode_pairs([pair(n, "a", "b") for n in range(1, 131)], tokenizer, progress=heard.append)
    assert heard == [128, 130]
