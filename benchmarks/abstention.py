"""Fits and judges abstention: does the collection hold the answer? JSQuAD and SciFact, in collections of four sizes; a
question whose passages are taken out has no answer there.

    TERAKOYA_BENCH_DATA=... python benchmarks/abstention.py --data-dir DIR [--cache DIR]

``--data-dir``: a data folder with the embedder (``terakoya models pull multilingual-e5-small-q4``). Embeddings are
computed once and kept in ``--cache``. One table serves both languages, fitted on both corpora. Articles (in SciFact,
claims) fall into two halves: what is fitted on one half judges the other, which gives the figures and the threshold;
the coefficients are then fitted on both halves.
Prints the tables for ``rag/core/abstention_table.py`` and writes ``benchmarks/results/abstention.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, save

from terakoya.domain.documents import Hit, Language, Passage, StoreHit, Terms
from terakoya.models.client import ModelServerClient
from terakoya.models.embedder import RegisteredEmbedder
from terakoya.models.sources import EMBEDDER
from terakoya.rag.core import abstention
from terakoya.rag.core.abstention import features_of
from terakoya.rag.retrieval.analysis import terms_of
from terakoya.rag.retrieval.fusion import Fused, fuse
from terakoya.rag.retrieval.sparse import passage_vector, query_vector
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

SIZES = (12, 40, 300, None)
"""Passages a collection; None is all of them."""
SCIFACT_DOCUMENTS = 1000
"""Every relevant one and others at random: all 5,183 would take an hour to embed on two cores."""
KEPT = 0.9
QUESTIONS = "jsquad"
"""The threshold is set on questions, which is what people ask; SciFact's claims are none."""
DENSE_ONLY = ("dense_top", "dense_gap_2", "dense_gap_10")
RIDGE = 1.0
CANDIDATES = 50

abstention.terms_of = cache(terms_of)  # type: ignore[attr-defined]  each passage is met in many collections


@dataclass(frozen=True)
class Question:
    text: str
    gold: frozenset[int]
    """Passages that answer it, by number."""
    half: int


@dataclass(frozen=True)
class Corpus:
    name: str
    language: Language
    titles: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[str]
    """What belongs together, such as an article: it stays together in a small collection."""
    questions: Sequence[Question]


