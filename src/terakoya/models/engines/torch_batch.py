"""The PyTorch engine's one thread: it writes the answers of each opened base side by side, whichever adapters they are
for, and lets new ones in between two steps. Knows nothing of how a base is opened.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque

from terakoya.models.cache import SharedBase
from terakoya.models.engines.torch_row import Opening, TorchRow
from terakoya.models.row_batch import RowBatch

ROWS = 8
"""Answers written at once on one base."""
POOL_TOKENS = 16_384
"""What all of them may have together, prompts included and each as long as the longest; a single one may have more."""


class TorchBatches:
    """Rows are put in from any thread."""

    def __init__(self) -> None:
        self._batches: dict[object, _Batch] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, shared: SharedBase, wanted: Opening) -> None:
        """Queue a row, or a model to be opened. The base must stay lent until that has ended."""
        with self._changed:
            self._batches.setdefault(shared.key, _Batch(shared)).waiting.append(wanted)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pytorch-batches", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._batches:
                    self._changed.wait()
            self._round()

    def _round(self) -> None:
        """Let each base have its turn. Names nothing beyond it: a base that is closed meanwhile is to be freed."""
        with self._changed:
            batches = list(self._batches.items())
        for key, batch in batches:
            with batch.shared.lock:
                batch.turn()
                while not batch.is_empty and len(self._batches) == 1:
                    batch.turn()
            with self._changed:
                if batch.is_empty:
                    del self._batches[key]


class _Batch:
    """The answers on one base: those being written and those that wait, in the order they came."""

    def __init__(self, shared: SharedBase) -> None:
        self.shared = shared
        self.waiting: deque[Opening] = deque()
        self._rows: list[TorchRow] = []
        self._batch: RowBatch | None = None
        """While there are rows."""

    @property
    def is_empty(self) -> bool:
        return not self._rows and not self.waiting

    def turn(self) -> None:
        """Let in who may join, then write a token of each row."""
        try:
            while self.waiting and self._may_join(self.waiting[0]) and self._open(self.waiting.popleft()):
                pass
            if self._rows:
                self._step()
        except Exception as error:  # noqa: BLE001  of a library: who waits hears of it, and the thread goes on
            traceback.print_exc()
            self._end_all(error)

    def _end_all(self, error: Exception) -> None:
        for row in self._rows:
            row.end(error)
            self.shared.give_back(row.adapter)
        self._rows, self._batch = [], None

    def _may_join(self, wanted: Opening) -> bool:
        if self._batch is None or not self._rows or self.shared.is_broken:
            return True
        if not isinstance(wanted, TorchRow):
            return True
        if wanted.waits_for_all or not self._batch.can_hold_several:
            return False
        longest = max(row.most_tokens for row in (*self._rows, wanted))
        if len(self._rows) >= ROWS or longest * (len(self._rows) + 1) > POOL_TOKENS:
            return False
        first = self._rows[0].adapter
        return self.shared.can_mix(first) or wanted.artifact.info.content_sha256 == first

    def _open(self, wanted: Opening) -> bool:
        """Return whether the next may try."""
        if wanted.is_cancelled() or self.shared.is_broken:
            wanted.is_to_be_asked_again = self.shared.is_broken
            wanted.end()
            return True
        try:
            adapter = self.shared.take(wanted.artifact)
        except Exception as error:  # noqa: BLE001  is for whoever wanted it alone
            wanted.end(error)
            return True
        if not isinstance(wanted, TorchRow):
            self.shared.give_back(adapter)
            wanted.end()
            self._use()
            return True
        if {row.adapter for row in self._rows} - {adapter} and not self.shared.can_mix(adapter):
            self.shared.give_back(adapter)
            self._use()
            wanted.waits_for_all = True
            self.waiting.appendleft(wanted)
            return False
        self._join(wanted, adapter)
        return True

    def _join(self, row: TorchRow, adapter: str | None) -> None:
        loaded = self.shared.loaded
        if self._batch is None:
            self._batch = RowBatch(loaded.module)
        row.adapter = adapter
        self._rows.append(row)
        row.join(loaded)
        self.shared.use([adapter])
        if not row.take(self._batch.join(row.task.prompt.ids)):
            self._drop_ended({len(self._rows) - 1})
        self._use()

    def _step(self) -> None:
        assert self._batch is not None  # there are rows
        logits = self._batch.step([row.token for row in self._rows])
        ended = {place for place, row in enumerate(self._rows) if not row.take(logits[place])}
        if ended:
            self._drop_ended(ended)
            self._use()

    def _drop_ended(self, ended: set[int]) -> None:
        assert self._batch is not None  # there were rows
        for place in ended:
            self.shared.give_back(self._rows[place].adapter)
        kept = [place for place in range(len(self._rows)) if place not in ended]
        self._batch.keep(kept)
        self._rows = [self._rows[place] for place in kept]
        if not self._rows:
            self._batch = None

    def _use(self) -> None:
        if self._rows:
            self.shared.use([row.adapter for row in self._rows])
