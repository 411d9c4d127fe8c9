"""Where a document came from: a path in a folder or archive, as a label that never becomes a path here. The same path
with other content is the same document's next version.
"""

from __future__ import annotations

import unicodedata

from terakoya.exceptions import InvalidConfig

MAX_SOURCE_CHARACTERS = 1_000
_MAX_PARTS = 64


def check_source(path: str) -> str:
    """Return it as it is stored: NFC, with slashes.

    Raises: InvalidConfig if it is absolute, leads out of its folder, or holds what cannot be printed.
    """
    source = unicodedata.normalize("NFC", path.replace("\\", "/"))
    parts = source.split("/")
    if not 0 < len(source) <= MAX_SOURCE_CHARACTERS or len(parts) > _MAX_PARTS:
        raise InvalidConfig(
            f"a path has 1 to {MAX_SOURCE_CHARACTERS:,} characters in at most {_MAX_PARTS} parts; got "
            f"{len(source):,} characters in {len(parts):,}: {source[:40]!r}"
        )
    if any(part.strip() in ("", ".", "..") for part in parts) or parts[0].endswith(":"):
        raise InvalidConfig(
            f"a path leads from a folder to a file below it, as 'rules/leave.md' does; got {path[:200]!r}"
        )
    if any(unicodedata.category(character)[0] == "C" for character in source):
        raise InvalidConfig(f"a path holds only what can be printed; got {path[:200]!r}")
    return source
