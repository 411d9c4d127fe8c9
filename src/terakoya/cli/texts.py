"""The command line's texts in the reader's language, from TERAKOYA_LANGUAGE or the locale. The message id is the
English text, so English loads no catalogue; keys shared with the pages, such as ``phase.training``, do.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from terakoya.i18n import DEFAULT_LANGUAGE, choose_language, load_catalogue


@cache
def language() -> str:
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
    tag = locale.partition(".")[0].replace("_", "-")
    return choose_language(default=os.environ.get("TERAKOYA_LANGUAGE", "auto"), accepted=tag)


def _(message: str, /, **values: Any) -> str:
    """Return a text of the command line; ``%(name)s`` is filled from ``values``."""
    if language() != DEFAULT_LANGUAGE:
        message = load_catalogue(language(), "cli").texts.get(message, message)
    return message % values if values else message


def explain(kind: str, code: str, message: object) -> str:
    """Return an "error" or "warning" for the reader: English as it is, in another language behind a headline."""
    headline = "" if language() == DEFAULT_LANGUAGE else load_catalogue(language()).texts.get(f"{kind}.{code}", "")
    return f"{headline}\n{message}" if headline else str(message)


def shared(key: str, *, otherwise: str | None = None, **values: Any) -> str:
    """Return the text of a dotted key that pages and command line share; an unknown key is ``otherwise`` or itself."""
    text = load_catalogue(language()).texts.get(key)
    if text is None:
        return otherwise if otherwise is not None else key.rpartition(".")[2].replace("_", " ")
    return text % values if values else text
