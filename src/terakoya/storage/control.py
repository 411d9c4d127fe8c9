"""What a running task is asked to do: ``control.json`` in its directory, written by the web process, looked at by
the worker at each step. Knows nothing of signals, which come when asking did not help.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json

_FILE = "control.json"


class Action(StrEnum):
    CANCEL = "cancel"
    """Stop at the next step, keep a checkpoint if there is one to keep, register nothing."""
    FINISH = "finish"
    """Stop training at the next step, then evaluate and save as if that had been the end."""


def request_action(task_dir: Path, action: Action) -> None:
    write_durably(task_dir / _FILE, to_json({"action": action}))


def requested_action(task_dir: Path) -> Action | None:
    """Cheap enough for every step: one failed ``open`` while nothing is asked."""
    try:
        return Action(json.loads((task_dir / _FILE).read_bytes())["action"])
    except FileNotFoundError:
        return None


def withdraw_action(task_dir: Path) -> None:
    (task_dir / _FILE).unlink(missing_ok=True)
