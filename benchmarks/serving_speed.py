"""How fast the starter model answers: one stream and eight, through our model server, in llama.cpp alone, and in
``transformers.generate`` single and batched, interleaved in one run; the first token of a long prompt; eight adapters
beside one in PyTorch; switching adapters in llama.cpp; a cold start; what the web process adds.

    python benchmarks/serving_speed.py --data <a data folder with the starter model> [--rounds 3] [--part speed]

The data folder is made by ``TERAKOYA_DATA_DIR=<it> terakoya models pull smollm2-135m-instruct-q4_1 --once``. Takes
under ten minutes on two cores. Writes ``results/serving_speed.json``; a single part is added to what is there.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from machine import RESULTS, describe_machine, save
from serving import STARTER, server

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.models.artifacts import count_parameters
from terakoya.models.client import ModelServerClient
from terakoya.models.engines.llama_cpp import POOL_TOKENS, SLOTS, open_server
from terakoya.models.wire import ChatRequest, request_to_json

TOKENS = 64
STREAMS = 8
LONG_PROMPT = 1000
CORES = os.cpu_count() or 1
THREADS = max(1, CORES - 1)
"""What the model server writes with unless told; it reads prompts with all cores."""
QUESTION = "Write a long story about a ship, number {}."
PAUSE_SECONDS = 0.3
"""Between two measurements: threads of an engine that has just worked still turn for a moment."""


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    options = parser.parse_args()
    machine = describe_machine()
    began = time.perf_counter()
    (folder,) = (path.parent for path in options.data.glob("models/*/config.json") if _is_chat_model(path))
    known = RESULTS / "serving_speed.json"
    figures = json.loads(known.read_text())["figures"] if options.part != "all" and known.exists() else {}
    for name, part in PARTS.items():
        if options.part in (name, "all"):
            with tempfile.TemporaryDirectory() as scratch:
                figures[name] = await part(folder, Path(scratch), options)
            print(name, json.dumps(figures[name]), flush=True)
    figures["wall_seconds"] = round(time.perf_counter() - began)
    figures["load_after"] = round(os.getloadavg()[0], 2)
    save("serving_speed", figures, machine)


def _is_chat_model(config: Path) -> bool:
    return json.loads(config.read_text())["model_type"] == "llama"


def artifact_of(folder: Path, *, base: ModelArtifact | None = None, engine: str = "auto") -> ModelArtifact:
    kind = ModelKind.BASE if base is None else ModelKind.ADAPTER
    size = sum(file.stat().st_size for file in folder.iterdir())
    content = folder.name.encode().hex()[:64].ljust(64, "0")
    now = datetime.now(UTC)
    parameters = count_parameters(folder)
    info = ModelInfo(folder.name, folder.name, kind, "llama", parameters, size, content, "", "", now, engine=engine)
    return ModelArtifact(info, folder, base)


@asynccontextmanager
async def model_server(home: Path) -> AsyncIterator[ModelServerClient]:
    client = ModelServerClient(
        socket_path=home / "s.sock", log_path=home / "log", cache_bytes=4 << 30, files=home / "files"
    )
    try:
        yield client
    finally:
        await client.stop()


async def first_token(client: ModelServerClient, artifact: ModelArtifact, text: str = "Hello") -> float:
    began = time.perf_counter()
    async with aclosing(client.stream(artifact, [Message("user", text)], max_new_tokens=1)) as parts:
        async for _ in parts:
            break
    return time.perf_counter() - began


async def rate(client: ModelServerClient, artifacts: list[ModelArtifact], tokens: int = TOKENS) -> float:
    """Tokens a second of one answer for each of the artifacts, side by side."""

    async def one(number: int, artifact: ModelArtifact) -> int:
        messages = [Message("user", QUESTION.format(number))]
        async with aclosing(client.stream(artifact, messages, max_new_tokens=tokens)) as parts:
            return [part.tokens async for part in parts][-1]

    began = time.perf_counter()
    written = await asyncio.gather(*(one(number, artifact) for number, artifact in enumerate(artifacts)))
    return sum(written) / (time.perf_counter() - began)


async def speed(folder: Path, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second, and seconds to the first token of a long prompt; every contender once a round, so that a busy
    minute meets all of them.
    """
    artifact = artifact_of(folder)
    async with model_server(home) as client:
        began = time.perf_counter()
        await first_token(client, artifact)
        converted = time.perf_counter() - began
    (weights,) = (home / "files").glob("*.gguf")
    torch_side = _Transformers(folder)
    ids = torch_side.prompts(STREAMS)
    bare, _key = open_server(
        weights,
        [],
        tokens=POOL_TOKENS,
        slots=SLOTS,
        threads=THREADS,
        prompt_threads=CORES,
        socket=home / "bare.sock",
    )
    found: dict[str, list[float]] = {}

    async def note(name: str, measure: Callable[[], Awaitable[float]]) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        found.setdefault(name, []).append(round(await measure(), 3))

    async with model_server(home) as client:
        began = time.perf_counter()
        await first_token(client, artifact)
        cold = time.perf_counter() - began
        await asyncio.to_thread(_bare, bare, ids[:1])
        for number in range(options.rounds):
            for streams in (1, STREAMS):
                await note(f"bare_{streams}", lambda n=streams: asyncio.to_thread(_bare, bare, ids[:n]))
                await note(f"ours_{streams}", lambda n=streams: rate(client, [artifact] * n))
                await note(f"generate_{streams}", lambda n=streams: asyncio.to_thread(torch_side.generate, ids[:n]))
            long = torch_side.long_text(number)
            await note("long_prompt_generate", lambda n=number: asyncio.to_thread(torch_side.long_prompt, n))
            await note("long_prompt_bare", lambda n=number: asyncio.to_thread(_bare_long, bare, torch_side.long_ids(n)))
            await note("long_prompt_ours", lambda text=long: first_token(client, artifact, text))
            more = f"{long} And what then?"
            await note("long_prompt_ours_known_beginning", lambda text=more: first_token(client, artifact, text))
    medians = {name: round(statistics.median(values), 3) for name, values in found.items()}
    return {
        "tokens": TOKENS,
        "rounds": options.rounds,
        "threads": {"writing": THREADS, "prompts": CORES, "generate": CORES},
        "medians": medians,
        "all": found,
        "cold_start_seconds": round(cold, 2),
        "cold_start_with_conversion_seconds": round(converted, 2),
        "one_stream_over_generate": round(medians["ours_1"] / medians["generate_1"], 2),
        "eight_over_batched_generate": round(medians["ours_8"] / medians["generate_8"], 2),
        "ours_over_bare": {str(n): round(medians[f"ours_{n}"] / medians[f"bare_{n}"], 3) for n in (1, STREAMS)},
    }


