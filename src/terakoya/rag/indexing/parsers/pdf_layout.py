"""Lines of a PDF to blocks: which lines are one paragraph, which are headings, which repeat on every page. By what
sets them apart on paper -- size, gaps, indents, short lines -- since the file itself does not say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from terakoya.rag.indexing.parsers.parsed import BlockKind, TextWriter, joint
from terakoya.rag.indexing.parsers.pdf_lines import Line

_HEADING_RATIO = 1.15
_SAME_SIZE_RATIO = 1.12
_MAX_HEADING = 120
_MAX_LEVEL = 6
_NEIGHBOURS = 12
_MIN_REPEATS = 3
_ITEM = re.compile(r"(?:[-–•・◦●○■□◆◇※]|\d{1,3}[.)）．]|[(（]\d{1,3}[)）]|[①-⑳])\s*\S")
_ENDED = re.compile(r"[.。！？!?:：][」』）)”\"']*\Z")
_NO_HEADING = re.compile(r"[。、,;]\Z")
_DIGITS = re.compile(r"\d+")


def without_repeats(pages: Sequence[Sequence[Line]]) -> tuple[list[list[Line]], int]:
    """Return the pages without first and last lines that come back, but for numbers, on most pages; and how many
    lines these were.
    """
    counts = Counter(key for lines in pages if lines for key in {_key(lines[0]), _key(lines[-1])})
    needed = max(_MIN_REPEATS, (sum(map(bool, pages)) + 1) // 2)
    repeated = {key for key, times in counts.items() if times >= needed}
    kept: list[list[Line]] = []
    for lines in pages:
        rest = list(lines)
        if len(rest) > 1 and _key(rest[0]) in repeated:
            del rest[0]
        if len(rest) > 1 and _key(rest[-1]) in repeated:
            del rest[-1]
        kept.append(rest)
    return kept, sum(map(len, pages)) - sum(map(len, kept))


def write_pages(pages: Sequence[Sequence[Line]], out: TextWriter) -> tuple[int, ...]:
    """Write the pages' text and return where each begins."""
    levels = _heading_levels(pages)
    starts: list[int] = []
    before: Line | None = None
    for lines in pages:
        gap = _usual_gap(lines)
        starts.append(out.length)
        for index, line in enumerate(lines):
            level = levels.get(_step(line.size), 0) if _may_be_heading(line) else 0
            is_first = index == 0
            if before is not None and _goes_on(before, line, gap, _margin(lines, index - 1, before), is_first=is_first):
                out.extend_last(joint(before.text, line.text))
                if is_first:
                    starts[-1] = out.length
                out.extend_last(line.text)
            else:
                kind = BlockKind.HEADING if level else BlockKind.LIST if _ITEM.match(line.text) else BlockKind.PARAGRAPH
                out.add(kind, line.text, level=level)
                if is_first:
                    starts[-1] = out.length - len(line.text)
            before = line
    return tuple(starts)


def _goes_on(before: Line, line: Line, usual_gap: float, margin: float, *, is_first: bool) -> bool:
    """Whether ``line`` continues the block that ``before`` ends. ``margin``: where lines like it reach."""
    size = max(before.size, line.size, 0.1)
    if max(before.size, line.size) > _SAME_SIZE_RATIO * max(0.1, min(before.size, line.size)):
        return False
    if _ITEM.match(line.text):
        return False
    is_short = before.right < margin - 2.5 * size
    if is_first or line.top > before.top + size:  # a new page or column
        return not is_short and not _ENDED.search(before.text)
    if before.bottom - line.top > usual_gap + 0.5 * size:
        return False
    if _may_be_heading(before) and _may_be_heading(line) and is_short and not _ENDED.search(before.text):
        return False
    is_indented = line.left - before.left > 0.8 * size and not _ITEM.match(before.text)
    return not is_short and not is_indented


def _margin(lines: Sequence[Line], index: int, before: Line) -> float:
    """Return how far to the right the lines around one reach that begin where it does."""
    if index < 0:
        return before.right
    nearby = lines[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS]
    return max(
        (line.right for line in nearby if abs(line.left - before.left) < 4 * max(before.size, 0.1)),
        default=before.right,
    )


def _usual_gap(lines: Sequence[Line]) -> float:
    gaps = [above.bottom - below.top for above, below in pairwise(lines) if below.top < above.top]
    return median(gaps) if gaps else 0.0


def _heading_levels(pages: Sequence[Sequence[Line]]) -> dict[int, int]:
    """Return the level of each size that only headings have: 1 for the largest."""
    characters: Counter[int] = Counter()
    for lines in pages:
        for line in lines:
            characters[_step(line.size)] += len(line.text)
    if not characters:
        return {}
    body = characters.most_common(1)[0][0]
    larger = sorted(
        {
            _step(line.size)
            for lines in pages
            for line in lines
            if _may_be_heading(line) and _step(line.size) >= _HEADING_RATIO * body
        },
        reverse=True,
    )
    return {step: min(level, _MAX_LEVEL) for level, step in enumerate(larger, start=1)}


def _may_be_heading(line: Line) -> bool:
    return len(line.text) <= _MAX_HEADING and not _NO_HEADING.search(line.text)


def _step(size: float) -> int:
    """Sizes in half points: equal sizes differ a little in their boxes."""
    return round(2 * size)


def _key(line: Line) -> str:
    return _DIGITS.sub("#", line.text)
