"""Parquet, a batch of rows at a time. Only columns that somebody may ask for are decoded: others may be embeddings
or pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from terakoya.data.readers.rows import Rows
from terakoya.exceptions import InvalidDataset

SIGNATURE = b"PAR1"
_BATCH_ROWS = 256
_BUFFER_BYTES = 2**20


def read_parquet(file: BinaryIO, wanted: Collection[str]) -> Rows:
    """Yield the rows with their position from 1; of columns that are not ``wanted`` only the names, for counting.

    Raises: InvalidDataset if the file is damaged, or a batch of its rows needs more memory than there is.
    """
    import pyarrow.parquet as parquet

    with file, _damage_is_named():
        table = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        names = table.schema_arrow.names
        columns = [name for name in names if name in wanted] or names[:8]
        others = dict.fromkeys((name for name in names if name not in columns), ...)
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row | others


@contextmanager
def _damage_is_named() -> Iterator[None]:
    import pyarrow as arrow

    try:
        yield
    except (MemoryError, arrow.ArrowMemoryError) as error:
        raise InvalidDataset(
            "a part of the Parquet file needs more memory than an import may use; write it with smaller row groups"
        ) from error
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidDataset(f"the Parquet file is damaged or of a kind that is not read: {reason}") from error