def rows(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        sys.exit(f"{name} is not there: set TERAKOYA_BENCH_DATA to the folder that has it")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def half_of(key: str) -> int:
    return random.Random(key).randrange(2)


def jsquad() -> Corpus:
    passages = rows("jsquad/passages.jsonl")
    number = {row["id"]: place for place, row in enumerate(passages)}
    questions = [
        Question(row["question"], frozenset({number[row["passage_id"]]}), half_of(row["passage_id"].rpartition("-")[0]))
        for row in rows("jsquad/questions.jsonl")
    ]
    titles = [row["title"] for row in passages]
    texts = [row["text"].removeprefix(row["title"]).strip() for row in passages]
    return Corpus("jsquad", Language.JAPANESE, titles, texts, titles, questions)


def scifact() -> Corpus:
    relevant = defaultdict(set)
    for row in rows("scifact/qrels.jsonl"):
        relevant[row["query_id"]].add(row["document_id"])
    gold = set().union(*relevant.values())
    documents = rows("scifact/corpus.jsonl")
    others = [row for row in documents if row["id"] not in gold]
    random.Random(0).shuffle(others)
    kept = [row for row in documents if row["id"] in gold] + others[: SCIFACT_DOCUMENTS - len(gold)]
    number = {row["id"]: place for place, row in enumerate(kept)}
    questions = [
        Question(row["text"], frozenset(number[one] for one in relevant[row["id"]]), half_of(row["id"]))
        for row in rows("scifact/queries.jsonl")
        if relevant[row["id"]]
    ]
    names = [row["id"] for row in kept]
    return Corpus("scifact", Language.ENGLISH, [r["title"] for r in kept], [r["text"] for r in kept], names, questions)


async def embed(corpora: Sequence[Corpus], data_dir: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return [texts, dimension] by name, from the cache where it is there."""
    wanted: dict[str, tuple[list[str], bool]] = {}
    for corpus in corpora:
        passages = [f"{title}\n{text}" for title, text in zip(corpus.titles, corpus.texts, strict=True)]
        wanted[f"{corpus.name}-passages-{len(passages)}"] = (passages, False)
        wanted[f"{corpus.name}-questions"] = ([question.text for question in corpus.questions], True)
    found = {name: np.load(path) for name in wanted if (path := folder / f"{name}.npy").exists()}
    missing = [name for name in wanted if name not in found]
    if not missing:
        return found
    house = DataDir(data_dir)
    repository = SqlModelRepository(open_database(house), house)
    client = ModelServerClient(
        socket_path=folder / "server.sock", log_path=folder / "server.log", cache_bytes=1 << 31, threads=os.cpu_count()
    )
    embedder = RegisteredEmbedder(repository, client)
    model = repository.find(EMBEDDER).id
    for name in missing:
        texts, is_query = wanted[name]
        work = embedder.embed_queries if is_query else embedder.embed_passages
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            vectors[chosen] = await work(model, [texts[place] for place in chosen])
            print(f"{name}: {start + len(chosen)} of {len(texts)}", file=sys.stderr)
        np.save(folder / f"{name}.npy", vectors)
        found[name] = vectors
    await client.stop()
    return found


class Collection:
    """Some passages of a corpus, searched as the store does: cosine, and BM25 with this collection's own rarity."""

    def __init__(self, corpus: Corpus, members: Sequence[int], vectors: np.ndarray, terms: Sequence[Terms]) -> None:
        self.members = np.array(members)
        self._corpus = corpus
        self._vectors = vectors[self.members]
        average = sum(sum(terms[place].values()) for place in members) / len(members)
        self._postings: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for row, place in enumerate(members):
            sparse = passage_vector(terms[place], average)
            for term, value in zip(sparse.indices, sparse.values, strict=True):
                self._postings[term].append((row, value))

    def hits(self, vector: np.ndarray, terms: Terms, without: frozenset[int]) -> list[Hit]:
        """Return the fused hits; ``without`` takes passages out of what was found."""
        cosines = self._vectors @ vector
        scores = np.zeros(len(self.members))
        weights = query_vector(terms)
        for term, weight in zip(weights.indices, weights.values, strict=True):
            postings = self._postings.get(term, ())
            rarity = math.log(1 + (len(self.members) - len(postings) + 0.5) / (len(postings) + 0.5))
            for row, value in postings:
                scores[row] += weight * value * rarity
        out = np.isin(self.members, list(without))
        dense = [row for row in np.argsort(-cosines)[: CANDIDATES + len(without)] if not out[row]][:CANDIDATES]
        sparse = [row for row in np.argsort(-scores) if scores[row] > 0 and not out[row]][:CANDIDATES]
        found = fuse(_ranked(dense, cosines), _ranked(sparse, scores))
        return [self._hit(one) for one in found]

    def _hit(self, one: Fused) -> Hit:
        place = self.members[int(one.id)]
        text = self._corpus.texts[place]
        passage = Passage(one.id, one.id, 1, 0, 0, len(text), text)
        ranks = (one.dense_score, one.dense_rank, one.sparse_score, one.sparse_rank)
        return Hit(passage, self._corpus.titles[place], one.score, *ranks)


def _ranked(rows: Sequence[int], scores: np.ndarray) -> list[StoreHit]:
    return [StoreHit(str(row), float(scores[row])) for row in rows]


def collections(corpus: Corpus, size: int | None) -> Iterator[list[int]]:
    """Cut the corpus into collections of about ``size`` passages; what belongs together stays together."""
    if size is None:
        yield list(range(len(corpus.texts)))
        return
    groups: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(corpus.groups):
        groups[group].append(place)
    order = list(groups.values())
    random.Random(size).shuffle(order)
    members: list[int] = []
    for group in order:
        # A long article alone would be a collection about one thing.
        members += group[: max(4, size // 4)]
        if len(members) >= size:
            yield members
            members = []


@dataclass(frozen=True)
class Sample:
    corpus: str
    size: str
    half: int
    is_answerable: bool
    features: dict[str, float]


def samples(corpus: Corpus, vectors: dict[str, np.ndarray], limit: int) -> Iterator[Sample]:
    passage_vectors = vectors[f"{corpus.name}-passages-{len(corpus.texts)}"]
    question_vectors = vectors[f"{corpus.name}-questions"]
    terms = [terms_of(f"{title}\n{text}") for title, text in zip(corpus.titles, corpus.texts, strict=True)]
    question_terms = [terms_of(question.text) for question in corpus.questions]
    for size in SIZES:
        chosen = random.Random(1).sample(range(len(corpus.questions)), min(limit, len(corpus.questions)))
        for members in collections(corpus, size):
            there = set(members)
            collection = Collection(corpus, members, passage_vectors, terms)
            for place in chosen:
                question = corpus.questions[place]
                if not question.gold <= there:
                    continue
                for is_answerable in (True, False):
                    out = frozenset() if is_answerable else question.gold
                    hits = collection.hits(question_vectors[place], question_terms[place], out)
                    if hits:
                        features = features_of(question.text, question_terms[place], hits, passages=len(members))
                        yield Sample(corpus.name, str(size or "all"), question.half, is_answerable, features)


@dataclass(frozen=True)
class Fitted:
    names: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    """The last one is the intercept."""

    def probabilities(self, found: Sequence[Sample]) -> np.ndarray:
        values = (matrix(found, self.names) - self.mean) / self.deviation
        return 1 / (1 + np.exp(-(values @ self.weights[:-1] + self.weights[-1])))


def matrix(found: Sequence[Sample], names: Sequence[str]) -> np.ndarray:
    return np.array([[sample.features[name] for name in names] for sample in found])


def fit(found: Sequence[Sample], names: Sequence[str]) -> Fitted:
    """Logistic regression with a ridge, by Newton's method; each corpus and size of collection counts the same."""
    raw = matrix(found, names)
    mean, deviation = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-6)
    values = np.hstack([(raw - mean) / deviation, np.ones((len(raw), 1))])
    labels = np.array([float(sample.is_answerable) for sample in found])
    share = shares(found)
    weights = np.zeros(values.shape[1])
    ridge = RIDGE * np.eye(len(weights))
    ridge[-1, -1] = 0.0
    for _ in range(50):
        chance = 1 / (1 + np.exp(-values @ weights))
        gradient = values.T @ (share * (chance - labels)) + ridge @ weights
        curvature = (values * (share * chance * (1 - chance))[:, None]).T @ values + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return Fitted(tuple(names), mean, deviation, weights)


def crossed(found: Sequence[Sample], names: Sequence[str]) -> np.ndarray:
    """Return each sample's probability by what was fitted on the other half."""
    chance = np.zeros(len(found))
    for half in (0, 1):
        fitted = fit([sample for sample in found if sample.half != half], names)
        places = [place for place, sample in enumerate(found) if sample.half == half]
        chance[places] = fitted.probabilities([found[place] for place in places])
    return chance


def threshold_of(found: Sequence[Sample], chance: np.ndarray) -> float:
    """Return the probability that 90% of the answerable questions reach, corpus and size counting the same."""
    answerable = np.array([sample.is_answerable for sample in found])
    return round(weighted_quantile(chance[answerable], shares(found)[answerable], 1 - KEPT), 3)


def shares(found: Sequence[Sample]) -> np.ndarray:
    strata = [(sample.corpus, sample.size) for sample in found]
    count = {stratum: strata.count(stratum) for stratum in set(strata)}
    return np.array([len(found) / len(count) / count[stratum] for stratum in strata])


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, share)])


