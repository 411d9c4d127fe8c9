"""Entry point of the model server: answers conversations and embeds texts over a Unix socket that only its owner can
open. It holds the opened models, and leaves when the web process does (its standard input ends). One answer is written
at a time; embedding has a thread of its own, where queries go first. A bounded number wait for each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # models are opened from files; nothing is ever looked up

import torch
import transformers
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from terakoya.exceptions import AppException, Unavailable
from terakoya.models.cache import ModelCache
from terakoya.models.chat_engine import ChatEngine
from terakoya.models.embedding import EmbeddingEngine, dtype_of
from terakoya.models.embedding_queue import EmbeddingQueue, EmbedJob
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.wire import (
    ChatRequest,
    embed_request_from_json,
    embedded_to_json,
    error_to_json,
    request_from_json,
)

MAX_WAITING = 8
HEARTBEAT_SECONDS = 5.0
"""An empty line so often while nothing is written, so that a reader can tell waiting from hanging."""
STUCK_SECONDS = 120.0
"""So long after an answer should have ended, the process gives up on itself."""
log = logging.getLogger("terakoya.serve")


class Server:
    """The queues in front of the engines."""

    def __init__(self, engine: ChatEngine, embedding: EmbeddingQueue) -> None:
        self._engine = engine
        self._embedding = embedding
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._asked = 0
        """Requests being answered or waiting."""
        self._counting = threading.Lock()

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "asked": self._asked})

    async def chat(self, request: Request) -> Response:
        asked = request_from_json(await request.json())
        if not self._take_place():
            return _refused(
                Unavailable(f"{MAX_WAITING} requests are waiting for the models already; try again in a moment")
            )
        answer = _Answer(asked, asyncio.get_running_loop())
        work = self._worker.submit(answer.write, self._engine)
        work.add_done_callback(self._leave_place)
        return StreamingResponse(answer.lines(work), media_type="application/x-ndjson")

    async def embed(self, request: Request) -> Response:
        try:
            job = self._embedding.submit(embed_request_from_json(await request.json()))
        except Unavailable as full:
            return _refused(full)
        return StreamingResponse(self._vectors(job), media_type="application/x-ndjson")

    async def _vectors(self, job: EmbedJob) -> AsyncIterator[bytes]:
        """Yield empty lines while it lasts, then one of JSON. When the reader goes away, so does the work."""
        done = asyncio.wrap_future(job.done)
        try:
            while not (await asyncio.wait({done}, timeout=HEARTBEAT_SECONDS))[0]:
                _leave_if_stuck(self._embedding.batch_seconds, STUCK_SECONDS)
                yield b"\n"
            yield json.dumps(embedded_to_json(done.result())).encode() + b"\n"
        except AppException as error:
            yield json.dumps(error_to_json(error)).encode() + b"\n"
        except Exception as error:  # noqa: BLE001  of the worker: the reader hears of it, the log has the rest
            traceback.print_exception(error)
            yield json.dumps(_internal(error)).encode() + b"\n"
        finally:
            job.cancelled.set()

    def _take_place(self) -> bool:
        with self._counting:
            if self._asked > MAX_WAITING:
                return False
            self._asked += 1
            return True

    def _leave_place(self, work: Future[None]) -> None:
        with self._counting:
            self._asked -= 1


class _Answer:
    """One answer on its way from the engine's thread to the socket."""

    def __init__(self, asked: ChatRequest, loop: asyncio.AbstractEventLoop) -> None:
        self._asked = asked
        self._loop = loop
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()  # bounded by max_new_tokens
        self._cancelled = threading.Event()
        self._started_at: float | None = None

    def write(self, engine: ChatEngine) -> None:
        """Run in the engine's thread; whatever goes wrong becomes the stream's last line."""
        self._started_at = time.monotonic()
        try:
            for event in engine.answer(self._asked, self._cancelled.is_set):
                self._put(event)
        except AppException as error:
            self._put(error_to_json(error))
        except Exception as error:  # noqa: BLE001  a worker's entry: the reader hears of it, the log has the rest
            traceback.print_exc()
            self._put(_internal(error))
        finally:
            self._put(None)

    async def lines(self, work: Future[None]) -> AsyncIterator[bytes]:
        """Yield the events as lines of JSON. When the reader goes away, so does the work."""
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._events.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    if self._started_at is not None:
                        busy = time.monotonic() - self._started_at
                        _leave_if_stuck(busy, self._asked.timeout_seconds + STUCK_SECONDS)
                    yield b"\n"
                    continue
                if event is None:
                    return
                yield json.dumps(event).encode() + b"\n"
        finally:
            self._cancelled.set()
            work.cancel()

    def _put(self, event: dict[str, Any] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is leaving
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


def _refused(error: Unavailable) -> Response:
    return JSONResponse(error_to_json(error), status_code=error.status, headers={"Retry-After": "5"})


def _internal(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}", "code": "internal_error"}


def _leave_if_stuck(busy_seconds: float, limit_seconds: float) -> None:
    if busy_seconds > limit_seconds:
        print(f"stuck for {busy_seconds:.0f} s in one piece of work: leaving", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(70)


def create_app(engine: ChatEngine, embedding: EmbeddingQueue) -> Starlette:
    server = Server(engine, embedding)
    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/chat", server.chat, methods=["POST"]),
            Route("/embed", server.embed, methods=["POST"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers for the web process; started by it.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--cache-bytes", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0, help="0 takes every core but one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 2) - 1))
    _offer_to_be_killed_first()
    prompts = PromptWriter()
    prompts.start()
    listener = _listen(options.socket)
    cache = ModelCache(options.cache_bytes, dtype_of=dtype_of)
    app = create_app(ChatEngine(cache, prompts), EmbeddingQueue(EmbeddingEngine(cache)))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    threading.Thread(target=_leave_with_parent, args=(server,), daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        options.socket.unlink(missing_ok=True)
        prompts.close()
        os._exit(0)  # an answer still being written must not hold the process


def _listen(path: Path) -> socket.socket:
    """Bind the socket so that at no moment anyone but the owner could connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(64)
    return listener


def _leave_with_parent(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
    time.sleep(2.0)
    server.force_exit = True
    time.sleep(1.0)
    os._exit(0)


def _offer_to_be_killed_first() -> None:
    """When memory runs out, the kernel should take this process, which loses nothing, not the web process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    main()
