"""Files of each format as numbered rows, streamed: which format a file has, and the table of who reads it."""

from __future__ import annotations

from terakoya.data.readers.detection import OpenedFile, open_file

__all__ = ["OpenedFile", "open_file"]
