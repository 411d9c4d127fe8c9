"""What a plan needs to know of data and tokenizer: every row's length and where its labels are, and a few rows as the
model will see them. For a child process of the web process; needs tokenizers, never torch.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from terakoya.data.examples import read_examples
from terakoya.data.tokenization import EncodedExample, RefusedRow
from terakoya.domain.datasets import Example, Split
from terakoya.domain.events import EventType
from terakoya.models.artifacts import read_json
from terakoya.training.engine.fit import ModelShape
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.preparation import Material, read_material
from terakoya.training.spec import RunSpec

WHOLE_FILE_BYTES = 64 << 20
"""Of a larger file a sample of rows is read."""
SAMPLED_ROWS = 5000
_CHUNK = 512
_SHOWN_REFUSED = 10
_SHOWN_TOKENS = 1500
_GROUP = 8
_GROUPS = 16


@dataclass(frozen=True, slots=True)
class Told:
    """An observer that keeps warnings."""

    warnings: list[dict[str, str]] = field(default_factory=list)

    def notify(self, type: EventType, /, **fields: Any) -> None:
        if type is EventType.WARNING:
            self.warnings.append({"code": str(fields["code"]), "message": str(fields["message"])})


def gather_facts(spec: RunSpec, tokenizer: Any, *, seconds: float) -> dict[str, Any]:
    """Tokenise the rows, or so many as the time allows in random order, and describe them.

    Raises: InvalidDataset without rows to train on; ModelLoadError if the tokenizer gives answers no end.
    """
    told = Told()
    whole = spec.rows_path.stat().st_size <= WHOLE_FILE_BYTES
    material = _read(spec, told) if whole else _sampled(spec)
    deadline = time.monotonic() + seconds
    resolved = spec.resolved
    encoding = OBJECTIVES.load(resolved.objective).encoding
    shape = ModelShape.of(read_json(spec.model.root.path / "config.json"), spec.model.info.parameters)
    limit = encoding.limit(resolved.max_length, shape.context)
    heldout, refused_heldout, all_heldout = _encode(
        material.heldout, tokenizer, deadline, partial(encoding.heldout, length=limit)
    )
    train, refused, all_train = _encode(material.train, tokenizer, deadline, partial(encoding.train, length=limit))
    refused += refused_heldout
    return {
        "exact": whole and all_train and all_heldout,
        "train": [_row(row) for row in train],
        "heldout": [_row(row) for row in heldout],
        "refused": len(refused),
        "refused_rows": [{"row": each.row, "reason": each.reason} for each in refused[:_SHOWN_REFUSED]],
        "shared": _usually_shared(train),
        "samples": [_sample(row, tokenizer) for row in _telling(train)],
        "warnings": told.warnings,
    }


def _encode(
    examples: Sequence[Example], tokenizer: Any, deadline: float, encode: Any
) -> tuple[list[EncodedExample], list[RefusedRow], bool]:
    """Encode in random order until time is up, at least one chunk; return it in order, and whether it is all."""
    order = list(range(len(examples)))
    random.Random(0).shuffle(order)  # noqa: S311 - a sample, not a secret
    found: list[EncodedExample] = []
    refused: list[RefusedRow] = []
    for start in range(0, len(order), _CHUNK):
        if start and time.monotonic() > deadline:
            return _ordered(found), refused, False
        encoded = encode([examples[place] for place in order[start : start + _CHUNK]], tokenizer)
        found += encoded.examples
        refused += encoded.refused
    return _ordered(found), refused, True


def _ordered(rows: list[EncodedExample]) -> list[EncodedExample]:
    return sorted(rows, key=lambda row: (row.row, len(row.input_ids)))


def _row(example: EncodedExample) -> list[Any]:
    return [example.row, len(example.input_ids), [list(span) for span in example.label_spans]]


def _read(spec: RunSpec, told: Told) -> Material:
    """All rows, in memory: they are encoded in random order."""
    material = read_material(spec, told)
    return Material(list(material.train), list(material.heldout))


def _sampled(spec: RunSpec) -> Material:
    """Rows from places spread evenly over a large file; the split is drawn by chance where the rows say none."""
    resolved = spec.resolved
    drawn = random.Random(resolved.seed)  # noqa: S311 - a sample, not a secret
    examples = list(_rows_at_places(spec.rows_path, SAMPLED_ROWS))
    named = any(example.split is Split.HELDOUT for example in examples)
    heldout: list[Example] = []
    train: list[Example] = []
    for example in examples:
        held = example.split is Split.HELDOUT if named else drawn.random() < resolved.heldout_fraction
        (heldout if held else train).append(example)
    return Material(train, heldout[: resolved.max_evaluation_examples])


def _rows_at_places(path: Path, count: int) -> Iterator[Example]:
    size = path.stat().st_size
    lines = set()
    with path.open("rb") as file:
        for place in range(count):
            file.seek(size * place // count)
            if place:
                file.readline()  # the rest of a row
            if line := file.readline():
                lines.add(line)
    sample = path.parent / f".sample-{os.getpid()}.jsonl"
    try:
        sample.write_bytes(b"".join(sorted(lines)))
        yield from read_examples(sample)
    finally:
        sample.unlink(missing_ok=True)


def _usually_shared(rows: Sequence[EncodedExample]) -> int:
    """Return how many leading tokens the rows of a step usually share: the middle of some random groups."""
    drawn = random.Random(0)  # noqa: S311 - a sample, not a secret
    if len(rows) < 2:
        return 0
    groups = [drawn.sample(list(rows), min(_GROUP, len(rows))) for _ in range(_GROUPS)]
    return sorted(map(_shared, groups))[_GROUPS // 2]


def _shared(rows: Sequence[EncodedExample]) -> int:
    """Leave every row the position that predicts its first label, as the forward pass does."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*(row.input_ids for row in rows), strict=False))
    return min(sum(1 for _ in alike), *(row.label_spans[0][0] - 1 for row in rows))


