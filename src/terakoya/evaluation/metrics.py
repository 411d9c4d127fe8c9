"""When an answer counts as the reference. Knows nothing of how answers are made."""

from __future__ import annotations

import unicodedata


def normalise_answer(text: str) -> str:
    """Return the text as it is compared: NFKC (full-width letters are letters), runs of white space as one space,
    none outside. Case and punctuation count.
    """
    return _spaced(unicodedata.normalize("NFKC", text))


def is_exact_match(answer: str, reference: str) -> bool:
    return normalise_answer(answer) == normalise_answer(reference)


def may_become(beginning: str, reference: str) -> bool:
    """Whether an answer that begins like this can still match. Errs towards yes where what follows may join the
    last character: an accent, a voicing mark, the rest of a character's bytes.
    """
    said = unicodedata.normalize("NFKD", beginning.rstrip("\N{REPLACEMENT CHARACTER}"))
    while said and unicodedata.combining(said[-1]):
        said = said[:-1]
    return _spaced(unicodedata.normalize("NFKD", reference)).startswith(_spaced(said))


def _spaced(text: str) -> str:
    return " ".join(text.split())
