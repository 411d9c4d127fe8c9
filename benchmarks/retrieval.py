"""How well and how fast passages are found: JSQuAD (Japanese) and SciFact (English), through the real index.

    TERAKOYA_BENCH_DATA=... python benchmarks/retrieval.py --data-dir DIR [--cache DIR] [--dense jsquad,scifact]

``--data-dir``: a data folder with the embedder (``terakoya models pull multilingual-e5-small-q4``). ``--dense``: the
corpora that are embedded too, once, into ``--cache``; SciFact's 5,183 abstracts take minutes. Passages are written to
Qdrant Edge in a temporary folder and the database, then searched as the product does; the latency is that of
``Retriever.search``, with its embedding of the question and with the embedding already there. JSQuAD: JGLUE v1.3, CC
BY-SA 4.0, the 4,442 questions of valid over the 2,304 passages of valid and test. SciFact: BEIR's test set, CC BY 4.0.
Analysis and weights were chosen on these questions, so the figures are not those of unseen data. Writes
``benchmarks/results/retrieval.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import describe_machine, save

from terakoya.domain.document_ports import Embedder
from terakoya.domain.documents import CollectionInfo, IndexPoint, Language, Passage, StoreHit, Vector
from terakoya.domain.retrieval import FUSIONS, RetrievalSettings
from terakoya.evaluation.statistics import bootstrap_mean
from terakoya.models.client import ModelServerClient
from terakoya.models.embedder import RegisteredEmbedder
from terakoya.models.sources import EMBEDDER
from terakoya.rag.indexing.passage_text import indexed_text
from terakoya.rag.retrieval.analysis import terms_of
from terakoya.rag.retrieval.fusion import fuse
from terakoya.rag.retrieval.retriever import Retriever
from terakoya.rag.retrieval.sparse import K1, B, passage_vector, query_vector
from terakoya.storage.database import open_database
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.vector_store.edge import EdgeVectorStore

DIMENSION = 384
CANDIDATES = 50
TIMED = 300
"""Questions whose searches are timed."""


@dataclass(frozen=True)
class Corpus:
    name: str
    titles: Sequence[str]
    texts: Sequence[str]
    questions: Sequence[str]
    relevant: Sequence[frozenset[int]]
    """Passages that answer each question, by number."""

    def indexed(self) -> list[str]:
        return [indexed_text(title, (), text) for title, text in zip(self.titles, self.texts, strict=True)]


class Given:
    """An embedder that has the vectors already."""

    def __init__(self, vectors: Mapping[str, Vector]) -> None:
        self._vectors = vectors

    async def embed_passages(self, model_id: str, texts: Sequence[str]) -> Vector:
        raise NotImplementedError

    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        return np.stack([self._vectors[text] for text in texts])


def rows(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        sys.exit(f"{name} is not there: set TERAKOYA_BENCH_DATA to the folder that has it")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jsquad() -> Corpus:
    passages, questions = rows("jsquad/passages.jsonl"), rows("jsquad/questions.jsonl")
    number = {row["id"]: place for place, row in enumerate(passages)}
    return Corpus(
        "jsquad",
        [row["title"] for row in passages],
        [row["text"].removeprefix(row["title"]).strip() for row in passages],
        [row["question"] for row in questions],
        [frozenset({number[row["passage_id"]]}) for row in questions],
    )


def scifact() -> Corpus:
    documents, queries = rows("scifact/corpus.jsonl"), rows("scifact/queries.jsonl")
    number = {row["id"]: place for place, row in enumerate(documents)}
    relevant: dict[str, set[int]] = {row["id"]: set() for row in queries}
    for row in rows("scifact/qrels.jsonl"):
        relevant[row["query_id"]].add(number[row["document_id"]])
    return Corpus(
        "scifact",
        [row["title"] for row in documents],
        [row["text"] for row in documents],
        [row["text"] for row in queries],
        [frozenset(relevant[row["id"]]) for row in queries],
    )


async def vectors_of(corpus: Corpus, embedder: Embedder, cache: Path) -> tuple[Vector, Vector]:
    """Return passages' and questions' vectors, [texts, dimension], from the cache where they are there."""
    found = []
    for kind, texts in (("passages", corpus.indexed()), ("questions", list(corpus.questions))):
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
        path = cache / f"{corpus.name}-{kind}-{digest}.npy"
        if not path.exists():
            work = embedder.embed_passages if kind == "passages" else embedder.embed_queries
            order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
            vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
            for start in range(0, len(order), 64):
                chosen = order[start : start + 64]
                vectors[chosen] = await work(EMBEDDER, [texts[place] for place in chosen])
                print(f"{path.name}: {start + len(chosen)} of {len(texts)}", file=sys.stderr)
            np.save(path, vectors)
        found.append(np.load(path))
    return found[0], found[1]


@dataclass
class House:
    """A data folder with one collection of one corpus, each passage a document's only one by its place."""

    documents: SqlDocumentRepository
    store: EdgeVectorStore
    collection: CollectionInfo
    ids: list[str]
    seconds: dict[str, float]


