"""Takes a multipart form apart as its bytes arrive: the file's bytes are handed on at once, short text fields are
kept. Knows nothing of HTTP or of files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from terakoya.exceptions import AppException, TooLarge

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096


class BadForm(AppException):
    """A multipart body that is malformed or lacks its file."""

    code = "bad_form"


class MultipartReader:
    """Feed it chunks; it returns the bytes of the file part, and has ``fields`` and ``filename`` in the end."""

    def __init__(self, content_type: str, *, file_field: str) -> None:
        """Raises: BadForm unless ``content_type`` is multipart/form-data with a boundary."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
            raise BadForm(
                f"expected a multipart/form-data form with a file in the field {file_field!r}; "
                f"got the content type {content_type[:100]!r}"
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._file_field = file_field
        self._has_file = False
        self._ended = False
        self._pieces: list[bytes] = []
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._part = ""
        self._text = bytearray()
        self._parser = MultipartParser(boundary, self._callbacks())  # type: ignore[arg-type]

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return what of ``chunk`` belongs to the file. Raises: BadForm, TooLarge."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise BadForm(f"the multipart form is malformed: {error}") from error
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Raises: BadForm if the form ended early or held no file."""
        if not self._ended:
            raise BadForm("the multipart form ends before its closing boundary")
        if not self._has_file:
            raise BadForm(f"the form has no file in the field {self._file_field!r}; it has {sorted(self.fields)}")

    def _callbacks(self) -> dict[str, Callable[..., Any]]:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._text = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part != self._file_field:
            if len(self.fields) >= MAX_FIELDS:
                raise TooLarge(f"a form may have {MAX_FIELDS} fields besides its file")
            return
        if self._has_file:
            raise BadForm(f"the form has more than one file in the field {self._file_field!r}; send one at a time")
        self._has_file = True
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace") or None

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == self._file_field:
            self._pieces.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise TooLarge(f"the form field {self._part[:100]!r} may hold {MAX_FIELD_BYTES} bytes; more were sent")

    def _on_part_end(self) -> None:
        if self._part != self._file_field:
            self.fields[self._part] = self._text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True
