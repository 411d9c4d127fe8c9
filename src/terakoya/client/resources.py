"""The nouns of the API as Python objects; each method is one call. Answers are the API's own JSON objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast
from urllib.parse import quote

from terakoya.client.transport import UNHURRIED, Json, Transport
from terakoya.exceptions import InvalidDataset, InvalidQuestions, UnreadableDocument

Objects: TypeAlias = list[Json]
"""Named here because the classes below have methods called ``list``."""
EVENTS_PER_CALL = 1000


class _Resource:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _object(self, method: str, path: str, **options: Any) -> Json:
        return cast(Json, self._transport.request(method, path, **options))

    def _objects(self, path: str, key: str, **options: Any) -> Objects:
        return cast(Objects, self._object("GET", path, **options)[key])


class Datasets(_Resource):
    def list(self) -> Objects:
        return self._objects("/api/datasets", "datasets")

    def get(self, id_or_name: str) -> Json:
        return self._object("GET", f"/api/datasets/{_part(id_or_name)}")

    def add(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        mapping: Mapping[str, str] | None = None,
        skip_bad_rows: bool = False,
    ) -> Json:
        """Stream a file to the server; ``name`` is the file's own without its endings unless given. ``mapping``: which
        column is what, such as ``{"prompt": "Frage", "answer": "Antwort"}``.

        Raises: InvalidDataset naming the first bad rows, the whole report in its ``details``; Conflict if the name is
        taken.
        """
        path = Path(path)
        if not path.is_file():
            raise InvalidDataset(f"there is no file {str(path)!r}")
        parameters: dict[str, str | bool] = {"filename": path.name, "skip_bad_rows": skip_bad_rows}
        if mapping:
            parameters["mapping"] = json.dumps(dict(mapping), ensure_ascii=False)
        stem = Path(path.name.removesuffix(".gz")).stem
        with path.open("rb") as stream:
            return self._object(
                "PUT",
                f"/api/datasets/{_part(name or stem)}",
                content=stream,
                params=parameters,
                timeout=UNHURRIED,
            )

    def report(self, id_or_name: str) -> Json:
        """What the import found: bad rows that were left out, repeats, overlap, lengths."""
        return self._object("GET", f"/api/datasets/{_part(id_or_name)}/report")

    def preview(self, id_or_name: str, *, limit: int = 20) -> Objects:
        return self._objects(f"/api/datasets/{_part(id_or_name)}/preview", "rows", params={"limit": limit})

    def delete(self, id_or_name: str) -> None:
        self._transport.request("DELETE", f"/api/datasets/{_part(id_or_name)}")


class Tasks(_Resource):
    """Background work of any kind."""

    def list(self) -> Objects:
        return self._objects("/api/tasks", "tasks")

    def get(self, task_id: str) -> Json:
        return self._object("GET", f"/api/tasks/{_part(task_id)}")

    def events(self, task_id: str, *, after: int = 0) -> Objects:
        """Every event so far with ``seq > after``, in order."""
        events: Objects = []
        while True:
            page = self._objects(
                f"/api/tasks/{_part(task_id)}/events", "events", params={"after": after, "limit": EVENTS_PER_CALL}
            )
            events += page
            if len(page) < EVENTS_PER_CALL:
                return events
            after = int(page[-1]["seq"])

    def logs(self, task_id: str) -> str:
        return cast(str, self._object("GET", f"/api/tasks/{_part(task_id)}/logs")["text"])

    def cancel(self, task_id: str, *, keep: bool = False) -> Json:
        """Ask a task to stop; with ``keep`` a training run is evaluated and kept as far as it got."""
        return self._object("POST", f"/api/tasks/{_part(task_id)}/cancel", json={"keep": keep})

    def pause(self, task_id: str) -> Json:
        """Have a task stop at its next step with a checkpoint, or hold it in the queue, until it is resumed."""
        return self._object("POST", f"/api/tasks/{_part(task_id)}/pause")

    def queue(self) -> Objects:
        """Queued tasks in the order in which they will be started."""
        return self._objects("/api/queue", "tasks")

    def set_priority(self, task_id: str, priority: int) -> Json:
        """Of a queued or paused task; the higher starts first."""
        return self._object("PATCH", f"/api/tasks/{_part(task_id)}", json={"priority": priority})

    def move_to_front(self, task_id: str) -> Json:
        """Make a queued task the next of its kind."""
        return self._object("PATCH", f"/api/tasks/{_part(task_id)}", json={"front": True})

    def resume(self, task_id: str) -> Json:
        """Queue a failed, cancelled or paused task again from its newest checkpoint."""
        return self._object("POST", f"/api/tasks/{_part(task_id)}/resume")


class Runs(_Resource):
    """Training runs: the training view of tasks, with the report card."""

    def list(self) -> Objects:
        return self._objects("/api/train", "runs")

    def get(self, task_id: str) -> Json:
        return self._object("GET", f"/api/train/{_part(task_id)}")

    def recipe(self, task_id: str) -> str:
        """The YAML that gives this run again."""
        return self._transport.text(f"/api/train/{_part(task_id)}/recipe")

    def start(self, **request: Any) -> str:
        """Queue a run; the arguments are the fields of ``TrainingRequest``. Returns its task id at once."""
        return cast(str, self._object("POST", "/api/train", json=request)["task_id"])

    def plan(self, *, measure: bool = True, **request: Any) -> Json:
        """Return what such a run would need, whether it can start, and rows as the model will see them.

        The other arguments are the fields of ``TrainingRequest``. The first time for a model and a method this
        measures the machine, which takes some seconds; ``measure=False`` does without.
        """
        params = {"measure": "true" if measure else "false"}
        return self._object("POST", "/api/train/plan", json=request, params=params, timeout=UNHURRIED)

    def options(self) -> Json:
        """What can be trained how, with the defaults by model size."""
        return self._object("GET", "/api/train/options")


class Chains(_Resource):
    """Chains of tasks, each by its id or by a model in it."""

    def list(self) -> Objects:
        return self._objects("/api/chains", "chains")

    def get(self, chain: str) -> Json:
        return self._object("GET", f"/api/chains/{_part(chain)}")

    def begin(self, model: str, dataset: str, **request: Any) -> str:
        """Queue the first task of a new chain; the arguments are fields of ``TrainingRequest``. Returns its task id."""
        body = {"model": model, "dataset": dataset, **request}
        return cast(str, self._object("POST", "/api/chains", json=body)["task_id"])

    def extend(self, chain: str, dataset: str, *, branch: bool = False, **request: Any) -> str:
        """Queue the next task, ``after`` a model of the chain. Returns the task id at once.

        Raises: Conflict if another task has gone on from there, or is about to, unless it is to ``branch``.
        """
        body = {"dataset": dataset, "branch": branch, **request}
        return cast(str, self._object("POST", f"/api/chains/{_part(chain)}/extend", json=body)["task_id"])

    def verify(self, chain: str) -> Json:
        """Have every byte hashed anew: ``intact``, and each link's ``damages`` by file."""
        return self._object("POST", f"/api/chains/{_part(chain)}/verify", timeout=UNHURRIED)

    def matrix(self, chain: str, *, model: str | None = None) -> Json:
        """Scores of every task after every task, with ACC, BWT, FWT, forgetting and LA."""
        params = {} if model is None else {"model": model}
        return self._object("GET", f"/api/chains/{_part(chain)}/matrix", params=params)

    def erase_rows(self, chain: str, *, link: str | None = None) -> Json:
        """Erase the rows that the chain, or one link, keeps of its tasks: ``rows``, ``freed_bytes``, ``costs``."""
        params = {} if link is None else {"link": link}
        return self._object("DELETE", f"/api/chains/{_part(chain)}/rows", params=params)

    def delete_link(self, chain: str, link: str) -> None:
        """Delete the last link of a branch whose model is gone."""
        self._transport.request("DELETE", f"/api/chains/{_part(chain)}/links/{_part(link)}")

    def delete(self, chain: str, *, models: bool = False) -> None:
        """Delete every folder of a chain, with ``models`` its models too. Raises: Conflict while anything needs it."""
        params = {"models": "true" if models else "false"}
        self._transport.request("DELETE", f"/api/chains/{_part(chain)}", params=params)


