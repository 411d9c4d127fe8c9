"""Entry point: measures what training a model in some way costs on this machine, for a plan. Killed on time.

Reads one JSON object from standard input, ``{"artifact", "resolved", "threads", "parent"}``; writes the measured
costs, or ``{"error", "code"}``, to standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from typing import Any

from terakoya.exceptions import AppException, TrainingError
from terakoya.security.confinement import die_first, die_with_parent


def main() -> None:
    started = time.monotonic()
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    die_first()
    die_with_parent(request["parent"])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as result, contextlib.redirect_stdout(sys.stderr):
        json.dump(answer(request, started), result)


def answer(request: dict[str, Any], started: float) -> dict[str, Any]:
    from terakoya.models.wire import artifact_from_json
    from terakoya.training.defaults import ResolvedTraining
    from terakoya.training.measuring import measure

    try:
        return measure(
            artifact_from_json(request["artifact"]),
            ResolvedTraining.from_json(request["resolved"]),
            threads=request["threads"],
            start_seconds=time.monotonic() - started,
        ).to_json()
    except AppException as error:
        return {"error": str(error), "code": error.code}
    except Exception as error:  # noqa: BLE001  the libraries' many ways to refuse a model; the plan then does without
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:1000], "code": TrainingError.code}


if __name__ == "__main__":
    main()
