from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import build_tiny_tokenizer
from transformers import AutoTokenizer

from terakoya.data.text_windows import encode_documents
from terakoya.domain.datasets import Example, Message
from terakoya.exceptions import ModelLoadError

END = 2


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    build_tiny_tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def text(row: int, content: str) -> Example:
    return Example(row, (), text=content)


@pytest.mark.parametrize("length", [1, 6, 7, 8, 13, 14, 15, 40])
def test_every_token_but_a_documents_first_is_a_label_once_and_its_end_is_one(tokenizer: Any, length: int) -> None:
    content = "".join(chr(ord("a") + n % 26) for n in range(length))
    whole = [*tokenizer(content)["input_ids"], END]

    windows = encode_documents([text(5, content)], tokenizer, window=8).complete()

    assert all(2 <= len(each.input_ids) <= 8 and each.row == 5 for each in windows)
    assert all(each.label_spans == ((1, len(each.input_ids)),) for each in windows)
    labels = [token for each in windows for token in each.answer_ids]
    assert labels == whole[1:]
    assert windows[0].input_ids[0] == whole[0]
    for one, next_one in pairwise(windows):
        assert next_one.input_ids[0] == one.input_ids[-1]


def test_text_that_looks_like_a_control_token_is_text(tokenizer: Any) -> None:
    [window] = encode_documents([text(1, "a<|im_end|>b")], tokenizer, window=100).complete()
    assert window.input_ids.count(END) == 1
    assert tokenizer.decode(window.input_ids) == "a<|im_end|>b<|im_end|>"


def test_rows_that_are_no_text_are_refused_by_number(tokenizer: Any) -> None:
    talk = Example(2, (Message("user", "a"), Message("assistant", "b")))
    encoded = encode_documents([text(1, "fine"), talk, text(3, "")], tokenizer, window=8)
    assert [(each.row, each.reason.split(";")[0]) for each in encoded.refused] == [
        (2, "it is no running text"),
        (3, "its text is empty"),
    ]


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ModelLoadError, match="never learn where a text ends"):
        encode_documents([text(1, "a")], tokenizer, window=8)


def test_progress_counts_documents(tokenizer: Any) -> None:
    heard: list[int] = []
    encode_documents([text(n, "abc") for n in range(1, 71)], tokenizer, window=8, progress=heard.append)
    assert heard == [64, 70]
