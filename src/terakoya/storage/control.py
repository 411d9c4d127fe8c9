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
    PAUSE = "pause"
    """Stop at the next step with a checkpoint, to go on from it later."""


def request_action(task_dir: Path, action: Action, *, error: str | None = None, error_code: str | None = None) -> None:
    """``error``: why a task that is cancelled without anybody's wish has then failed."""
    write_durably(task_dir / _FILE, to_json({"action": action, "error": error, "error_code": error_code}))


def requested_action(task_dir: Path) -> Action | None:
    """Cheap enough for every step: one failed ``open`` while nothing is asked."""
    try:
        return Action(json.loads((task_dir / _FILE).read_bytes())["action"])
    except FileNotFoundError:
        return None


def reason_to_stop(task_dir: Path) -> tuple[str, str] | None:
    """Return the error and its code for which the task was asked to stop; None if a person asked, or nobody."""
    try:
        asked = json.loads((task_dir / _FILE).read_bytes())
    except FileNotFoundError:
        return None
    error, code = asked.get("error"), asked.get("error_code")
    return (error, code) if error and code else None


def withdraw_action(task_dir: Path) -> None:
    (task_dir / _FILE).unlink(missing_ok=True)