def _bare(engine: Any, prompts: list[list[int]]) -> float:
    written: list[int] = []

    def ask(prompt: list[int]) -> None:
        body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0.0}

        def hear(text: str) -> bool:
            written.append(json.loads(text)["usage"]["completion_tokens"])
            return False

        engine.handle_completions(json.dumps(body), hear)

    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(written) / (time.perf_counter() - began)


def _bare_long(engine: Any, ids: list[int]) -> float:
    began = time.perf_counter()
    engine.handle_completions(json.dumps({"prompt": ids, "max_tokens": 1, "temperature": 0.0}), lambda _: False)
    return time.perf_counter() - began


class _Transformers:
    """``generate`` in bfloat16, its best type here."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(CORES)
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def prompts(self, count: int) -> list[list[int]]:
        return [self._ids(QUESTION.format(number)) for number in range(count)]

    def long_text(self, number: int) -> str:
        """Of about a thousand tokens with the template, another one each time from its first word on."""
        words = ["ship", "sea", "tea", "wind", "rope"]
        return " ".join(words[(number + place * (number + 1)) % 5] for place in range(LONG_PROMPT - 30))

    def long_ids(self, number: int) -> list[int]:
        return self._ids(self.long_text(number))

    def generate(self, prompts: list[list[int]]) -> float:
        batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        began = time.perf_counter()
        with self._torch.inference_mode():
            out = self._model.generate(**batch, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
        return float(out[:, batch["input_ids"].shape[1] :].numel() / (time.perf_counter() - began))

    def long_prompt(self, number: int) -> float:
        ids = self._torch.tensor([self.long_ids(number)])
        began = time.perf_counter()
        with self._torch.inference_mode():
            self._model.generate(ids, attention_mask=self._torch.ones_like(ids), max_new_tokens=1, do_sample=False)
        return time.perf_counter() - began

    def _ids(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        found: list[int] = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return found


def _adapters(folder: Path, home: Path, base: ModelArtifact, count: int) -> list[ModelArtifact]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = []
    for number in range(count):
        module = AutoModelForCausalLM.from_pretrained(folder)
        adapted = get_peft_model(
            module, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        torch.manual_seed(number)
        with torch.no_grad():
            for name, weights in adapted.named_parameters():
                if "lora_B" in name:
                    weights.normal_(std=0.01)
        adapted.save_pretrained(home / f"adapter-{number}")
        made.append(artifact_of(home / f"adapter-{number}", base=base, engine=base.info.engine))
    return made


async def adapters(folder: Path, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Eight answers at once in PyTorch: of one adapter, and of eight on one base; what memory they take."""
    base = artifact_of(folder, engine="pytorch")
    made = await asyncio.to_thread(_adapters, folder, home, base, STREAMS)
    found: dict[str, list[float]] = {"one": [], "eight": []}
    async with model_server(home) as client:
        await client.start()
        assert client.pid is not None
        process = psutil.Process(client.pid)
        await rate(client, [base] * STREAMS, 8)
        await client.unload(base)
        empty = process.memory_info().rss  # with the libraries
        await rate(client, [base] * STREAMS, 8)
        with_base = process.memory_info().rss
        await rate(client, made, 8)
        with_adapters = process.memory_info().rss
        for _ in range(options.rounds):
            await asyncio.sleep(PAUSE_SECONDS)
            found["one"].append(round(await rate(client, [made[0]] * STREAMS, 32), 2))
            await asyncio.sleep(PAUSE_SECONDS)
            found["eight"].append(round(await rate(client, made, 32), 2))
    weights = 4 * base.info.parameters
    added = 4 * sum(adapter.info.parameters for adapter in made)
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    return {
        "tokens_per_second": medians,
        "all": found,
        "eight_over_one": round(medians["eight"] / medians["one"], 3),
        "memory_mb": {
            "base_weights": round(weights / 1e6),
            "adapters_weights": round(added / 1e6),
            "grown_with_base": round((with_base - empty) / 1e6),
            "grown_with_all": round((with_adapters - empty) / 1e6),
        },
        "grown_over_weights": round((with_adapters - empty) / (weights + added), 3),
    }


