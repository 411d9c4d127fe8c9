"""Message catalogues: English text or a dotted key in, the reader's language out. Used by pages and command line;
knows nothing of requests.

The .po files are read as they are, without a compile step. A dotted key such as ``phase.training`` has its English
text in ``en``; any other message id is its own English text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES: Mapping[str, str] = {"en": "English", "ja": "日本語"}
DEFAULT_LANGUAGE = "en"
_KEY = re.compile(r"[a-z_]+(\.[a-z_]+)+")


@dataclass(frozen=True)
class Catalogue:
    language: str
    texts: Mapping[str, str]
    script_ids: frozenset[str] = field(default_factory=frozenset)
    """Messages that the pages' scripts use."""

    def gettext(self, message: str, **values: Any) -> str:
        """Return the text in this language; ``%(name)s`` is filled from ``values`` where there are any."""
        text = self.texts.get(message) or message
        return text % values if values else text

    def for_scripts(self) -> dict[str, str]:
        return {message: self.texts[message] for message in sorted(self.script_ids) if message in self.texts}


@cache
def load_catalogue(language: str, domain: str = "terakoya") -> Catalogue:
    """Read a language's catalogue, once; ``cli`` is the domain of the command line's own texts.

    Raises: KeyError for a language that is not in LANGUAGES.
    """
    from babel.messages.pofile import read_po  # 70 ms that `terakoya --help` need not pay

    LANGUAGES[language]
    path = files("terakoya") / "locale" / language / "LC_MESSAGES" / f"{domain}.po"
    with path.open("rb") as stream:
        catalogue = read_po(stream, locale=language, domain=domain)
    messages = [message for message in catalogue if message.id and not message.fuzzy]
    return Catalogue(
        language=language,
        texts={str(message.id): str(message.string) for message in messages if message.string},
        script_ids=frozenset(
            str(message.id)
            for message in messages
            if is_key(str(message.id)) or any(name.endswith(".js") for name, _ in message.locations)
        ),
    )


def is_key(message: str) -> bool:
    """Whether this is a dotted key of the shared vocabulary rather than English text."""
    return _KEY.fullmatch(message) is not None


def choose_language(*, chosen: str | None = None, accepted: str = "", default: str = "auto") -> str:
    """Return the language to speak: the person's choice, else the setting, else the best of Accept-Language."""
    if chosen is not None and chosen in LANGUAGES:
        return chosen
    if default in LANGUAGES:
        return default
    return next((tag for tag in _accepted_tags(accepted) if tag in LANGUAGES), DEFAULT_LANGUAGE)


def _accepted_tags(header: str) -> Iterable[str]:
    """Primary language tags of an Accept-Language header, the most wanted first; malformed parts are passed over."""
    weighted: list[tuple[float, str]] = []
    for part in header[:1000].split(","):
        tag, _, parameter = part.strip().partition(";")
        try:
            weight = float(parameter.strip().removeprefix("q=") or 1.0)
        except ValueError:
            continue
        if weight > 0:
            weighted.append((weight, tag.strip().split("-")[0].lower()))
    return [tag for _, tag in sorted(weighted, key=lambda pair: -pair[0])]