class Models(_Resource):
    def list(self) -> Objects:
        return self._objects("/api/models", "models")

    def get(self, id_or_name: str) -> Json:
        return self._object("GET", f"/api/models/{_part(id_or_name)}")

    def card(self, id_or_name: str) -> str:
        """The model card, as Markdown."""
        return self._transport.text(f"/api/models/{_part(id_or_name)}/card")

    def mark(self, id_or_name: str, **marks: Any) -> Json:
        """Change ``notes``, ``tags``, ``stage`` ("draft", "approved") or ``engine``; what is left out stays."""
        return self._object("PATCH", f"/api/models/{_part(id_or_name)}", json=marks)

    def merge(self, id_or_name: str, *, name: str | None = None) -> str:
        """Queue putting an adapter into its base's weights. Returns the task id at once."""
        path = f"/api/models/{_part(id_or_name)}/merge"
        return cast(str, self._object("POST", path, json={} if name is None else {"name": name})["task_id"])

    def export(self, id_or_name: str, format: str, *, name: str | None = None) -> str:
        """Queue writing a model in another form, such as "gguf-q8_0". Returns the task id at once."""
        body = {"format": format} if name is None else {"format": format, "name": name}
        return cast(str, self._object("POST", f"/api/models/{_part(id_or_name)}/export", json=body)["task_id"])

    def interpolate(self, id_or_name: str, **options: Any) -> str:
        """Queue scoring points between the weights before and after the model's run: ``shares`` (0 before, 1 after),
        ``keep`` (the point to register), ``rows``, ``name``. Returns the task id at once; its result has the points.
        """
        path = f"/api/models/{_part(id_or_name)}/interpolate"
        return cast(str, self._object("POST", path, json=options)["task_id"])

    def files(self, id_or_name: str) -> Objects:
        """The names and sizes of a model's files, each at ``/api/models/{id}/files/{name}``."""
        return self._objects(f"/api/models/{_part(id_or_name)}/files", "files")

    def pull(self, source: str, *, name: str | None = None, base: str | None = None) -> str:
        """Queue fetching a model from a source that the server knows; ``base``: the model that an adapter belongs to.
        Returns the task id at once.
        """
        body = {"source": source} | ({"name": name} if name else {}) | ({"base": base} if base else {})
        return cast(str, self._object("POST", "/api/models/pull", json=body)["task_id"])

    def load(self, id_or_name: str) -> Json:
        """Open a model in the model server and wait for it. Returns the engine and the seconds it took."""
        return self._object("POST", f"/api/models/{_part(id_or_name)}/load", timeout=UNHURRIED)

    def unload(self, id_or_name: str) -> None:
        """Close it there, unless it answers just now."""
        self._transport.request("POST", f"/api/models/{_part(id_or_name)}/unload")

    def rerank(self, id_or_name: str, query: str, documents: Sequence[str], *, top_n: int | None = None) -> Objects:
        """Order documents by how well they answer a query, the best first: ``index``, ``relevance_score``."""
        body = {"model": id_or_name, "query": query, "documents": [*documents]} | ({"top_n": top_n} if top_n else {})
        return cast(Objects, self._object("POST", "/v1/rerank", json=body, timeout=UNHURRIED)["results"])

    def delete(self, id_or_name: str) -> None:
        self._transport.request("DELETE", f"/api/models/{_part(id_or_name)}")


