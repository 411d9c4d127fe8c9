from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terakoya.data.examples import prompt_key, read_examples
from terakoya.data.formats import parse_line, parse_row
from terakoya.data.importing import ImportOptions, RowFiles, import_file, import_rows
from terakoya.data.splits import split_rows
from terakoya.domain.datasets import Example, Message
from terakoya.exceptions import InvalidDataset

# A busy machine is no reason to fail: what is tested is what comes out, not how fast.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda value: bool(value.strip())
)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    [
        *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "question", "answer"),
        *("chosen", "rejected", "text", "system", "split"),
    ]
)
message_like = st.dictionaries(st.sampled_from(["role", "content", "name"]), json_value | st.just("user"))


@patiently
@given(st.dictionaries(field_names, json_value | st.lists(message_like, max_size=3)))
def test_a_row_is_read_or_refused_but_never_breaks_the_parser(row: dict[str, Any]) -> None:
    try:
        example = parse_row(row, 1)
    except InvalidDataset:
        return
    if example.text is not None:
        assert example.text.strip()
        assert example.messages == ()
        return
    assert example.messages[-1].role == "assistant"
    assert all(message.content.strip() for message in example.messages if message.role != "system")


@patiently
@given(st.text())
def test_a_line_is_an_object_or_refused(line: str) -> None:
    with contextlib.suppress(InvalidDataset):
        assert isinstance(parse_line(line), dict)


@patiently
@given(st.binary(max_size=200))
def test_any_bytes_are_imported_or_refused(tmp_path_factory: Any, content: bytes) -> None:
    upload = Path(tmp_path_factory.getbasetemp()) / "any-bytes"
    upload.write_bytes(content)
    with contextlib.suppress(InvalidDataset), RowFiles(io.BytesIO()) as files:
        import_rows(upload, files, ImportOptions())


@patiently
@given(st.lists(st.tuples(text, text), min_size=1, max_size=5), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_goes_in_comes_out_in_every_unicode_encoding(
    tmp_path_factory: Any, pairs: list[tuple[str, str]], encoding: str
) -> None:
    folder = Path(tmp_path_factory.getbasetemp())
    lines = [json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=False) for prompt, answer in pairs]
    (folder / "upload").write_bytes("\n".join(lines).encode(encoding))

    (folder / "rows").unlink(missing_ok=True)
    imported = import_file(folder / "upload", folder / "rows", ImportOptions())

    found = [(example.messages[0].content, example.answer) for example in read_examples(folder / "rows")]
    assert found == pairs
    assert imported.rows == len(pairs)


@patiently
@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=40),
    st.floats(0, 0.9),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_a_split_loses_nothing_shares_no_prompt_and_does_not_depend_on_order(
    prompts: list[str], fraction: float, seed: int, random: Any
) -> None:
    examples = [Example(n, (Message("user", p), Message("assistant", "x"))) for n, p in enumerate(prompts)]
    shuffled = random.sample(examples, len(examples))

    train, heldout = ([examples[place] for place in places] for places in split_rows(examples, fraction, seed))
    other = [shuffled[place] for place in split_rows(shuffled, fraction, seed)[1]]

    assert sorted(e.row for e in train + heldout) == list(range(len(prompts)))
    assert not {prompt_key(e) for e in train} & {prompt_key(e) for e in heldout}
    assert {e.row for e in heldout} == {e.row for e in other}
    assert bool(heldout) == (fraction > 0 and len(set(prompts)) > 1)
