"""A tiny encoder in the packed form that embedders are fetched in, written byte by byte, and the folder made of it."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind

HIDDEN, LAYERS, HEADS, FEED_FORWARD, POSITIONS = 32, 2, 2, 64, 48
PIECES = (
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "▁",
    "▁A",
    "▁prompt",
    "寺子屋",
    "～",
    *"abcdefghijklmnopqrstuvwxyzA.,:0123寺子屋",
)
ROWS = len(PIECES) + 3
NORMALIZATION = {"Ａ": "A", "①": "1", "\t": " "}


def packed_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """By the file's names, of values that 4 bits hold exactly where they are packed."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (ROWS, HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (2, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, (out, into) in {
            **dict.fromkeys(("q", "k", "v", "ao"), (HIDDEN, HIDDEN)),
            "fi": (FEED_FORWARD, HIDDEN),
            "fo": (HIDDEN, FEED_FORWARD),
        }.items():
            shapes |= {f"l{layer}.{name}.w": (out, into), f"l{layer}.{name}.b": (out,)}
        for name in ("aln", "oln"):
            shapes |= {f"l{layer}.{name}.w": (HIDDEN,), f"l{layer}.{name}.b": (HIDDEN,)}
    return {
        name: (random.integers(-8, 8, shape) * 0.0625).astype(np.float32)
        if is_q4(name)
        else random.normal(1.0 if name.endswith("ln.w") else 0.0, 0.1, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def is_q4(name: str) -> bool:
    return name == "emb.word" or (name.endswith(".w") and not name.endswith("ln.w"))


def packed_file(seed: int = 0) -> bytes:
    """The whole file: header, vocabulary, normalisation, directory, tensors."""
    blob = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, blob)]).astype("<u4").tobytes()
    scores = np.array([0.0 if i < 4 else -1.0 if len(p) > 1 else -5.0 for i, p in enumerate(PIECES)], "<f4").tobytes()
    header = b"E5S1" + struct.pack(
        "<I7ifi", 1, HIDDEN, LAYERS, HEADS, FEED_FORWARD, ROWS, POSITIONS, 2, 1e-12, 32
    )  # fmt: skip
    vocabulary = struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, blob))) + offsets + scores + b"".join(blob)
    table = b"".join(
        struct.pack("<IB", ord(source), len(target)) + struct.pack(f"<{len(target)}I", *map(ord, target))
        for source, target in NORMALIZATION.items()
    )
    start = header + vocabulary + struct.pack("<iI", len(NORMALIZATION), len(table)) + table
    tensors = {name: (values.size, _raw(name, values)) for name, values in packed_tensors(seed).items()}
    at = len(start) + 4 + sum(2 + len(name) + 21 for name in tensors)
    directory = struct.pack("<i", len(tensors))
    for name, (elements, raw) in tensors.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", int(is_q4(name)), elements, at, len(raw))
        at += len(raw)
    return start + directory + b"".join(raw for _, raw in tensors.values())


def build_tiny_embedder(directory: Path, *, seed: int = 0) -> Path:
    """Write the tiny encoder as the folder that is registered and return it."""
    from terakoya.models.e5_conversion import convert_e5

    directory.parent.mkdir(parents=True, exist_ok=True)
    source = directory.with_suffix(".bin")
    source.write_bytes(packed_file(seed))
    convert_e5(source, directory)
    return directory


def embedder_artifact(folder: Path, name: str = "tiny-embedder") -> ModelArtifact:
    size = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0
    info = ModelInfo(
        id=f"model_{name}",
        name=name,
        kind=ModelKind.EMBEDDER,
        architecture="bert",
        parameters=0,
        size_bytes=size,
        content_sha256=f"{hash((name, str(folder))) & (2**64 - 1):064x}",
        source="test",
        license="",
        created_at=datetime.now(UTC),
        card={"dimension": HIDDEN},
    )
    return ModelArtifact(info, folder)


def _raw(name: str, values: np.ndarray) -> bytes:
    if not is_q4(name):
        return values.astype("<f4").tobytes()
    blocks = values.reshape(-1, 32)
    halves = (blocks / 0.0625 + 8).astype(np.uint8)
    scale = np.full((len(blocks), 1), 0.0625, "<f2").view(np.uint8).reshape(len(blocks), 2)
    return np.concatenate([scale, halves[:, :16] | (halves[:, 16:] << 4)], axis=1).tobytes()
