"""What the first attempt of a run measured and chose, for the attempts after it: a speed measured anew on a busier
machine could choose another compute type, and the resumed run would end in other weights than the uninterrupted one.
Knows files, not what is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json

_FILE = "decisions.json"


class Decisions:
    def __init__(self, task_dir: Path, *, device: str, is_first_attempt: bool) -> None:
        """What was decided on another device does not bind."""
        self._path = task_dir / _FILE
        self._device = device
        self._kept = {} if is_first_attempt else self._read()

    def once(self, name: str, decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was decided under this name, deciding it if nothing was."""
        if name not in self._kept:
            self._kept[name] = decide()
            write_durably(self._path, to_json({"device": self._device, "decisions": self._kept}))
        kept: dict[str, Any] = self._kept[name]
        return kept

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        decisions: dict[str, Any] = stored["decisions"]
        return decisions if stored["device"] == self._device else {}
