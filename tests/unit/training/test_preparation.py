from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import tiny_artifact
from tests.unit.training.conftest import Recorder
from transformers import AutoTokenizer

from terakoya.data.examples import to_line
from terakoya.domain.datasets import Example, Message, Split
from terakoya.domain.events import EventType
from terakoya.exceptions import InvalidConfig, InvalidDataset
from terakoya.training.defaults import resolve
from terakoya.training.objectives.encodings import ANSWERS
from terakoya.training.preparation import Material, encode_material, read_material
from terakoya.training.request import TrainingRequest
from terakoya.training.spec import RunSpec


def example(row: int, prompt: str = "ask", answer: str = "yes", split: Split | None = None) -> Example:
    return Example(row, (Message("user", f"{prompt} {row}"), Message("assistant", answer)), split)


def spec_of(examples: list[Example], folder: Path, model: Path, **fields: Any) -> RunSpec:
    request = TrainingRequest.model_validate({"model": "tiny", "dataset": "rows"} | fields)
    rows = folder / "rows.jsonl"
    rows.write_bytes(b"".join(map(to_line, examples)))
    return RunSpec(
        name="tuned",
        request=request.model_dump(mode="json"),
        resolved=resolve(request, parameters=100_000, rows=len(examples)),
        model=tiny_artifact(model),
        dataset_id="data_x",
        dataset_name="rows",
        dataset_sha256="0" * 64,
        rows_path=rows,
        evaluation_cache=folder / "cache",
        threads=1,
    )


def quiet(done: int, total: int) -> None:
    assert done <= total


def test_rows_that_name_their_side_are_on_it(tmp_path: Path, tiny_folder: Path, recorder: Recorder) -> None:
    examples = [example(1), example(2, split=Split.HELDOUT), example(3, split=Split.TRAIN)]
    material = read_material(spec_of(examples, tmp_path, tiny_folder), recorder)
    assert [each.row for each in material.train] == [1, 3]
    assert [each.row for each in material.heldout] == [2]
    assert not recorder.events


def test_more_held_out_rows_than_are_to_be_scored_is_said(
    tmp_path: Path, tiny_folder: Path, recorder: Recorder
) -> None:
    examples = [example(1), *(example(row, split=Split.HELDOUT) for row in range(2, 12))]
    spec = spec_of(examples, tmp_path, tiny_folder, evaluation={"max_examples": 4})
    material = read_material(spec, recorder)
    assert len(material.heldout) == 4
    assert list(material.heldout) == list(read_material(spec, recorder).heldout)
    assert "4 of 10 held-out rows are scored" in recorder.of(EventType.LOG)[0]["message"]


def test_one_row_is_trained_on_with_a_warning(tmp_path: Path, tiny_folder: Path, recorder: Recorder) -> None:
    material = read_material(spec_of([example(1)], tmp_path, tiny_folder), recorder)
    assert (len(material.train), len(material.heldout)) == (1, 0)
    assert recorder.of(EventType.WARNING)[0]["code"] == "nothing_held_out"


def test_nothing_to_train_on_is_an_error(tmp_path: Path, tiny_folder: Path, recorder: Recorder) -> None:
    with pytest.raises(InvalidDataset, match="has no rows to train on: all 1 are held out"):
        read_material(spec_of([example(1, split=Split.HELDOUT)], tmp_path, tiny_folder), recorder)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


def test_rows_over_the_asked_length_are_refused_by_number_with_what_would_do(tokenizer: Any) -> None:
    material = Material([example(1), example(2, "why " * 30)], [example(3, "why " * 40)])
    with pytest.raises(
        InvalidConfig, match=r"2 of 3 examples have more than 100 tokens: rows \(tokens\) 2 \(\d+\), 3"
    ) as caught:
        encode_material(material, tokenizer, ANSWERS, max_length=100, context=1024, progress=quiet)
    longest = int(str(caught.value).rpartition("max_length=")[2].split()[0])
    encoded = encode_material(material, tokenizer, ANSWERS, max_length=longest, context=1024, progress=quiet)
    assert encoded.longest == longest


def test_rows_over_the_models_context_are_refused_without_being_asked(tokenizer: Any) -> None:
    material = Material([example(1, "why " * 100)], [])
    with pytest.raises(InvalidConfig, match="the model knows 128 positions at most"):
        encode_material(material, tokenizer, ANSWERS, max_length=None, context=128, progress=quiet)


def test_progress_runs_through_both_sides(tokenizer: Any) -> None:
    told: list[tuple[int, int]] = []
    encode_material(
        Material([example(1), example(2)], [example(3)]),
        tokenizer,
        ANSWERS,
        max_length=None,
        context=1024,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, 3), (3, 3)]