class Collections(_Resource):
    """Documents that are searched together."""

    def list(self) -> Objects:
        return self._objects("/rag/collections", "collections")

    def get(self, id_or_name: str) -> Json:
        return self._object("GET", f"/rag/collections/{_part(id_or_name)}")

    def create(self, name: str) -> Json:
        """Raises: Conflict if the name is taken; ModelNotFound if the server has no embedder yet."""
        return self._object("POST", "/rag/collections", json={"name": name})

    def set_retrieval(self, id_or_name: str, **settings: Any) -> Json:
        """Set how it is searched: ``fusion``, ``dense_weight``, ``rrf_k``, ``candidates``; the rest is the default."""
        return self._object("PATCH", f"/rag/collections/{_part(id_or_name)}", json={"retrieval": settings})

    def delete(self, id_or_name: str) -> None:
        """Delete it with every document in it."""
        self._transport.request("DELETE", f"/rag/collections/{_part(id_or_name)}")

    def rebuild(self, id_or_name: str) -> str:
        """Have its index made anew from the server's database. Returns the task id at once."""
        return cast(str, self._object("POST", f"/rag/collections/{_part(id_or_name)}/rebuild")["task_id"])


class Evaluations(_Resource):
    """Questions whose answers are known, and how a collection does on them."""

    def import_questions(self, path: str | Path, *, collection: str | None = None, name: str | None = None) -> Json:
        """Send a file of questions (JSONL, JSON, CSV, TSV). Raises: InvalidQuestions naming the first bad rows."""
        path = Path(path)
        if not path.is_file():
            raise InvalidQuestions(f"there is no file {str(path)!r}")
        fields = {key: value for key, value in (("collection", collection), ("name", name)) if value}
        with path.open("rb") as stream:
            return self._object(
                "POST", "/rag/question-sets", files={"file": (path.name, stream)}, data=fields, timeout=UNHURRIED
            )

    def generate_questions(self, name: str, *, collection: str = "default", count: int = 100, seed: int = 0) -> Json:
        """Have questions made from the documents' own words: easier to find than what people ask."""
        body = {"name": name, "collection": collection, "count": count, "seed": seed}
        return self._object("POST", "/rag/question-sets/generate", json=body, timeout=UNHURRIED)

    def question_sets(self, *, collection: str | None = None) -> Objects:
        """Newest first."""
        params = {} if collection is None else {"collection": collection}
        return self._objects("/rag/question-sets", "question_sets", params=params)

    def questions(self, id_or_name: str, *, offset: int = 0, limit: int = 100) -> Objects:
        path = f"/rag/question-sets/{_part(id_or_name)}/questions"
        return self._objects(path, "questions", params={"offset": offset, "limit": limit})

    def delete_questions(self, id_or_name: str) -> None:
        """Delete a set with the evaluations of it."""
        self._transport.request("DELETE", f"/rag/question-sets/{_part(id_or_name)}")

    def start(self, questions: str, *configurations: Json) -> str:
        """Queue an evaluation under one configuration or two; without any, of the collection as it is set. Returns
        the task id at once. A configuration: ``{"name", "retrieval": {...}, "answers", "model"}``.
        """
        body = {"questions": questions, "configurations": list(configurations)}
        return cast(str, self._object("POST", "/rag/evaluate", json=body)["task_id"])

    def tune(self, questions: str, *, apply: bool = False) -> str:
        """Queue the search for the settings that suit the questions; ``apply``: set them if they are better on
        questions that had no part in the choice. Returns the task id at once.
        """
        body = {"questions": questions, "apply": apply}
        return cast(str, self._object("POST", "/rag/tune", json=body)["task_id"])

    def export(self, questions: str, name: str) -> str:
        """Queue making a training set of the questions whose answers were verified. Returns the task id at once; the
        task's result has the ``dataset_id``.
        """
        body = {"questions": questions, "name": name}
        return cast(str, self._object("POST", "/rag/training-set", json=body)["task_id"])

    def calibrate(self, questions: str, *, apply: bool = False) -> str:
        """Queue the fit of abstention to the questions; ``apply``: decide so from then on. Returns the task id."""
        body = {"questions": questions, "apply": apply}
        return cast(str, self._object("POST", "/rag/calibrate", json=body)["task_id"])

    def list(self, *, collection: str | None = None) -> Objects:
        """Newest first."""
        params = {} if collection is None else {"collection": collection}
        return self._objects("/rag/evaluations", "evaluations", params=params)

    def get(self, evaluation_id: str) -> Json:
        """By its id or its task's."""
        return self._object("GET", f"/rag/evaluations/{_part(evaluation_id)}")

    def evaluated_questions(self, evaluation_id: str, *, offset: int = 0, limit: int = 100) -> Objects:
        """What each question gave under each configuration."""
        path = f"/rag/evaluations/{_part(evaluation_id)}/questions"
        return self._objects(path, "questions", params={"offset": offset, "limit": limit})

    def delete(self, evaluation_id: str) -> None:
        self._transport.request("DELETE", f"/rag/evaluations/{_part(evaluation_id)}")