async def build(corpus: Corpus, vectors: Vector, data_dir: DataDir) -> House:
    documents = SqlDocumentRepository(open_database(data_dir), data_dir)
    collection = documents.add_collection(
        corpus.name, embedder_id=EMBEDDER, embedder_sha256="0" * 64, dimension=DIMENSION
    )
    upload = data_dir.uploads / "corpus.txt"
    upload.write_text("corpus")
    document = documents.add_document(
        collection.id, upload, title=corpus.name, filename="corpus.txt", parser="plain", content_sha256="1" * 64
    )
    started = time.perf_counter()
    terms = [terms_of(text) for text in corpus.indexed()]
    analysed = time.perf_counter()
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{corpus.name}-{place}")) for place in range(len(terms))]
    text, passages, at = "\n".join(corpus.texts), [], 0
    for place, part in enumerate(corpus.texts):
        passages.append((Passage(ids[place], document.id, 1, place, at, at + len(part), part), terms[place]))
        at += len(part) + 1
    documents.save_parsed(
        document.id, text=text, title=None, language=Language.JAPANESE, pages=None, notices=(), passages=passages
    )
    documents.set_ready(document.id)
    average = sum(sum(one.values()) for one in terms) / len(terms)
    store = EdgeVectorStore(data_dir.index)
    await store.create(collection.id, dimension=DIMENSION)
    ready = time.perf_counter()
    points = [
        IndexPoint(one, document.id, vector, passage_vector(counts, average))
        for one, vector, counts in zip(ids, vectors, terms, strict=True)
    ]
    for start in range(0, len(points), 256):
        await store.upsert(collection.id, points[start : start + 256])
    seconds = {"analyse": round(analysed - started, 2), "upsert": round(time.perf_counter() - ready, 2)}
    seconds["terms_per_passage"] = round(average, 1)
    return House(documents, store, documents.find_collection(collection.id), ids, seconds)


def scores(ranking: Sequence[str], relevant: frozenset[str]) -> tuple[float, float]:
    """Return nDCG@10 and recall@10 of one ranking; relevance is yes or no."""
    gains = [1 / math.log2(rank + 2) for rank, one in enumerate(ranking[:10]) if one in relevant]
    best = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
    return sum(gains) / best, len(gains) / len(relevant)


async def quality(corpus: Corpus, house: House, questions: Vector | None) -> dict[str, Any]:
    rankings: dict[str, list[list[str]]] = {}
    for place, question in enumerate(corpus.questions):
        sparse = await house.store.search_sparse(
            house.collection.id, query_vector(terms_of(question)), limit=CANDIDATES
        )
        found = {"sparse": _ids(sparse)}
        if questions is not None:
            dense = await house.store.search_dense(house.collection.id, questions[place], limit=CANDIDATES)
            found["dense"] = _ids(dense)
            found |= {
                f"hybrid_{name}": [one.id for one in fuse(dense, sparse, RetrievalSettings(name))] for name in FUSIONS
            }
        for name, ranking in found.items():
            rankings.setdefault(name, []).append(ranking)
    relevant = [frozenset(house.ids[place] for place in places) for places in corpus.relevant]
    return {name: _summary(ranked, relevant) for name, ranked in rankings.items()}


