"""Brings the pages' message catalogues up to date: collects the texts that templates, scripts and modules use, adds
what is missing with an empty translation and drops what is no longer used. Translations are written by hand.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from terakoya.i18n import is_key

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "terakoya"
PARTS = SOURCE / "web"
METHODS = [("templates/**.html", "jinja2"), ("static/js/**.js", "javascript"), ("*.py", "python")]
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
"""Fixed: otherwise every run would be a change."""
KEYWORDS = {"_": None, "translate": None, "mark": None}


def used_texts() -> dict[str, set[str]]:
    """Return each text the pages use with the files that use it."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, _, message, _, _ in extract_from_dir(PARTS, method_map=METHODS, keywords=KEYWORDS):
        text = message if isinstance(message, str) else message[0]
        if not is_key(text):
            found[text].add(f"web/{name}")
    return found


def catalogue_path(language: str) -> Path:
    return SOURCE / "locale" / language / "LC_MESSAGES" / "terakoya.po"


def read_catalogue(language: str) -> Catalog:
    with catalogue_path(language).open("rb") as stream:
        return read_po(stream, locale=language)


def main() -> int:
    """Rewrite the catalogues. Returns the number of texts without a translation."""
    keys = {message.id: message.string for message in read_catalogue("en") if message.id}
    _write("en", {key: (text, set()) for key, text in keys.items()})
    known = {message.id: message.string for message in read_catalogue("ja") if message.id}
    wanted = {key: set[str]() for key in keys} | used_texts()
    texts = {text: (known.get(text, ""), files) for text, files in wanted.items()}
    _write("ja", texts)
    missing = [text for text, (translation, _) in texts.items() if not translation]
    for text in missing:
        print(f"no Japanese text: {text!r}")
    return len(missing)


def _write(language: str, texts: dict[str, tuple[str, set[str]]]) -> None:
    catalogue = Catalog(
        locale=language,
        project="Terakoya",
        fuzzy=False,
        header_comment="# Texts of the pages.",
        creation_date=WRITTEN,
        revision_date=WRITTEN,
    )
    for text, (translation, names) in texts.items():
        catalogue.add(text, translation, locations=[(name, 1) for name in sorted(names)])
    with catalogue_path(language).open("wb") as stream:
        write_po(stream, catalogue, width=0, sort_output=True, include_lineno=False, omit_header=False)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
