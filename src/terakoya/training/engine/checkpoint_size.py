"""What a run will write: checkpoints while it trains, and the model that comes out. Arithmetic only."""

from __future__ import annotations

from dataclasses import asdict, dataclass

KEPT_CHECKPOINTS = 2
_MARGIN = 1.1
_CHECKPOINT_BYTES, _RESULT_BYTES = 12, 4
"""Of a trained parameter: its weight and AdamW's two moments; its weight."""
_SMALL_FILES = 16_000_000
"""Tokenizer, configuration, events and report."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    checkpoints_bytes: int
    """Those that are kept and the one that is being written."""
    result_bytes: int
    needed_bytes: int
    """All of it, with a tenth to spare."""
    link_bytes: int = 0
    """What the run leaves in its chain for the next task, if it is part of one."""

    @classmethod
    def of(cls, trained_parameters: int, *, keeps_best: bool = False, link_bytes: int = 0) -> DiskNeed:
        """``keeps_best``: early stopping keeps the best one besides."""
        checkpoints = (KEPT_CHECKPOINTS + 1 + keeps_best) * _CHECKPOINT_BYTES * trained_parameters
        result = _RESULT_BYTES * trained_parameters + _SMALL_FILES
        return cls(checkpoints, result, int((checkpoints + result + link_bytes) * _MARGIN), link_bytes)

    def shortage(self, free_bytes: int) -> str | None:
        """Return what to say if so much is not free; None if it is."""
        if self.needed_bytes <= free_bytes:
            return None
        return (
            f"the run writes about {self.needed_bytes / 1e9:.2f} GB ({self._parts}) "
            f"and {free_bytes / 1e9:.2f} GB are free in the data folder; free some space"
        )

    @property
    def _parts(self) -> str:
        return "checkpoints, the result and its link in the chain" if self.link_bytes else "checkpoints and the result"

    def to_json(self) -> dict[str, int]:
        return asdict(self)
