"""How pages write sizes, counts and headline figures. Pure functions; knows nothing of templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Translate = Callable[..., str]


def bytes_text(size_bytes: int) -> str:
    size, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    digits = 1 if unit != "B" and size < 10 else 0
    return f"{size:.{digits}f} {unit}"


def count_text(number: int) -> str:
    return f"{number:,}"


def parameters_text(parameters: int) -> str:
    """135M, 1.7B: as model names write them."""
    if parameters >= 10**9:
        return f"{parameters / 10**9:.1f}B"
    return f"{parameters / 10**6:.0f}M" if parameters >= 10**6 else f"{parameters:,}"


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def part_name(translate: Translate, vocabulary: str, name: str) -> str:
    """Return what a word of the shared vocabulary is called; another package's goes by its own name."""
    text = translate(f"{vocabulary}.{name}")
    return name if text == f"{vocabulary}.{name}" else text


def strategy_name(translate: Translate, strategy: str, about: str = "") -> str:
    """Return a strategy's name, or with ``about`` what it does; another package's goes by its own name."""
    key = f"strategy.{strategy}" + (f".{about}" if about else "")
    text = translate(key)
    return text if text != key else ("" if about else strategy)


def headline(translate: Translate, values: Mapping[str, Any]) -> str:
    """Return the figure that decided the verdict, before and after, of a run's result or a model's card."""
    heldout, verdict = values.get("heldout"), values.get("verdict")
    if not heldout or not verdict:
        return ""
    is_share = verdict["metric"] in ("exact_match", "preference_accuracy")
    before, after = (format(verdict[side], ".1%" if is_share else ".2f") for side in ("before", "after"))
    if is_share:
        return translate("%(before)s → %(after)s right", before=before, after=after)
    return translate("Loss %(before)s → %(after)s", before=before, after=after)


def sparkline(values: Mapping[str, Any]) -> str:
    """Return a run's loss curve as points of a polyline in a box of 100 by 28, "" with fewer than two."""
    curve = [float(loss) for loss in values.get("curve") or ()]
    if len(curve) < 2:
        return ""
    low, high = min(curve), max(curve)
    height = high - low or 1.0
    last = len(curve) - 1
    return " ".join(f"{100 * x / last:.1f},{26 - 24 * (loss - low) / height:.1f}" for x, loss in enumerate(curve))


def score_text(value: float | None, is_share: bool) -> str:
    """Return a cell of a matrix: a share in per cent, a loss with three digits; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.1%}" if is_share else f"{value:.3f}"


def change_text(value: float | None, is_share: bool) -> str:
    """Return a difference of two cells with its sign: of shares in points."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}" if is_share else f"{value:+.3f}"


def rise_text(share: float) -> str:
    return f"{share:+.1%}"


HEATS = 10


def heat(value: float, cells: Sequence[Sequence[float | None]], less_is_better: bool) -> int:
    """Return how strong a cell's tint is, 0 to 10, the stronger the better: shares by themselves, losses by the range
    there is.
    """
    if not less_is_better:
        return round(HEATS * min(max(value, 0.0), 1.0))
    known = [cell for row in cells for cell in row if cell is not None]
    low, high = min(known), max(known)
    return HEATS if high == low else round(HEATS * (high - value) / (high - low))


def verdict_code(values: Mapping[str, Any]) -> str:
    """Return the verdict's code for a run's result or a model's card, "none" without a report."""
    return str((values.get("verdict") or {}).get("code", "none"))
