"""The loss curve of a run in few points, for lists of runs. Reads the run's own event log; knows no chart."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

POINTS = 40


def curve_of(events: Path) -> list[float]:
    """Return up to 40 losses, evenly over the steps, each the mean of the steps it stands for.

    A step told again under a later attempt counts as that told it.
    """
    losses: dict[int, float] = {}
    attempts: dict[int, int] = {}
    with events.open("rb") as file:
        for line in file:
            if b'"type":"step"' not in line:
                continue
            try:
                event = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            step, attempt = event["step"], event["attempt"]
            if attempts.get(step, attempt) < attempt:
                losses = {known: loss for known, loss in losses.items() if known < step}
            losses[step], attempts[step] = event["loss"], attempt
    ordered = [losses[step] for step in sorted(losses)]
    count = min(POINTS, len(ordered))
    edges = [place * len(ordered) // count for place in range(count + 1)] if count else []
    parts = [ordered[start:end] for start, end in pairwise(edges)]
    return [round(sum(part) / len(part), 4) for part in parts]
