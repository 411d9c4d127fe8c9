"""What a model or data set may be called, and when two names are the same name. Knows nothing of what is named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from terakoya.exceptions import InvalidConfig

MAX_NAME_LENGTH = 100
_FORBIDDEN = frozenset('/\\?#%"<>|')
_LOOKS_LIKE_ID = re.compile(r"[a-z]+_[0-9a-hjkmnp-tv-z]{26}")


def check_name(name: str) -> str:
    """Return the name as it is stored: NFC, without outer spaces.

    Raises: InvalidConfig if it is empty, too long, could be taken for an id, or could not stand in a URL path.
    """
    stored = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(stored) <= MAX_NAME_LENGTH:
        raise InvalidConfig(f"a name has 1 to {MAX_NAME_LENGTH} characters; got {len(stored)}: {stored[:40]!r}")
    if stored.startswith(".") or not stored.isprintable() or _FORBIDDEN & set(stored):
        raise InvalidConfig(
            f"the name {stored!r} cannot be used: it may not start with '.' nor hold control characters "
            f"or any of {' '.join(sorted(_FORBIDDEN))}"
        )
    if _LOOKS_LIKE_ID.fullmatch(name_key(stored)):  # what it is compared by: TASK_01... in capitals too
        raise InvalidConfig(f"the name {stored!r} looks like a generated id; choose another")
    return stored


def name_key(name: str) -> str:
    """Return what names are compared by: width (Ａ = A) and case do not tell two names apart."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'a' or 'b'?", or what there is, for the end of a not-found message."""
    names = sorted(known)
    if not names:
        return "; there are none yet"
    by_key = {name_key(name): name for name in names}
    close = [by_key[key] for key in get_close_matches(name_key(wanted), by_key, n=3, cutoff=0.5)]
    if close:
        return f"; did you mean {' or '.join(repr(name) for name in close)}?"
    shown = ", ".join(repr(name) for name in names[:5])
    return f"; there are {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