def judge(found: Sequence[Sample], chance: np.ndarray, threshold: float) -> dict[str, Any]:
    """Area under the curve with a 95% bootstrap interval, and what the threshold keeps and rejects."""
    labels = np.array([sample.is_answerable for sample in found])
    positive, negative = chance[labels], chance[~labels]
    drawn = np.random.default_rng(0)
    areas = [area(drawn.choice(positive, len(positive)), drawn.choice(negative, len(negative))) for _ in range(500)]
    low, high = np.quantile(areas, [0.025, 0.975])
    exact = float(np.quantile(positive, 1 - KEPT))
    return {
        "questions": len(positive),
        "auc": round(area(positive, negative), 3),
        "auc_interval": [round(float(low), 3), round(float(high), 3)],
        "kept": round(float((positive >= threshold).mean()), 3),
        "rejected": round(float((negative < threshold).mean()), 3),
        "rejected_when_exactly_90_percent_are_kept": round(float((negative < exact).mean()), 3),
    }


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """The chance that an answerable question scores higher (Mann-Whitney), ties counting half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).mean() / 2 / len(negative))


def alone(found: Sequence[Sample], names: Sequence[str]) -> dict[str, float]:
    """Return what each feature does by itself, in whichever direction it is better."""
    areas = {
        name: area(*(np.array([s.features[name] for s in found if s.is_answerable == side]) for side in (True, False)))
        for name in names
    }
    return {name: round(max(value, 1 - value), 3) for name, value in areas.items()}


def table_text(name: str, title: str, fitted: Fitted, threshold: float) -> str:
    lines = [
        f'        "{feature}": ({weight:.4f}, {mean:.4f}, {deviation:.4f}),'
        for feature, weight, mean, deviation in zip(
            fitted.names, fitted.weights, fitted.mean, fitted.deviation, strict=False
        )
    ]
    head = [f"{name} = Table(", f'    "{title}",', f"    {fitted.weights[-1]:.4f},", "    {"]
    return "\n".join((*head, *lines, "    },", f"    {threshold},", ")"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "terakoya-benchmarks")
    parser.add_argument("--questions", type=int, default=1200, help="at most, of a corpus and size")
    options = parser.parse_args()
    machine = describe_machine()
    options.cache.mkdir(parents=True, exist_ok=True)
    corpora = [jsquad(), scifact()]
    vectors = asyncio.run(embed(corpora, options.data_dir, options.cache))
    found = [sample for corpus in corpora for sample in samples(corpus, vectors, options.questions)]
    names = tuple(found[0].features)
    chances = crossed(found, names)
    asked = [place for place, sample in enumerate(found) if sample.corpus == QUESTIONS]
    threshold = threshold_of([found[place] for place in asked], chances[asked])
    figures: dict[str, Any] = {"threshold": threshold}
    for corpus in corpora:
        mine = [place for place, sample in enumerate(found) if sample.corpus == corpus.name]
        own, chance = [found[place] for place in mine], chances[mine]
        figures[corpus.name] = judge(own, chance, threshold) | {
            "auc_fitted_on_this_corpus_alone": judge(own, crossed(own, names), threshold)["auc"]
        }
        for size in dict.fromkeys(sample.size for sample in own):
            places = [place for place, sample in enumerate(own) if sample.size == size]
            part = [own[place] for place in places]
            figures[f"{corpus.name}-{size}"] = judge(part, chance[places], threshold) | {
                "auc_of_one_feature": alone(part, names)
            }
    print(table_text("WITHIN_LANGUAGE", "within_language", fit(found, names), threshold))
    chance = crossed(found, DENSE_ONLY)
    threshold = threshold_of(found, chance)
    figures["dense_only"] = judge(found, chance, threshold)
    print(table_text("ACROSS_LANGUAGES", "across_languages", fit(found, DENSE_ONLY), threshold))
    print(f"\nwritten to {save('abstention', figures, machine)}", file=sys.stderr)


if __name__ == "__main__":
    main()
