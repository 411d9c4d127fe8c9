"""Entry point of the model server: answers conversations, embeds and reranks texts over a Unix socket that only its
owner can open. It holds the opened models, and leaves when the web process does (its standard input ends). Each engine
has as many threads as it writes answers at once; embedding and reranking share a thread of their own, where queries go
first. A bounded number wait for each.
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
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"  # models are opened from files; nothing is ever looked up

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from terakoya.exceptions import AppException, TooBusy, Unavailable
from terakoya.models.budget import Budget, Promised
from terakoya.models.encoding_queue import EncodeJob, EncodingQueue, Steps
from terakoya.models.engines.base import Engine
from terakoya.models.engines.choice import LLAMA_CPP, PYTORCH, EngineChoice, has_llama_cpp
from terakoya.models.engines.gguf_files import GGUFFiles
from terakoya.models.engines.late import LateEngine
from terakoya.models.engines.llama_cpp import SLOTS, LlamaCppEngine
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.wire import (
    ChatRequest,
    artifact_from_json,
    embed_request_from_json,
    embedded_to_json,
    error_to_json,
    request_from_json,
    rerank_request_from_json,
    reranked_to_json,
)
from terakoya.storage.memory_leases import outstanding
from terakoya.utils.gpu_query import gpu_facts
from terakoya.utils.host_memory import host_room_bytes

if TYPE_CHECKING:
    from terakoya.models.torch_parts import TorchParts

MAX_WAITING = 16
"""For each engine, besides the answers being written."""
AT_ONCE = {LLAMA_CPP: SLOTS, PYTORCH: 8}
"""As many as there are slots there, and rows in a batch here (``engines/torch_batch.py``)."""
RETRY_SECONDS = "5"
HEARTBEAT_SECONDS = 5.0
"""An empty line so often while nothing is written, so that a reader can tell waiting from hanging."""
LOOK_SECONDS = 1.0
"""Between two looks at what memory training was promised: far less than its libraries take to load."""
STUCK_SECONDS = 120.0
"""So long after an answer should have ended, the process gives up on itself."""
log = logging.getLogger("terakoya.serve")


class _Queue:
    """The threads in front of one engine, and how many answers are written or wait there."""

    def __init__(self, engine: Engine, at_once: int) -> None:
        self.engine = engine
        self._worker = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=engine.name)
        self._places = at_once + MAX_WAITING
        self.asked = 0
        self._counting = threading.Lock()

    def submit(self, answer: _Answer) -> Future[None]:
        """Raises: TooBusy if too many wait."""
        with self._counting:
            if self.asked >= self._places:
                raise TooBusy(
                    f"{MAX_WAITING} requests wait for the engine {self.engine.name!r} already; try again in a moment"
                )
            self.asked += 1
        work = self._worker.submit(answer.write, self.engine)
        work.add_done_callback(self._leave_place)
        return work

    def _leave_place(self, work: Future[None]) -> None:
        with self._counting:
            self.asked -= 1


class Server:
    """The queues in front of the engines."""

    def __init__(self, choice: EngineChoice, parts: LateTorch, opening: dict[str, list[int]]) -> None:
        """``opening``: models whose files are being made -> steps done and in all."""
        self._choice = choice
        self._encoding = EncodingQueue()
        self._parts = parts
        self._opening = opening
        self._queues = {engine.name: _Queue(engine, AT_ONCE[engine.name]) for engine in choice.engines}
        # Its own thread: those of the loop are for what takes moments, and answers begin there.
        self._opener = ThreadPoolExecutor(max_workers=1, thread_name_prefix="opening")

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "asked": sum(queue.asked for queue in self._queues.values())})

    async def models(self, request: Request) -> Response:
        """What is open, and what is being opened."""
        models = [
            {"id": model.artifact.info.id, "engine": model.engine, "size_bytes": model.size_bytes}
            | {"adapters": model.adapters}
            for engine in self._choice.engines
            for model in await asyncio.to_thread(engine.open_models)
        ]
        opening = [{"name": name, "done": done, "total": total} for name, (done, total) in self._opening.items()]
        return JSONResponse({"models": models, "opening": opening})

    async def load(self, request: Request) -> Response:
        """Open a model; while it lasts, empty lines, then one of JSON."""
        fields = await request.json()
        artifact = artifact_from_json(fields["artifact"])
        began = time.monotonic()

        def opened() -> dict[str, Any]:
            engine = self._choice.engine_for(artifact)
            engine.load(artifact)
            return {"engine": engine.name, "seconds": round(time.monotonic() - began, 3)}

        return StreamingResponse(_one_line(opened, self._opener), media_type="application/x-ndjson")

    async def unload(self, request: Request) -> Response:
        artifact = artifact_from_json((await request.json())["artifact"])
        closed = [await asyncio.to_thread(engine.unload, artifact) for engine in self._choice.engines]
        if not all(closed):
            return _refused(Unavailable(f"{artifact.info.name!r} is answering just now; try again when it has ended"))
        return JSONResponse({"closed": True})

    async def chat(self, request: Request) -> Response:
        asked = request_from_json(await request.json())
        try:
            engine = await asyncio.to_thread(self._choice.engine_for, asked.artifact)
            answer = _Answer(asked, asyncio.get_running_loop())
            work = self._queues[engine.name].submit(answer)
        except AppException as error:
            return _refused(error)
        return StreamingResponse(answer.lines(work, engine), media_type="application/x-ndjson")

    async def embed(self, request: Request) -> Response:
        asked = embed_request_from_json(await request.json())

        def steps(is_cancelled: Callable[[], bool]) -> Steps:  # a generator: begins in the thread that embeds
            return (yield from self._parts().embedder.embed(asked, is_cancelled))

        return self._encoded(steps, embedded_to_json, is_urgent=asked.is_query)

    async def rerank(self, request: Request) -> Response:
        asked = rerank_request_from_json(await request.json())

        def steps(is_cancelled: Callable[[], bool]) -> Steps:
            return (yield from self._parts().reranker.rerank(asked, is_cancelled))

        return self._encoded(steps, reranked_to_json, is_urgent=True)

    def _encoded(
        self, begin: Callable[[Callable[[], bool]], Steps], to_json: Callable[[Any], dict[str, Any]], *, is_urgent: bool
    ) -> Response:
        try:
            job = self._encoding.submit(begin, is_urgent=is_urgent)
        except Unavailable as full:
            return _refused(full)
        return StreamingResponse(self._line_of(job, to_json), media_type="application/x-ndjson")

    async def _line_of(self, job: EncodeJob, to_json: Callable[[Any], dict[str, Any]]) -> AsyncIterator[bytes]:
        """Yield empty lines while it lasts, then one of JSON. When the reader goes away, so does the work."""
        done = asyncio.wrap_future(job.done)
        try:
            while not (await asyncio.wait({done}, timeout=HEARTBEAT_SECONDS))[0]:
                _leave_if_stuck(self._encoding.batch_seconds, STUCK_SECONDS)
                yield b"\n"
            yield json.dumps(to_json(done.result())).encode() + b"\n"
        except AppException as error:
            yield json.dumps(error_to_json(error)).encode() + b"\n"
        except Exception as error:  # noqa: BLE001  of the worker: the reader hears of it, the log has the rest
            traceback.print_exception(error)
            yield json.dumps(_internal(error)).encode() + b"\n"
        finally:
            job.cancelled.set()


class _Answer:
    """One answer on its way from the engine's thread to the socket."""

    def __init__(self, asked: ChatRequest, loop: asyncio.AbstractEventLoop) -> None:
        self._asked = asked
        self._loop = loop
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()  # bounded by max_new_tokens
        self._cancelled = threading.Event()
        self._started_at: float | None = None

    def write(self, engine: Engine) -> None:
        """Run in a thread of the engine's; whatever goes wrong becomes the stream's last line."""
        self._started_at = time.monotonic()
        try:
            engine.answer(self._asked, self._cancelled.is_set, self._put)
        except AppException as error:
            self._put(error_to_json(error))
        except Exception as error:  # noqa: BLE001  a worker's entry: the reader hears of it, the log has the rest
            traceback.print_exc()
            self._put(_internal(error))
        finally:
            self._put(None)

    async def lines(self, work: Future[None], engine: Engine) -> AsyncIterator[bytes]:
        """Yield the events as lines of JSON. When the reader goes away, so does the work."""
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._events.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    if self._started_at is not None and engine.is_opening:
                        self._started_at = time.monotonic()  # a large model is made and read for minutes
                    elif self._started_at is not None:
                        busy = time.monotonic() - self._started_at
                        _leave_if_stuck(busy, self._asked.timeout_seconds + STUCK_SECONDS)
                    yield b"\n"
                    continue
                if event is None:
                    return
                if "waiting" in event:
                    self._started_at = time.monotonic()
                    yield b"\n"
                    continue
                yield json.dumps(event).encode() + b"\n"
        finally:
            self._cancelled.set()
            work.cancel()

    def _put(self, event: dict[str, Any] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is leaving
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


async def _one_line(work: Callable[[], dict[str, Any]], worker: ThreadPoolExecutor) -> AsyncIterator[bytes]:
    """Yield empty lines while the work lasts, then what it returned or raised. Not begun for a reader who has left."""
    done = asyncio.get_running_loop().run_in_executor(worker, work)
    try:
        while not (await asyncio.wait({done}, timeout=HEARTBEAT_SECONDS))[0]:
            yield b"\n"
        yield json.dumps(done.result()).encode() + b"\n"
    except AppException as error:
        yield json.dumps(error_to_json(error)).encode() + b"\n"
    except Exception as error:  # noqa: BLE001  of the worker: the reader hears of it, the log has the rest
        traceback.print_exception(error)
        yield json.dumps(_internal(error)).encode() + b"\n"
    finally:
        done.cancel()


def _refused(error: AppException) -> Response:
    headers = {"Retry-After": RETRY_SECONDS} if isinstance(error, Unavailable) else None
    return JSONResponse(error_to_json(error), status_code=error.status, headers=headers)


def _internal(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}", "code": "internal_error"}


def _leave_if_stuck(busy_seconds: float, limit_seconds: float) -> None:
    if busy_seconds > limit_seconds:
        print(f"stuck for {busy_seconds:.0f} s in one piece of work: leaving", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(70)


def create_app(choice: EngineChoice, parts: LateTorch, opening: dict[str, list[int]]) -> Starlette:
    server = Server(choice, parts, opening)
    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/models", server.models),
            Route("/load", server.load, methods=["POST"]),
            Route("/unload", server.unload, methods=["POST"]),
            Route("/chat", server.chat, methods=["POST"]),
            Route("/embed", server.embed, methods=["POST"]),
            Route("/rerank", server.rerank, methods=["POST"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers for the web process; started by it.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--cache-bytes", type=int, required=True)
    parser.add_argument("--files", type=Path, required=True, help="where files made for an engine are kept")
    parser.add_argument("--leases", type=Path, help="where others say what memory they are going to take")
    parser.add_argument("--threads", type=int, default=0, help="0 takes every core but one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    _offer_to_be_killed_first()
    prompts = PromptWriter()
    prompts.start()
    listener = _listen(options.socket)
    budget = Budget(options.cache_bytes, promised=_Promises(options.leases))
    threading.Thread(target=_give_way, args=(budget,), daemon=True).start()
    threads = options.threads or max(1, (os.cpu_count() or 2) - 1)
    parts = LateTorch(budget, prompts, threads=threads, device=_device())
    engines: dict[str, Engine] = {PYTORCH: LateEngine(PYTORCH, lambda: parts().engine, is_made=lambda: parts.are_made)}
    opening: dict[str, list[int]] = {}
    if has_llama_cpp():
        files = GGUFFiles(options.files, progress=_Progress(opening))
        engines[LLAMA_CPP] = LlamaCppEngine(
            budget,
            prompts,
            files,
            threads=threads,
            # Written a token at a time, an answer waits at a barrier for each layer, and its slowest thread sets the
            # pace. Reading a prompt is long products, where the last core pays even if it is shared.
            prompt_threads=options.threads or os.cpu_count(),
            sockets=options.socket.parent,
        )
    app = create_app(EngineChoice(engines, device=parts.device), parts, opening)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    threading.Thread(target=_leave_with_parent, args=(server,), daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        options.socket.unlink(missing_ok=True)
        prompts.close()
        os._exit(0)  # an answer still being written must not hold the process


class LateTorch:
    """What needs PyTorch, made with the first request that does."""

    def __init__(self, budget: Budget, prompts: PromptWriter, *, threads: int, device: str) -> None:
        self._budget = budget
        self._prompts = prompts
        self._threads = threads
        self.device = device
        self._parts: TorchParts | None = None
        self._making = threading.Lock()

    @property
    def are_made(self) -> bool:
        return self._parts is not None

    def __call__(self) -> TorchParts:
        """Blocks for seconds the first time."""
        with self._making:
            if self._parts is None:
                from terakoya.models.torch_parts import open_torch_parts

                self._parts = open_torch_parts(self._budget, self._prompts, threads=self._threads, device=self.device)
            return self._parts


def _device() -> str:
    """Return "cuda" if there is a GPU and a PyTorch for it; asked without importing that."""
    return "cpu" if metadata.version("torch").endswith("+cpu") or not list(gpu_facts("name")) else "cuda"


class _Promises:
    """Looks at what training was promised, and at what is free."""

    def __init__(self, leases: Path | None) -> None:
        self._leases = leases

    def __call__(self) -> Promised | None:
        leases = [] if self._leases is None else outstanding(self._leases)
        if not leases:
            return None
        return Promised(host_room_bytes(), sum(size for _, size in leases))


def _give_way(budget: Budget) -> None:
    """Close what nobody uses as soon as training needs its memory."""
    while True:
        time.sleep(LOOK_SECONDS)
        if dropped := budget.give_way():
            print(f"closed {dropped} unused models: training needs the memory", file=sys.stderr, flush=True)  # noqa: T201


class _Progress:
    def __init__(self, opening: dict[str, list[int]]) -> None:
        self._opening = opening

    def __call__(self, name: str, done: int, total: int) -> None:
        self._opening[name] = [done, total]
        if done == total:
            self._opening.pop(name)


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
