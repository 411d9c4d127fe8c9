"""What became of long rows, in words: a run's warning and a plan's finding say it alike."""

from __future__ import annotations

from terakoya.data.long_rows import LongRowReport


def long_rows_text(told: LongRowReport) -> str:
    """Return such as "37 rows have more than 1,024 tokens: cut there, which loses 4.1% of all answer tokens"."""
    rows = f"{told.rows:,} training rows have more than {told.limit:,} tokens (the longest {told.longest:,})"
    lost = f"{told.lost_share:.1%} of all answer tokens"
    gone = f"; of {told.dropped:,} nothing is left" if told.dropped else ""
    if told.policy == "drop":
        return f"{rows}: left out, and with them {lost}"
    if told.policy == "truncate":
        return f"{rows}: cut there, which loses {lost}{gone}"
    if told.policy == "split":
        return f"{rows}: split into {told.pieces:,} pieces, which loses nothing"
    return f"{rows} and are refused; cut there they would lose {lost}"