async def latency(house: House, embedder: Embedder, questions: Sequence[str]) -> dict[str, Any]:
    retriever = Retriever(store=house.store, documents=house.documents, embedder=embedder)
    for question in questions[:5]:
        await retriever.search(house.collection, question)
    whole, stages = [], defaultdict(list)
    used = _model_server_seconds()
    for question in questions:
        started = time.perf_counter()
        found = await retriever.search(house.collection, question)
        whole.append(time.perf_counter() - started)
        for stage, seconds in found.seconds.items():
            stages[stage].append(seconds)
    figures: dict[str, Any] = {name: _milliseconds(whole, share) for name, share in (("p50", 50), ("p95", 95))}
    figures["model_server_cpu"] = round(1000 * (_model_server_seconds() - used) / len(questions), 1)
    return figures | {"p50_by_stage": {stage: _milliseconds(seconds, 50) for stage, seconds in stages.items()}}


async def measure(corpus: Corpus, embedder: Embedder, cache: Path, *, dense: bool) -> dict[str, Any]:
    size = len(corpus.texts)
    passages, questions = await vectors_of(corpus, embedder, cache) if dense else (_unit(size), None)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = DataDir(Path(folder)).create()
        house = await build(corpus, passages, data_dir)
        figures: dict[str, Any] = {"passages": size, "questions": len(corpus.questions), **house.seconds}
        figures["quality"] = await quality(corpus, house, questions)
        if questions is not None:
            timed = corpus.questions[:: max(1, len(corpus.questions) // TIMED)][:TIMED]
            given = Given({text.strip(): row for text, row in zip(corpus.questions, questions, strict=True)})
            figures["search_ms"] = {
                "embedding_given": await latency(house, given, timed),
                "with_embedding": await latency(house, embedder, timed),
            }
        await house.store.close()
    print(json.dumps(figures), file=sys.stderr)
    return figures


def _ids(hits: Sequence[StoreHit]) -> list[str]:
    return [hit.id for hit in hits]


def _model_server_seconds() -> float:
    """CPU time of our children: what the load of a shared machine does not change."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return float(sum(time.user + time.system for time in times))


def _milliseconds(seconds: Sequence[float], share: float) -> float:
    return round(1000 * float(np.percentile(seconds, share)), 1)


def _unit(size: int) -> Vector:
    return np.tile(np.eye(1, DIMENSION, dtype=np.float32), (size, 1))


def _summary(rankings: Sequence[Sequence[str]], relevant: Sequence[frozenset[str]]) -> dict[str, Any]:
    pairs = [scores(ranking, gold) for ranking, gold in zip(rankings, relevant, strict=True)]
    ndcg = bootstrap_mean([one for one, _ in pairs])
    recall = bootstrap_mean([one for _, one in pairs])
    return {"ndcg_at_10": _rounded(ndcg.to_json()), "recall_at_10": _rounded(recall.to_json())}


def _rounded(interval: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in interval.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "terakoya-retrieval")
    parser.add_argument("--dense", default="jsquad")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    models = DataDir(arguments.data_dir)
    client = ModelServerClient(
        socket_path=arguments.cache / "server.sock",
        log_path=arguments.cache / "server.log",
        cache_bytes=1 << 31,
        threads=os.cpu_count() or 1,
    )
    embedder = RegisteredEmbedder(SqlModelRepository(open_database(models), models), client)
    figures: dict[str, Any] = {"k1": K1, "b": B, "candidates": CANDIDATES, "embedder": EMBEDDER}
    for corpus in (jsquad(), scifact()):
        figures[corpus.name] = await measure(
            corpus, embedder, arguments.cache, dense=corpus.name in arguments.dense.split(",")
        )
    await client.stop()
    save("retrieval", figures, machine)


if __name__ == "__main__":
    asyncio.run(main())
