"""What a person says of their columns: which one is the prompt, the answer, and so on. Checks it and makes the shape
that reads such rows. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping

from terakoya.data.shapes import FlatShape, ListShape, PreferenceShape, Shape, TextShape
from terakoya.exceptions import InvalidConfig

MEANINGS = ("prompt", "input", "answer", "system", "messages", "text", "chosen", "rejected", "split")
MAX_COLUMN_CHARACTERS = 200
_COMBINATIONS = (
    "prompt and answer (also input, system), or messages (also system), or prompt, chosen and rejected (also input, "
    "system), or text; split with any of them"
)


def shape_of(mapping: Mapping[str, str]) -> Shape:
    """Return the shape that reads rows as ``mapping`` (meaning -> column) says. Raises: InvalidConfig."""
    _check_names(mapping)
    meanings = frozenset(mapping) - {"split"}
    split = mapping.get("split", "split")
    system = mapping.get("system", "system")
    match sorted(meanings - {"system", "input"}):
        case ["answer", "prompt"]:
            return FlatShape(
                "mapped prompt-answer", mapping["prompt"], mapping["answer"], mapping.get("input"), system, split
            )
        case ["messages"] if "input" not in meanings:
            return ListShape("mapped messages", mapping["messages"], system, split)
        case ["chosen", "prompt", "rejected"]:
            return PreferenceShape(
                "mapped preference",
                mapping["chosen"],
                mapping["rejected"],
                mapping["prompt"],
                mapping.get("input"),
                system,
                split,
            )
        case ["chosen", "rejected"] if "input" not in meanings:
            return PreferenceShape(
                "mapped preference", mapping["chosen"], mapping["rejected"], system=system, split=split
            )
        case ["text"] if meanings == {"text"}:
            return TextShape("mapped text", mapping["text"], split)
    raise InvalidConfig(f"a mapping names {_COMBINATIONS}; got {sorted(mapping)}")


def _check_names(mapping: Mapping[str, str]) -> None:
    for meaning, column in mapping.items():
        if meaning not in MEANINGS:
            raise InvalidConfig(f"a mapping can name {', '.join(MEANINGS)}; got {meaning[:40]!r}")
        if not 1 <= len(column) <= MAX_COLUMN_CHARACTERS:
            raise InvalidConfig(
                f"the column for {meaning!r} has 1 to {MAX_COLUMN_CHARACTERS} characters; got {len(column)}"
            )
    for own in ("system", "split"):  # columns of these names are read as such unless another one is named
        if own not in mapping and (taken := [meaning for meaning, column in mapping.items() if column == own]):
            raise InvalidConfig(
                f"the column {own!r} is read as the {own} of a row, and here as its {taken[0]} too; name another "
                f"column as {own!r}, or rename this one"
            )
    columns = list(mapping.values())
    if twice := {column for column in columns if columns.count(column) > 1}:
        raise InvalidConfig(f"a mapping names each column once; {sorted(twice)[0]!r} has several meanings")
