"""How fast the starter model answers: one stream and eight, through our model server, in llama.cpp alone, and in
``transformers.generate`` single and batched, interleaved in one run; the first token of a long prompt; switching
adapters; a cold start.

    TERAKOYA_BENCH_MODEL=<Transformers folder> python benchmarks/serving_speed.py [--rounds 3]

Each part takes under five minutes on two cores. Writes ``results/serving_speed.json`` and
``results/adapter_switching.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import describe_machine, save

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.models.client import ModelServerClient

TOKENS = 96
STREAMS = 8
LONG_PROMPT = 1000
QUESTION = "Write a long story about a ship, number {}."


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=["speed", "switching", "all"], default="all")
    options = parser.parse_args()
    folder = Path(os.environ["TERAKOYA_BENCH_MODEL"])
    machine = describe_machine()
    if options.part in ("speed", "all"):
        save("serving_speed", speed(folder, options.rounds), machine)
    if options.part in ("switching", "all"):
        save("adapter_switching", asyncio.run(switching(folder)), machine)


def artifact_of(folder: Path, *, base: ModelArtifact | None = None) -> ModelArtifact:
    kind = ModelKind.BASE if base is None else ModelKind.ADAPTER
    size = sum(file.stat().st_size for file in folder.iterdir())
    content = folder.name.encode().hex()[:64].ljust(64, "0")
    now = datetime.now(UTC)
    return ModelArtifact(
        ModelInfo(folder.name, folder.name, kind, "llama", 0, size, content, "", "", now), folder, base
    )


def speed(folder: Path, rounds: int) -> dict[str, Any]:
    """Tokens a second; every contender once a round, so that a busy minute meets all of them."""
    from terakoya.models.engines.llama_cpp import open_server

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        client = ModelServerClient(
            socket_path=home / "s.sock", log_path=home / "log", cache_bytes=4 << 30, files=home / "files"
        )
        artifact = artifact_of(folder)
        began = time.perf_counter()
        asyncio.run(_with(client, lambda: _ours(client, artifact, 1, 1)))
        cold_first = time.perf_counter() - began
        (weights,) = (home / "files").glob("*.gguf")
        began = time.perf_counter()
        asyncio.run(_with(client, lambda: _ours(client, artifact, 1, 1)))
        cold = time.perf_counter() - began
        torch_side = _Transformers(folder)
        ids = torch_side.prompts(STREAMS)
        found: dict[str, list[float]] = {}

        def note(name: str, measure: Callable[[], float]) -> None:
            found.setdefault(name, []).append(measure())

        for _ in range(rounds):
            for streams in (1, STREAMS):
                # One after the other: two engines open at once would share the cores with each other's idle threads.
                server, _key = open_server(
                    weights, [], tokens=16_384, slots=STREAMS, threads=os.cpu_count() or 1, socket=home / "bare.sock"
                )
                note(f"bare_{streams}", lambda streams=streams, server=server: _bare(server, ids[:streams]))
                if streams == 1:
                    note("bare_long_prompt_seconds", lambda server=server: _bare_long(server))
                del server
                (home / "bare.sock").unlink(missing_ok=True)
                note(
                    f"ours_{streams}",
                    lambda streams=streams: asyncio.run(
                        _with(client, lambda: _warm_then_ours(client, artifact, streams))
                    ),
                )
                note(f"generate_{streams}", lambda streams=streams: torch_side.generate(ids[:streams]))
            note("generate_long_prompt_seconds", torch_side.long_prompt)
    medians = {name: round(statistics.median(values), 3) for name, values in found.items()}
    return {
        "tokens": TOKENS,
        "rounds": rounds,
        "medians": medians,
        "all": {name: [round(value, 3) for value in values] for name, values in found.items()},
        "cold_start_with_conversion_seconds": round(cold_first, 2),
        "cold_start_seconds": round(cold, 2),
        "one_stream_over_generate": round(medians["ours_1"] / medians["generate_1"], 2),
        "eight_over_batched_generate": round(medians["ours_8"] / medians["generate_8"], 2),
        "ours_over_bare": {str(n): round(medians[f"ours_{n}"] / medians[f"bare_{n}"], 3) for n in (1, STREAMS)},
    }


async def _with(client: ModelServerClient, work: Callable[[], Any]) -> Any:
    try:
        return await work()
    finally:
        await client.stop()


async def _warm_then_ours(client: ModelServerClient, artifact: ModelArtifact, streams: int) -> float:
    await _ours(client, artifact, 1, 4)
    return await _ours(client, artifact, streams, TOKENS)


async def _ours(client: ModelServerClient, artifact: ModelArtifact, streams: int, tokens: int) -> float:
    async def one(number: int) -> int:
        messages = [Message("user", QUESTION.format(number))]
        async with aclosing(client.stream(artifact, messages, max_new_tokens=tokens)) as parts:
            return [part.tokens async for part in parts][-1]

    began = time.perf_counter()
    written = await asyncio.gather(*(one(number) for number in range(streams)))
    return sum(written) / (time.perf_counter() - began)


def _bare(server: Any, prompts: list[list[int]]) -> float:
    written: list[int] = []

    def ask(prompt: list[int]) -> None:
        body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0.0}
        server.handle_completions(
            json.dumps(body), lambda text: written.append(json.loads(text)["usage"]["completion_tokens"])
        )

    server.handle_completions(json.dumps({"prompt": [1, 2, 3], "max_tokens": 4}), lambda _: False)
    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(written) / (time.perf_counter() - began)


def _bare_long(server: Any) -> float:
    began = time.perf_counter()
    body = {"prompt": list(range(100, 100 + LONG_PROMPT)), "max_tokens": 1, "temperature": 0.0}
    server.handle_completions(json.dumps(body), lambda _: False)
    return time.perf_counter() - began


class _Transformers:
    """``generate`` in bfloat16, its best type here."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def prompts(self, count: int) -> list[list[int]]:
        return [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": QUESTION.format(number)}], add_generation_prompt=True, return_dict=False
            )
            for number in range(count)
        ]

    def generate(self, prompts: list[list[int]]) -> float:
        batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        began = time.perf_counter()
        with self._torch.inference_mode():
            out = self._model.generate(**batch, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
        return float(out[:, batch["input_ids"].shape[1] :].numel() / (time.perf_counter() - began))

    def long_prompt(self) -> float:
        ids = self._torch.arange(100, 100 + LONG_PROMPT)[None]
        began = time.perf_counter()
        with self._torch.inference_mode():
            self._model.generate(ids, attention_mask=self._torch.ones_like(ids), max_new_tokens=1, do_sample=False)
        return time.perf_counter() - began


async def switching(folder: Path) -> dict[str, Any]:
    """Seconds to the first token of an adapter: one that is new, and one whose turn it is again."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as scratch:
        home, base = Path(scratch), artifact_of(folder)
        adapters = []
        for number in range(3):
            module = AutoModelForCausalLM.from_pretrained(folder)
            config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            get_peft_model(module, config).save_pretrained(home / f"adapter-{number}")
            adapters.append(artifact_of(home / f"adapter-{number}", base=base))
        client = ModelServerClient(
            socket_path=home / "s.sock", log_path=home / "log", cache_bytes=4 << 30, files=home / "files"
        )

        async def first_token(artifact: ModelArtifact) -> float:
            began = time.perf_counter()
            await _ours(client, artifact, 1, 1)
            return round(time.perf_counter() - began, 3)

        try:
            await first_token(base)
            plain = [await first_token(base) for _ in range(3)]
            new = [await first_token(adapter) for adapter in adapters]
            again = [await first_token(artifact) for artifact in (*adapters, base, *adapters)]
        finally:
            await client.stop()
    return {"same_model_seconds": plain, "new_adapter_seconds": new, "switched_seconds": again}


if __name__ == "__main__":
    main()
