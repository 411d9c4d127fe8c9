"""Runs the two child processes a plan needs, each killed when its time is up: one tokenises the data, one measures the
machine. Knows their protocol, JSON in and JSON out, nothing of what they find.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from terakoya.exceptions import TrainingError
from terakoya.models.wire import error_from_json
from terakoya.security.environment import child_environment

_FACTS, _MEASURE = "terakoya.processes.plan", "terakoya.processes.measure"
FACTS_SECONDS = 20.0
"""After so long no further row is tokenised: the plan is then of a random sample."""
_FACTS_LIMIT_SECONDS = 90.0
_MEASURE_LIMIT_SECONDS = 180.0
_FACTS_MEMORY = 3 << 30


def facts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``plan_facts.gather_facts`` finds. Raises: AppException with the reason if there is none."""
    request = {"spec": spec, "seconds": FACTS_SECONDS, "memory_bytes": _FACTS_MEMORY}
    return _ask(_FACTS, request, _FACTS_LIMIT_SECONDS, "reading the data for a plan")


def measured(artifact: Mapping[str, Any], resolved: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Return ``Measured`` as JSON. Raises: AppException if it cannot be measured."""
    request = {"artifact": artifact, "resolved": resolved, "threads": threads}
    return _ask(_MEASURE, request, _MEASURE_LIMIT_SECONDS, "measuring this machine")


def _ask(module: str, request: dict[str, Any], limit_seconds: float, doing: str) -> dict[str, Any]:
    sent = json.dumps(request | {"parent": os.getpid()}).encode()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module],
            input=sent,
            capture_output=True,
            timeout=limit_seconds,
            env=child_environment(os.environ),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TrainingError(f"{doing} took over {limit_seconds:g} s and was stopped") from error
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        last = f": {lines[-1][:300]}" if lines else ""
        raise TrainingError(f"{doing} ended with exit code {done.returncode}{last}") from error
    if "error" in answer:
        raise error_from_json(answer)
    return answer
