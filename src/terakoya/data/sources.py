"""An uploaded file as a stream of bytes, unpacked on the way if it is gzip, under a cap. Knows nothing of text."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from terakoya.exceptions import InvalidDataset

GZIP = b"\x1f\x8b"
MOST_RATIO = 300
"""Text of a data set shrinks to a third or a tenth; what shrinks more than this is a bomb."""
_RATIO_COUNTS_FROM = 64 * 2**20
_CHUNK_BYTES = 2**20
_PACKED_BYTES = 64 * 2**10


class Source:
    """One file. It can be read from the beginning as often as needed."""

    def __init__(self, path: Path, *, limit_bytes: int | None = None) -> None:
        """``limit_bytes`` bounds what comes out of a compressed file."""
        self.path = path
        self._limit = limit_bytes

    @cached_property
    def compression(self) -> str | None:
        with self.path.open("rb") as file:
            return "gzip" if file.read(len(GZIP)) == GZIP else None

    def head(self, size: int) -> bytes:
        """Return the first bytes. Raises: InvalidDataset for a damaged archive."""
        taken = bytearray()
        for chunk in self.chunks():
            taken += chunk
            if len(taken) >= size:
                break
        return bytes(taken[:size])

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of up to 1 MiB.

        Raises: InvalidDataset for an archive that is damaged or unpacks to more than it may.
        """
        return self._plain() if self.compression is None else self._unpacked()

    def _plain(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from iter(lambda: file.read(_CHUNK_BYTES), b"")

    def _unpacked(self) -> Iterator[bytes]:
        packed = unpacked = 0
        with self.path.open("rb") as file:
            member = zlib.decompressobj(wbits=31)
            rest = b""
            try:
                while rest := rest or file.read(_PACKED_BYTES):
                    if member.eof:
                        if not rest.strip(b"\0"):  # padding after the last member
                            rest = b""
                            continue
                        member = zlib.decompressobj(wbits=31)
                    before = len(rest)
                    piece = member.decompress(rest, _CHUNK_BYTES)
                    rest = member.unused_data if member.eof else member.unconsumed_tail
                    packed += before - len(rest)
                    unpacked += len(piece)
                    self._check(packed, unpacked)
                    if piece:
                        yield piece
                while not member.eof and (piece := member.decompress(b"", _CHUNK_BYTES)):
                    unpacked += len(piece)
                    self._check(packed, unpacked)
                    yield piece
            except zlib.error as error:
                raise InvalidDataset(f"the gzip archive is damaged ({error}); pack it again") from error
            if not member.eof:
                raise InvalidDataset("the gzip archive is cut off; upload the whole file")

    def _check(self, packed: int, unpacked: int) -> None:
        if self._limit is not None and unpacked > self._limit:
            raise InvalidDataset(
                f"the gzip archive unpacks to more than the {self._limit:,} bytes that an upload may have; "
                "cut the data into several files"
            )
        if unpacked > _RATIO_COUNTS_FROM and unpacked > MOST_RATIO * packed:
            raise InvalidDataset(
                f"the gzip archive unpacks to more than {MOST_RATIO} times its size, which no training data does; "
                "upload it without compression if it is sound"
            )
