"""Malformed headers of safetensors and GGUF: always UnsafeArtifact, never another exception, never a crash."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import UnsafeArtifact
from terakoya.models.gguf_header import read_gguf_header
from terakoya.models.safetensors_header import read_safetensors_header

GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def safetensors_file(path: Path, header: Any, payload: bytes = b"\0" * 24, *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + payload)
    return path


def test_a_good_header_gives_types_and_shapes(tmp_path: Path) -> None:
    file = safetensors_file(tmp_path / "x.safetensors", {"__metadata__": {"format": "pt"}, **GOOD})
    entry = read_safetensors_header(file)["a"]
    assert (entry.dtype, entry.shape, entry.elements) == ("F32", (2, 3), 6)


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b'{"a": ', "not JSON"),
        (b" {}", "starts with"),
        (b"[1, 2]", "starts with"),
        (b'{"a":' * 50_000, "not JSON"),
        (b'{"a": 1, "a": 2}', "not JSON"),
        (b"{\xff}", "not JSON"),
        ({"a": 5}, "malformed"),
        ({"a": {"dtype": "F32"}}, "malformed"),
        ({"__metadata__": {"x": 1}, **GOOD}, "__metadata__"),
        (entry(dtype="PICKLE"), "unknown type"),
        (entry(dtype=["F32"]), "unknown type"),
        (entry(shape=(2, -3)), "malformed shape"),
        (entry(shape=(2, 3.0)), "malformed shape"),
        (entry(shape=(True, 6)), "malformed shape"),
        (entry(shape=(2**62, 2**62), offsets=(0, 24)), "claims 24 bytes"),
        (entry(offsets=(0, 2**64)), "malformed shape or place"),
        (entry(offsets=(24, 0)), "claims -24 bytes"),
        (entry(offsets=(8, 32)), "starts at 8"),
        ({**GOOD, "b": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]}}, "overlap"),
        ({}, "fill 0 bytes of the 24"),
    ],
)
def test_each_false_claim_is_named(tmp_path: Path, header: Any, match: str) -> None:
    with pytest.raises(UnsafeArtifact, match=match):
        read_safetensors_header(safetensors_file(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize("length", [0, 1, 10**9, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_never_read(tmp_path: Path, length: int) -> None:
    with pytest.raises(UnsafeArtifact, match="header claims"):
        read_safetensors_header(safetensors_file(tmp_path / "x.safetensors", GOOD, length=length))


def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = safetensors_file(tmp_path / "x.safetensors", GOOD).read_bytes()
    for size in range(len(whole)):
        (tmp_path / "x.safetensors").write_bytes(whole[:size])
        with pytest.raises(UnsafeArtifact):
            read_safetensors_header(tmp_path / "x.safetensors")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_headers_give_the_one_error(tmp_path: Path, tiny_gguf: ModelArtifact, data: st.DataObject) -> None:
    """Bytes of real headers are overwritten at random places."""
    safe = safetensors_file(tmp_path / "x.safetensors", {"__metadata__": {"format": "pt"}, **GOOD}).read_bytes()
    gguf = (tiny_gguf.path / "tiny.gguf").read_bytes()
    for raw, suffix, read in ((safe, "safetensors", read_safetensors_header), (gguf, "gguf", read_gguf_header)):
        spoiled = bytearray(raw)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, min(len(raw), 6000) - 1))
            new = data.draw(st.binary(min_size=1, max_size=8))
            spoiled[place : place + len(new)] = new
        (tmp_path / f"x.{suffix}").write_bytes(spoiled)
        with contextlib.suppress(UnsafeArtifact):
            read(tmp_path / f"x.{suffix}")


def test_a_good_gguf_header_gives_its_facts(tiny_gguf: ModelArtifact) -> None:
    facts = read_gguf_header(tiny_gguf.path / "tiny.gguf")
    assert facts["general.architecture"] == "llama"
    assert facts["llama.embedding_length"] == 64


def test_a_cut_gguf_is_refused(tiny_gguf: ModelArtifact, tmp_path: Path) -> None:
    whole = (tiny_gguf.path / "tiny.gguf").read_bytes()
    for size in (0, 3, 4, 8, 20, 100, 1000, 5000):
        (tmp_path / "x.gguf").write_bytes(whole[:size])
        with pytest.raises(UnsafeArtifact, match=r"x\.gguf"):
            read_gguf_header(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"GGML" + b"\0" * 20, "GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "fields"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63), "bytes in a field's name"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "array of type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 10**6), "ends inside"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 9), "9 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 2**40, 0, 0), "tensors reach"),
    ],
)
def test_each_false_claim_of_a_gguf_is_named(tmp_path: Path, raw: bytes, match: str) -> None:
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises(UnsafeArtifact, match=match):
        read_gguf_header(tmp_path / "x.gguf")
