"""What the documents path does for a person: the sample documents indexed by a real server, then 52 questions about
them that were written by hand (``sample_questions.jsonl``).

    python benchmarks/answers.py [--data-dir DIR]

``ja`` and ``en`` are answered by a document in the question's language, ``across`` by one in the other, ``absent`` by
none. An answer counts if it holds the expected fact, a refusal if nothing is claimed. The rules for choosing sentences
were made while looking at these questions. ``--data-dir``: a folder with the embedder already fetched, on which no
server runs. Writes ``benchmarks/results/answers.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
from machine import describe_machine, save
from serving import server

from terakoya import Client
from terakoya.models.sources import EMBEDDER

COLLECTION = "answers-benchmark"
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = options.data_dir or Path(folder) / "data"
        with server(data_dir) as (url, pid, _), Client(url) as client:
            fetch_embedder(client)
            save("answers", measure(client, psutil.Process(pid)), machine)


def fetch_embedder(client: Client) -> None:
    if EMBEDDER not in {model["name"] for model in client.models.list()}:
        for _ in client.watch(client.models.pull(EMBEDDER)):
            pass


def measure(client: Client, web: psutil.Process) -> dict[str, Any]:
    memory = {"idle": round(web.memory_info().rss / MB)}
    indexing = index_samples(client)
    memory["with_the_index_open"] = round(web.memory_info().rss / MB)
    questions = [
        json.loads(line) for line in Path(__file__).with_name("sample_questions.jsonl").read_text().splitlines()
    ]
    client.search(questions[0]["question"], collection=COLLECTION)  # opens the dictionary
    searches = [seconds_of(lambda q=q: client.search(q["question"], collection=COLLECTION)) for q in questions]
    asked = [(q, *timed(lambda q=q: client.ask(q["question"], collection=COLLECTION))) for q in questions]
    memory["after_the_questions"] = round(web.memory_info().rss / MB)
    right, of = Counter[str](), Counter[str]()
    wrong = []
    for question, answer, _ in asked:
        of[question["kind"]] += 1
        if is_right(question, answer):
            right[question["kind"]] += 1
        else:
            wrong.append(question["question"])
    client.collections.delete(COLLECTION)
    return {
        "right": {kind: f"{right[kind]} of {of[kind]}" for kind in of},
        "wrong": wrong,
        "search_ms": spread(searches),
        "ask_ms": spread([seconds for *_, seconds in asked]),
        "indexing": indexing,
        "web_rss_mb": memory,
    }


def index_samples(client: Client) -> dict[str, Any]:
    if COLLECTION in {info["name"] for info in client.collections.list()}:
        client.collections.delete(COLLECTION)
    client.collections.create(COLLECTION)
    started = time.perf_counter()
    with resources.as_file(resources.files("terakoya") / "samples" / "documents") as folder:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".md", ".txt", ".html", ".pdf"))
        added = [client.documents.add(path, collection=COLLECTION) for path in files]
    for one in added:
        for _ in client.watch(one["task_id"]):
            pass
    seconds = round(time.perf_counter() - started, 1)
    documents = client.documents.list(collection=COLLECTION)
    assert all(document["status"] == "ready" for document in documents), documents
    return {
        "documents": len(documents),
        "passages": sum(document["passages"] for document in documents),
        "seconds_with_the_model_server_starting": seconds,
    }


def is_right(question: dict[str, Any], answer: dict[str, Any]) -> bool:
    if question["fact"] is None:
        return bool(answer["verdict"] == "not_in_documents")
    return answer["verdict"] == "answered" and question["fact"] in answer["answer"]


def timed(call: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def seconds_of(call: Any) -> float:
    return timed(call)[1]


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * statistics.median(ordered), 1),
        "p95": round(1000 * ordered[int(0.95 * len(ordered))], 1),
    }


if __name__ == "__main__":
    main()