def _telling(rows: Sequence[EncodedExample]) -> list[EncodedExample]:
    """The first row, one of middling length and the longest, each once."""
    if not rows:
        return []
    by_length = sorted(range(len(rows)), key=lambda place: len(rows[place].input_ids))
    places = dict.fromkeys([0, by_length[len(by_length) // 2], by_length[-1]])
    return [rows[place] for place in places]


def _sample(example: EncodedExample, tokenizer: Any) -> dict[str, Any]:
    """A row token by token, as the model reads it, each with whether it is learned. Only its beginning and end if it
    is very long, and then how much is left out between.
    """
    trained = {place for start, end in example.label_spans for place in range(start, end)}
    ids = example.input_ids
    cut = len(ids) > _SHOWN_TOKENS
    head = _SHOWN_TOKENS // 2 if cut else len(ids)
    tail = len(ids) - _SHOWN_TOKENS // 2 if cut else len(ids)
    return {
        "row": example.row,
        "tokens": len(ids),
        "trained_tokens": len(trained),
        "beginning": _texts(ids, range(head), trained, tokenizer),
        "omitted_tokens": tail - head,
        "end": _texts(ids, range(tail, len(ids)), trained, tokenizer),
    }


def _texts(ids: Sequence[int], places: range, trained: set[int], tokenizer: Any) -> list[dict[str, Any]]:
    """Tokens as texts; those that are parts of one character come together."""
    found: list[dict[str, Any]] = []
    waiting: list[int] = []
    for place in places:
        waiting.append(ids[place])
        text = tokenizer.decode(waiting, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        ends = place + 1 not in places or (place + 1 in trained) != (place in trained)
        if not text.endswith("�") or len(waiting) >= _GROUP or ends:
            found.append({"text": text, "trained": place in trained})
            waiting = []
    return found