class Documents(_Resource):
    def list(self, *, collection: str | None = None, replaced: bool = False) -> Objects:
        """Newest first; of every collection unless one is named; with ``replaced``, former versions too."""
        params = ({} if collection is None else {"collection": collection}) | ({"replaced": "true"} if replaced else {})
        return self._objects("/rag/documents", "documents", params=params)

    def versions(self, document_id: str) -> Objects:
        """Newest first."""
        return self._objects(f"/rag/documents/{_part(document_id)}/versions", "documents")

    def get(self, document_id: str) -> Json:
        return self._object("GET", f"/rag/documents/{_part(document_id)}")

    def add(
        self,
        path: str | Path,
        *,
        collection: str | None = None,
        title: str | None = None,
        source: str | None = None,
        replaces: str | None = None,
    ) -> Json:
        """Stream a file to the server, which indexes it in the background: ``document_id``, ``task_id``, whether it is
        a ``duplicate`` of one that is there, and which document it ``replaces`` once it is ready. ``source``: its path
        in the folder it comes from; other content from there is replaced.

        Raises: UnreadableDocument for a type that is not read; CollectionNotFound; DocumentNotFound.
        """
        path = _existing(path)
        fields = {"collection": collection, "title": title, "path": source, "replaces": replaces}
        return self._send("/rag/documents", path, fields)

    def add_archive(self, path: str | Path, *, collection: str | None = None) -> Objects:
        """Send a ZIP or tar.gz archive; return what became of each entry. Raises: UnreadableDocument if it is refused
        whole; CollectionNotFound.
        """
        answer = self._send("/rag/archives", _existing(path), {"collection": collection})
        return cast(Objects, answer["entries"])

    def unchanged(self, files: Sequence[tuple[str, str]], *, collection: str | None = None) -> Sequence[str | None]:
        """Return for each (path in its folder, SHA-256) the id of the document that has it, None if it is to be sent;
        at most 1,000 at once.
        """
        body: Json = {"files": [{"path": path, "sha256": sha256} for path, sha256 in files]}
        body |= {} if collection is None else {"collection": collection}
        answer = self._object("POST", "/rag/documents/unchanged", json=body)
        return cast("Sequence[str | None]", answer["document_ids"])

    def _send(self, address: str, path: Path, fields: Mapping[str, str | None]) -> Json:
        given = {name: value for name, value in fields.items() if value}
        with path.open("rb") as stream:
            return self._object("POST", address, files={"file": (path.name, stream)}, data=given, timeout=UNHURRIED)

    def set_tags(self, document_id: str, tags: Sequence[str]) -> Json:
        """Put these tags in the place of those there are."""
        return self._object("PATCH", f"/rag/documents/{_part(document_id)}", json={"tags": [*tags]})

    def text(self, document_id: str, *, start: int = 0, end: int | None = None) -> Json:
        """A piece of the stored text as ``text``, ``start``, ``end``; ``characters`` is the length of the whole."""
        params = {"start": start} | ({} if end is None else {"end": end})
        return self._object("GET", f"/rag/documents/{_part(document_id)}/text", params=params)

    def delete(self, document_id: str) -> Json:
        """Delete it with the versions before it; return the receipt of what was removed."""
        return self._object("DELETE", f"/rag/documents/{_part(document_id)}")


def _existing(path: str | Path) -> Path:
    """Raises: UnreadableDocument."""
    path = Path(path)
    if not path.is_file():
        raise UnreadableDocument(f"there is no file {str(path)!r}")
    return path


def _part(text: str) -> str:
    """One path segment, whatever is in it."""
    return quote(text, safe="")