async def switching(folder: Path, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the first token in llama.cpp: of the model at work, of a new adapter, of one that was there before."""
    base = artifact_of(folder)
    made = await asyncio.to_thread(_adapters, folder, home, base, 3)
    async with model_server(home) as client:
        await first_token(client, base)
        same = [round(await first_token(client, base), 3) for _ in range(3)]
        new = [round(await first_token(client, adapter), 3) for adapter in made]
        again = [round(await first_token(client, artifact), 3) for artifact in (*made, base, *made)]
    return {"same_model_seconds": same, "new_adapter_seconds": new, "switched_seconds": again}


async def proxy(folder: Path, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one token, asked of the model server and, in turn, of the web process before it."""
    found: dict[str, list[float]] = {"model_server": [], "web": []}
    with server(options.data) as (url, pid, _):
        socket = options.data / "model-server.sock"
        async with httpx.AsyncClient(base_url=url, timeout=120) as web:
            known = (await web.get(f"/api/models/{STARTER}")).json()
            body = {"model": STARTER, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            (await web.post("/v1/chat/completions", json=body)).raise_for_status()
            transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)
            artifact = artifact_of(folder)
            info = dataclasses.replace(artifact.info, id=known["id"], content_sha256=known["content_sha256"])
            asked = ChatRequest(dataclasses.replace(artifact, info=info), (Message("user", "Hello"),), 1, 0.0, 0, 60.0)
            direct_body = request_to_json(asked)
            process = psutil.Process(pid)
            async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=120) as direct:
                before = sum(process.cpu_times()[:2])
                for _ in range(60):
                    for name, ask in (
                        ("model_server", lambda: direct.post("/chat", json=direct_body)),
                        ("web", lambda: web.post("/v1/chat/completions", json=body)),
                    ):
                        began = time.perf_counter()
                        (await ask()).raise_for_status()
                        found[name].append(1000 * (time.perf_counter() - began))
                worked = 1000 * (sum(process.cpu_times()[:2]) - before) / len(found["web"])
    medians = {name: statistics.median(values) for name, values in found.items()}
    fastest = {name: min(values) for name, values in found.items()}
    return {
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "least_ms": {name: round(value, 2) for name, value in fastest.items()},
        "added_ms": round(medians["web"] - medians["model_server"], 2),
        "web_cpu_ms_a_request": round(worked, 2),
        "least_added_ms": round(fastest["web"] - fastest["model_server"], 2),
    }


PARTS = {"speed": speed, "adapters": adapters, "switching": switching, "proxy": proxy}

if __name__ == "__main__":
    asyncio.run(main())
