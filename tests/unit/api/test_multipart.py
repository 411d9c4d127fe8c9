from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terakoya.api.multipart import MAX_FIELD_BYTES, MAX_FIELDS, BadForm, MultipartReader
from terakoya.exceptions import TooLarge

TYPE = "multipart/form-data; boundary=cut"


def part(disposition: str, content: bytes) -> bytes:
    return b"--cut\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"


FILE = part('name="file"; filename="rows.jsonl"', b"{}\r\n{}")
NAME = part('name="name"', "在庫".encode())
END = b"--cut--\r\n"


def read(body: bytes, chunk_bytes: int = 1000) -> tuple[bytes, MultipartReader]:
    reader = MultipartReader(TYPE, file_field="file")
    chunks = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    content = b"".join(piece for chunk in chunks for piece in reader.feed(chunk))
    reader.finish()
    return content, reader


@given(st.binary(max_size=300), st.integers(1, 40))
def test_the_file_comes_out_as_it_went_in_however_it_is_cut(content: bytes, chunk_bytes: int) -> None:
    if b"\r\n--cut" in b"\r\n" + content:
        return
    body = NAME + part('name="file"; filename="f"', content) + END
    found, reader = read(body, chunk_bytes)
    assert found == content
    assert reader.fields == {"name": "在庫"}
    assert reader.filename == "f"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends before"),
        (FILE, "ends before"),
        (NAME + END, "no file"),
        (FILE + FILE + END, "more than one file"),
        (b"--other\r\n", "malformed"),
        (b"--cut\r\nno header\r\n\r\n", "malformed"),
    ],
)
def test_a_broken_form_is_a_clear_error(body: bytes, message: str) -> None:
    with pytest.raises(BadForm, match=message):
        read(body)


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 201]
)
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(BadForm, match="expected a multipart/form-data form"):
        MultipartReader(content_type, file_field="file")


def test_fields_are_bounded_in_size_and_number() -> None:
    with pytest.raises(TooLarge, match="'name' may hold"):
        read(part('name="name"', b"x" * (MAX_FIELD_BYTES + 1)))
    with pytest.raises(TooLarge, match="fields besides"):
        read(b"".join(part(f'name="f{number}"', b"x") for number in range(MAX_FIELDS + 1)))
