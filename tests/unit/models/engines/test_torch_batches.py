"""Answers that the PyTorch engine writes side by side: each is what it would be alone."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_model import build_tiny_adapter, build_tiny_model, tiny_artifact

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.cache import ModelCache
from terakoya.models.engines.base import Event
from terakoya.models.engines.pytorch import PyTorchEngine
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.row_batch import RowBatch
from terakoya.models.wire import ChatRequest, Sampling


@pytest.fixture(scope="module")
def prompts() -> Iterator[PromptWriter]:
    writer = PromptWriter()
    yield writer
    writer.close()


@pytest.fixture(scope="module")
def adapters(tiny_base: ModelArtifact, tmp_path_factory: pytest.TempPathFactory) -> list[ModelArtifact]:
    folder = tmp_path_factory.mktemp("adapters")
    return [
        tiny_artifact(build_tiny_adapter(folder / f"a{n}", tiny_base.path, rank=2 + n, seed=n), base=tiny_base)
        for n in range(5)
    ]


def request_of(artifact: ModelArtifact, *, number: int = 0, **options: Any) -> ChatRequest:
    """Of a length of its own, so that rows are padded."""
    sampling = {name: options.pop(name) for name in list(options) if name in Sampling.__dataclass_fields__}
    fields = {"max_new_tokens": 24, "temperature": 0.0, "seed": number, "timeout_seconds": 60.0} | options
    return ChatRequest(artifact, (Message("user", "寺子屋? " * (1 + number)),), sampling=Sampling(**sampling), **fields)


def answer(engine: PyTorchEngine, request: ChatRequest) -> list[Event]:
    events: list[Event] = []
    engine.answer(request, lambda: False, events.append)
    return [event for event in events if "waiting" not in event]


def together(engine: PyTorchEngine, requests: Sequence[ChatRequest]) -> list[list[Event]]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: answer(engine, request), requests))


def check_same(found: list[list[Event]], wanted: list[list[Event]]) -> None:
    """Likelihoods are summed in another order beside others."""
    numbers: list[list[float]] = [[], []]

    def without_numbers(events: list[list[Event]], into: list[float]) -> Any:
        return json.loads(json.dumps(events), parse_float=lambda text: into.append(float(text)))

    assert without_numbers(found, numbers[0]) == without_numbers(wanted, numbers[1])
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-3)


def test_mixed_requests_get_the_answers_they_would_get_alone(
    tiny_base: ModelArtifact, adapters: list[ModelArtifact], prompts: PromptWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = RowBatch.step
    monkeypatch.setattr(RowBatch, "step", lambda self, tokens: (seen.append(len(tokens)), step(self, tokens))[1])
    requests = [
        request_of(tiny_base),
        *(request_of(adapter, number=n) for n, adapter in enumerate(adapters)),
        request_of(adapters[0], number=3, temperature=1.0, top_p=0.9),
        request_of(adapters[1], number=2, presence_penalty=1.5, frequency_penalty=0.5, max_new_tokens=40),
        request_of(adapters[2], number=1, top_logprobs=3),
        request_of(tiny_base, temperature=0.7, max_new_tokens=60, stop=("q", "z")),
    ]
    single = PyTorchEngine(ModelCache(1 << 30), prompts)
    alone = [answer(single, request) for request in requests]
    assert set(seen) == {1}
    seen.clear()
    engine = PyTorchEngine(ModelCache(1 << 30), prompts)
    engine.load(tiny_base)
    check_same(together(engine, requests), alone)
    assert max(seen) >= 4  # they were in one batch, not one after the other
    assert len({json.dumps(events) for events in alone[:6]}) == 6  # and the adapters differ


def test_an_adapter_that_is_no_plain_sum_is_computed_apart_and_right(
    tiny_base: ModelArtifact, adapters: list[ModelArtifact], prompts: PromptWriter, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(tiny_base.path)
    dora = get_peft_model(module, LoraConfig(r=4, use_dora=True, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in dora.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    dora.save_pretrained(tmp_path / "dora")
    weighed = tiny_artifact(tmp_path / "dora", base=tiny_base)
    requests = [request_of(artifact) for artifact in (adapters[0], weighed, tiny_base, weighed, adapters[1])]
    single = PyTorchEngine(ModelCache(1 << 30), prompts)
    alone = [answer(single, request) for request in requests]
    assert together(PyTorchEngine(ModelCache(1 << 30), prompts), requests) == alone
    assert alone[1] not in (alone[0], alone[2])


def test_a_bad_adapter_spoils_no_answer_beside_it(
    tiny_base: ModelArtifact, adapters: list[ModelArtifact], prompts: PromptWriter, tmp_path: Path
) -> None:
    foreign = build_tiny_adapter(tmp_path / "foreign", build_tiny_model(tmp_path / "wide", hidden=128))
    misfit = tiny_artifact(foreign, base=tiny_base)
    engine = PyTorchEngine(ModelCache(1 << 30), prompts)
    alone = answer(engine, request_of(adapters[0], max_new_tokens=60))

    def ask(artifact: ModelArtifact) -> Any:
        try:
            return answer(engine, request_of(artifact, max_new_tokens=60))
        except ModelLoadError as error:
            return str(error)

    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            good, bad, again, base = pool.map(ask, (adapters[0], misfit, adapters[0], tiny_base))
        assert good == again == alone
        assert "another model" in bad
        assert base[-1]["finished"]


def test_adapters_lie_behind_one_another_and_no_weight_is_kept_twice(
    tiny_base: ModelArtifact, adapters: list[ModelArtifact], prompts: PromptWriter
) -> None:
    cache = ModelCache(1 << 30)
    engine = PyTorchEngine(cache, prompts)
    together(engine, [request_of(adapter) for adapter in adapters])
    (base,) = cache._bases.values()
    packed = base.mixed._packed
    views = [
        weight.data_ptr()
        for layer in packed
        for weight in (*(part.weight for part in layer.lora_A.values()), *(p.weight for p in layer.lora_B.values()))
    ]
    places = [
        range(matrix.data_ptr(), matrix.data_ptr() + matrix.nbytes) for p in packed.values() for matrix in (p.a, p.b)
    ]
    assert len(views) == 2 * len(adapters) * len(packed)
    assert all(any(view in place for place in places) for view in views)


def test_an_adapter_at_work_is_not_put_out_for_another(
    tiny_base: ModelArtifact, adapters: list[ModelArtifact], prompts: PromptWriter
) -> None:
    """The budget holds the base and two of the smaller ones."""
    room = tiny_base.info.size_bytes + 2 * adapters[1].info.size_bytes
    requests = [request_of(adapters[n % 2], number=n, max_new_tokens=30) for n in range(6)]
    single = PyTorchEngine(ModelCache(1 << 30), prompts)
    alone = [answer(single, request) for request in requests]
    engine = PyTorchEngine(ModelCache(room), prompts)
    answer(engine, request_of(adapters[0]))
    assert together(engine, requests) == alone


def test_rows_that_cannot_be_joined_are_written_one_after_the_other(prompts: PromptWriter, tmp_path: Path) -> None:
    """Of a model whose layers keep a window of keys and values."""
    from transformers import MistralConfig, MistralForCausalLM

    folder = build_tiny_model(tmp_path / "windowed")
    config = MistralConfig(**json.loads((folder / "config.json").read_text()) | {"model_type": "mistral"})
    config.sliding_window = 16
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(folder)
    model = tiny_artifact(folder)
    engine = PyTorchEngine(ModelCache(1 << 30), prompts)
    alone = [answer(engine, request_of(model, number=n)) for n in range(3)]
    assert together(engine, [request_of(model, number=n) for n in range(3)]) == alone


def test_who_leaves_makes_room_and_the_rest_go_on(tiny_base: ModelArtifact, prompts: PromptWriter) -> None:
    engine = PyTorchEngine(ModelCache(1 << 30), prompts)
    wanted = answer(engine, request_of(tiny_base, number=1, max_new_tokens=120))
    gone = threading.Event()
    first: list[Event] = []
    leaver = threading.Thread(
        target=engine.answer,
        args=(request_of(tiny_base, number=4, max_new_tokens=500, temperature=1.0), gone.is_set, first.append),
    )
    leaver.start()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(answer, engine, request_of(tiny_base, number=1, max_new_tokens=120))
        gone.set()
        assert other.result(60) == wanted
    leaver.join(60)
    assert not any(event.get("finished") for event in first)
    assert engine.unload(tiny_base)


def test_a_base_that_is_closed_is_freed_at_once(
    tiny_base: ModelArtifact, adapters: list[ModelArtifact], prompts: PromptWriter
) -> None:
    cache = ModelCache(1 << 30)
    engine = PyTorchEngine(cache, prompts)
    together(engine, [request_of(adapter) for adapter in adapters])
    (base,) = cache._bases.values()
    module = weakref.ref(base.loaded.module)
    del base
    wait_until(lambda: not engine._batches._batches)
    assert engine.unload(tiny_base)
    wait_until(lambda: module() is None)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
