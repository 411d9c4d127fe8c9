"""The stages of ``terakoya demo``, each one thing that a person would do by hand. They raise when it did not happen;
what is printed and timed around them is not theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terakoya.cli.output import remark
from terakoya.cli.progress import show_events
from terakoya.cli.texts import _
from terakoya.exceptions import CollectionNotFound, Conflict, DatasetNotFound, RAGError, TrainingError, Unavailable

if TYPE_CHECKING:
    from terakoya.client.client import Client

DATASET = "inbox-sample"
DATASET_FILE = "inbox.jsonl"
MODEL = "demo-sorter"
COLLECTION = "demo"
MESSAGE = "Hi, my parcel came this morning and the mudguard inside is snapped in two."
"""A message to the team; the sample's name for it is damaged_parcel."""


@dataclass(frozen=True)
class Question:
    question: str
    language: str
    document: str | None
    """File that holds the answer; None where none does."""
    fact: str | None
    """Words of that file that the answer must have."""


def samples() -> Path:
    """The folder of the bundled samples, which is installed as plain files."""
    with as_file(files("terakoya") / "samples") as folder:
        return Path(folder)


def questions() -> list[Question]:
    rows = json.loads((samples() / "questions.json").read_text(encoding="utf-8"))
    return [Question(**row) for row in rows]


def fetch_models(client: Client, starters: Iterable[str]) -> int:
    """Fetch the starters that are missing; returns how many. Raises: Unavailable if one cannot be fetched."""
    fetched = 0
    for starter in starters:
        try:
            task_id = client.models.pull(starter)
        except Conflict:
            continue  # it is there already
        remark(_("Fetching %(name)s ...", name=starter))
        show_events(client.watch(task_id))
        task = client.tasks.get(task_id)
        if task["state"] != "succeeded":
            raise Unavailable(f"the model {starter!r} could not be fetched: {task.get('error') or task['state']}")
        fetched += 1
    return fetched


def train(client: Client, base: str, *, max_steps: int, max_examples: int, seed: int) -> dict[str, Any]:
    """Tune the base on the bundled inbox; returns the run with its report. Raises: TrainingError if it failed."""
    try:
        dataset = client.datasets.get(DATASET)
    except DatasetNotFound:
        dataset = client.datasets.add(samples() / DATASET_FILE, name=DATASET)
    taken = {model["name"] for model in client.models.list()}
    task_id = client.train(
        base,
        dataset["id"],
        name=free_name(MODEL, taken),
        max_steps=max_steps,
        evaluation={"max_examples": max_examples},
        seed=seed,
    )
    show_events(client.watch(task_id))
    run = client.runs.get(task_id)
    if run["state"] != "succeeded":
        raise TrainingError(f"the run {task_id} ended as {run['state']!r}: {run.get('error')}")
    return run


def free_name(wanted: str, taken: set[str]) -> str:
    """Return ``wanted``, or with the lowest number behind it that nobody has."""
    names = (wanted if number == 1 else f"{wanted}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def chat_once(client: Client, models: Iterable[str]) -> dict[str, str]:
    """Put one message to each model as a conversation; returns their answers by model."""
    messages = [{"role": "user", "content": MESSAGE}]
    return {model: "".join(client.chat(model, messages, max_tokens=24)).strip() for model in models}


def index_documents(client: Client) -> dict[str, dict[str, Any]]:
    """Bring the sample documents into the demo's collection and wait for each; returns them by file name.

    Raises: RAGError if one did not get ready.
    """
    try:
        client.collections.get(COLLECTION)
    except CollectionNotFound:
        client.collections.create(COLLECTION)
    added = {
        path.name: client.documents.add(path, collection=COLLECTION)
        for path in sorted((samples() / "documents").iterdir())
    }
    documents = {}
    for name, accepted in added.items():
        remark(name)
        if accepted["task_id"]:
            show_events(client.watch(accepted["task_id"]))
        document = client.documents.get(accepted["document_id"])
        if document["status"] != "ready":
            raise RAGError(f"the document {name!r} is {document['status']!r}: {document.get('error')}")
        documents[name] = document | {"duplicate": accepted["duplicate"]}
    return documents


def judge(question: Question, answer: dict[str, Any], documents: dict[str, dict[str, Any]]) -> bool:
    """Whether a question was answered from its document with its fact, or refused where no document has it."""
    if question.document is None or question.fact is None:
        return bool(answer["verdict"] == "not_in_documents")
    cited = [
        citation["quote"]
        for citation in answer["citations"]
        if citation["verified"] and citation["document_id"] == documents[question.document]["id"]
    ]
    is_there = question.fact in " ".join(" ".join([answer["answer"], *cited]).split())
    return bool(answer["verdict"] == "answered" and cited and is_there)
