"""The Python client of a running Terakoya server. Synchronous; holds one connection pool and no other state."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from terakoya.client.errors import error_from_openai
from terakoya.client.resources import Chains, Collections, Datasets, Documents, Evaluations, Models, Runs, Tasks
from terakoya.client.transport import UNHURRIED, Json, Transport
from terakoya.exceptions import Unavailable


class Client:
    """Talk to a server::

        with Client() as client:
            dataset = client.datasets.add("requests.jsonl")
            task_id = client.train("smollm2-135m-instruct-q4_1", dataset["id"], strategy="lora")
            for event in client.watch(task_id):
                print(event["type"])
            print(client.runs.get(task_id)["report"]["heldout"]["exact_match"])

    Answers are the API's JSON objects. Errors are the server's own ``AppException`` subclasses.
    """

    def __init__(self, base_url: str = "http://127.0.0.1:8050", api_key: str | None = None) -> None:
        self._transport = Transport(base_url, api_key)
        self.base_url = self._transport.base_url
        self.datasets = Datasets(self._transport)
        self.runs = Runs(self._transport)
        self.tasks = Tasks(self._transport)
        self.models = Models(self._transport)
        self.chains = Chains(self._transport)
        self.collections = Collections(self._transport)
        self.documents = Documents(self._transport)
        self.evaluations = Evaluations(self._transport)

    def train(self, model: str, dataset: str, **options: Any) -> str:
        """Queue a training run and return its task id; ``options`` are further fields of ``TrainingRequest``."""
        return self.runs.start(model=model, dataset=dataset, **options)

    def plan(self, model: str, dataset: str, **options: Any) -> Json:
        """Return what such a run would need and whether it can start; starts nothing. The options are those of
        ``train``.
        """
        return self.runs.plan(model=model, dataset=dataset, **options)

    def watch(self, task_id: str, after: int = 0) -> Iterator[Json]:
        """Yield a task's events from number ``after`` + 1 until it has ended, across lost connections."""
        from terakoya.client.watch import watch_events

        return watch_events(self._transport, task_id, after=after)

    def compare(
        self,
        prompt: str,
        models: Sequence[str],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        system: str | None = None,
        seed: int | None = None,
    ) -> Iterator[Json]:
        """Yield pieces of each model's answer to one prompt: ``{"model", "delta"}``, then ``{"model", "finished"}``."""
        body: Json = {"prompt": prompt, "models": list(models), "max_tokens": max_tokens, "temperature": temperature}
        body |= {key: value for key, value in {"system": system, "seed": seed}.items() if value is not None}
        return self._transport.server_sent_events("/api/models/compare", json_body=body)

    def chat(
        self,
        model: str,
        messages: Sequence[Json],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Generator[str, None, None]:
        """Yield pieces of a model's next turn; ``messages`` are ``{"role", "content"}``, the last from the user.
        Closing the iterator stops the answer.

        Raises: the server's error, also in mid-answer.
        """
        options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        body: Json = {"model": model, "messages": list(messages), "stream": True}
        body |= {name: value for name, value in options.items() if value is not None}
        for chunk in self._transport.server_sent_events("/v1/chat/completions", json_body=body):
            if "error" in chunk:
                raise error_from_openai(chunk["error"])
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    yield text

    def ask(
        self,
        query: str,
        *,
        collection: str = "default",
        mode: str = "auto",
        model: str | None = None,
        top_k: int = 10,
        filters: Json | None = None,
        earlier: Sequence[str] = (),
    ) -> Json:
        """Ask the documents; ``mode`` is "auto", "extractive" or "generative" with ``model``. ``filters``: of which
        documents, by ``document``, ``type``, ``language``, ``tags`` (lists), ``date_from``, ``date_to``.
        ``earlier``: the questions of the same talk before it; one that leans on them is looked for with their topic.

        The answer has ``answer``, ``verdict`` ("answered" or "not_in_documents"), ``citations``, ``evidence``.
        """
        body = _question(query, collection, mode, model, top_k, filters, earlier)
        answer: Json = self._transport.request("POST", "/rag/query", json=body, timeout=UNHURRIED)
        return answer

    def ask_stream(
        self,
        query: str,
        *,
        collection: str = "default",
        mode: str = "auto",
        model: str | None = None,
        top_k: int = 10,
        filters: Json | None = None,
        earlier: Sequence[str] = (),
    ) -> Iterator[Json]:
        """Yield an answer's events by ``type``: hit, token, citation, verdict, then done with the whole; or error."""
        body = _question(query, collection, mode, model, top_k, filters, earlier)
        return self._transport.server_sent_events("/rag/query/stream", json_body=body)

    def search(self, query: str, *, collection: str = "default", top_k: int = 10, filters: Json | None = None) -> Json:
        """The best passages as ``hits``, and the ``trace_id``."""
        body = {"query": query, "collection": collection, "top_k": top_k, "filters": filters}
        found: Json = self._transport.request("POST", "/rag/search", json=body, timeout=UNHURRIED)
        return found

    def why(
        self,
        query: str,
        document_id: str,
        *,
        quote: str | None = None,
        collection: str = "default",
        top_k: int = 10,
        filters: Json | None = None,
    ) -> Json:
        """At which stage a document, or the passage of it that holds the quote, was lost: ``lost_at``, ``reason``,
        ranks and scores.
        """
        body = {
            "query": query,
            "document_id": document_id,
            "quote": quote,
            "collection": collection,
            "top_k": top_k,
            "filters": filters,
        }
        found: Json = self._transport.request("POST", "/rag/why", json=body, timeout=UNHURRIED)
        return found

    def trace(self, trace_id: str) -> Json:
        """What a question did: passages with ranks and scores, why it was answered or not, seconds a stage."""
        trace: Json = self._transport.request("GET", f"/rag/traces/{quote(trace_id, safe='')}")
        return trace

    def system(self) -> Json:
        """Version, machine and protections of the server."""
        answer: Json = self._transport.request("GET", "/api/system")
        return answer

    def is_ready(self) -> bool:
        """Whether the server answers and is ready for work. Raises: Unauthorized if it asks for another key."""
        try:
            self._transport.request("GET", "/readyz", timeout=2.0)
        except Unavailable:
            return False
        return True

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _question(
    query: str,
    collection: str,
    mode: str,
    model: str | None,
    top_k: int,
    filters: Json | None,
    earlier: Sequence[str],
) -> Json:
    body: Json = {"query": query, "collection": collection, "mode": mode, "top_k": top_k}
    more = {"model": model, "filters": filters, "earlier": list(earlier) or None}
    return body | {key: value for key, value in more.items() if value is not None}
