"""What both engines do, over the same tiny model: its safetensors in PyTorch, a GGUF file made of them in llama.cpp."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import build_tiny_model, tiny_artifact

from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ContextOverflow, InvalidConfig, Unavailable
from terakoya.models.budget import Budget
from terakoya.models.cache import ModelCache
from terakoya.models.engines import gguf_files
from terakoya.models.engines.base import Engine, Event
from terakoya.models.engines.choice import EngineChoice
from terakoya.models.engines.gguf_files import GGUFFiles
from terakoya.models.engines.llama_cpp import LlamaCppEngine
from terakoya.models.engines.pytorch import PyTorchEngine
from terakoya.models.prompt_writer import PromptWriter
from terakoya.models.wire import ChatRequest, Sampling

QUESTION = (Message("user", "寺子屋?"),)


@pytest.fixture(scope="module")
def prompts() -> Iterator[PromptWriter]:
    writer = PromptWriter()
    yield writer
    writer.close()


@pytest.fixture(scope="module")
def engines(prompts: PromptWriter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    folder = tmp_path_factory.mktemp("e")
    budget = Budget(1 << 30)
    patch = pytest.MonkeyPatch()
    patch.setattr(gguf_files, "SERVED_TYPE", "f32")  # the same numbers, so that both may be held to the same answers
    llama = LlamaCppEngine(budget, prompts, GGUFFiles(folder / "files"), threads=1, sockets=folder)
    yield {"llama.cpp": llama, "pytorch": PyTorchEngine(ModelCache(budget), prompts)}
    for instance in list(llama._instances.values()):
        llama._drop(instance)
    patch.undo()


@pytest.fixture(params=["llama.cpp", "pytorch"])
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


def ask(engine: Engine, artifact: ModelArtifact, *, tokens: int = 8, **options: Any) -> list[Event]:
    sampling = {name: options.pop(name) for name in list(options) if name in Sampling.__dataclass_fields__}
    defaults = {"messages": QUESTION, "temperature": 0.0, "seed": 0, "timeout_seconds": 60.0}
    fields = defaults | {"max_new_tokens": tokens} | options
    events: list[Event] = []
    engine.answer(ChatRequest(artifact, sampling=Sampling(**sampling), **fields), lambda: False, events.append)
    return events


def text(events: list[Event]) -> str:
    return "".join(event.get("delta", "") for event in events)


def test_base_and_adapter_are_told_apart_and_back_again(
    engine: Engine, tiny_base: ModelArtifact, tiny_adapter: ModelArtifact
) -> None:
    first, tuned, again = (text(ask(engine, artifact)) for artifact in (tiny_base, tiny_adapter, tiny_base))
    assert first == again
    assert first != tuned
    assert len(engine.open_models()) == 1
    assert engine.open_models()[0].adapters == 1


def test_both_engines_write_the_same(
    engines: dict[str, Engine], tiny_base: ModelArtifact, tiny_adapter: ModelArtifact
) -> None:
    for artifact in (tiny_base, tiny_adapter):
        written = [text(ask(engine, artifact, tokens=12)) for engine in engines.values()]
        assert written[0] == written[1]


def test_the_end_tells_the_tokens_the_reason_and_the_engine(engine: Engine, tiny_base: ModelArtifact) -> None:
    end = ask(engine, tiny_base, tokens=5, temperature=0.0)[-1]
    assert (end["finished"], end["tokens"], end["reason"]) == (True, 5, "length")
    assert end["prompt_tokens"] > 10
    assert end["engine"].startswith(engine.name)


def test_a_full_window_is_another_reason(engine: Engine, tiny_base: ModelArtifact) -> None:
    end = ask(engine, tiny_base, messages=(Message("user", "a" * 980),), tokens=500)[-1]
    assert end["reason"] in ("context", "stop")
    assert end["prompt_tokens"] + end["tokens"] <= 1024


def test_a_prompt_too_long_is_refused_by_how_much(engine: Engine, tiny_base: ModelArtifact) -> None:
    with pytest.raises(ContextOverflow, match=r"has 2019 tokens; .* reads 1024 .* 996 too long"):
        ask(engine, tiny_base, messages=(Message("user", "a" * 2000),))


def test_a_text_is_gone_on_with_as_it_is(engine: Engine, tiny_base: ModelArtifact) -> None:
    end = ask(engine, tiny_base, messages=(), text="abc", tokens=3)[-1]
    assert end["prompt_tokens"] == 3


def test_a_stop_ends_the_answer_before_it_is_written(engine: Engine, tiny_base: ModelArtifact) -> None:
    whole = text(ask(engine, tiny_base, tokens=30))
    stop = next(whole[place : place + 2] for place in range(3, len(whole) - 2) if whole[place : place + 2].isascii())
    events = ask(engine, tiny_base, tokens=30, stop=(stop,))
    assert text(events) == whole[: whole.index(stop)]
    assert events[-1]["reason"] == "stop"


def test_each_piece_says_how_likely_it_was(engine: Engine, tiny_base: ModelArtifact) -> None:
    events = ask(engine, tiny_base, tokens=4, top_logprobs=3)
    said = [entry for event in events for entry in event.get("logprobs", [])]
    assert 1 <= len(said) <= 4  # llama.cpp joins tokens that make one character
    assert bytes(number for entry in said for number in entry["bytes"]).decode(errors="replace") == text(events)
    for entry in said:
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0  # the likeliest was taken
        assert [other["logprob"] for other in entry["top_logprobs"]] == sorted(
            (other["logprob"] for other in entry["top_logprobs"]), reverse=True
        )
        assert len(entry["top_logprobs"]) == 3


def test_both_engines_find_the_same_tokens_likely(engines: dict[str, Engine], tiny_base: ModelArtifact) -> None:
    for question in ("a", "b", "c"):
        first = [
            next(event["logprobs"][0] for event in ask(engine, tiny_base, text=question, top_logprobs=1))
            for engine in engines.values()
        ]
        if len(first[0]["bytes"]) == 1:  # else llama.cpp has joined some
            assert first[0]["bytes"] == first[1]["bytes"]
            assert first[0]["logprob"] == pytest.approx(first[1]["logprob"], abs=2e-3)  # summed in another order


def test_a_penalty_keeps_it_from_repeating_itself(engine: Engine, tiny_base: ModelArtifact) -> None:
    def repeats(**penalty: float) -> int:
        said = ask(engine, tiny_base, tokens=40, top_logprobs=0, **penalty)
        tokens = [tuple(entry["bytes"]) for event in said for entry in event.get("logprobs", [])]
        return len(tokens) - len(set(tokens))

    assert repeats(presence_penalty=2.0, frequency_penalty=2.0) < repeats()


def test_top_p_near_nothing_is_the_likeliest(engine: Engine, tiny_base: ModelArtifact) -> None:
    wanted = text(ask(engine, tiny_base))
    for seed in range(3):
        assert text(ask(engine, tiny_base, temperature=1.5, top_p=1e-6, seed=seed)) == wanted


def test_seeds_differ_and_one_repeats(engine: Engine, tiny_base: ModelArtifact) -> None:
    written = [text(ask(engine, tiny_base, tokens=20, temperature=1.0, seed=seed)) for seed in (1, 2, 1)]
    assert written[0] == written[2] != written[1]


def test_it_stops_when_nobody_listens(engine: Engine, tiny_base: ModelArtifact) -> None:
    events: list[Event] = []
    request = ChatRequest(tiny_base, QUESTION, 500, 1.0, 0, 60.0)
    engine.answer(request, lambda: len(events) >= 2, events.append)
    assert len(events) <= 3
    assert not events[-1].get("finished")


def test_an_answer_past_its_time_is_stopped(engine: Engine, tiny_base: ModelArtifact) -> None:
    with pytest.raises(Unavailable, match=r"took over 0\.001 s"):
        ask(engine, tiny_base, tokens=500, timeout_seconds=0.001)


def test_a_model_that_is_closed_is_opened_again(engine: Engine, tiny_base: ModelArtifact) -> None:
    wanted = text(ask(engine, tiny_base))
    assert engine.unload(tiny_base)
    assert engine.open_models() == []
    assert text(ask(engine, tiny_base)) == wanted


def test_an_answer_is_held_to_a_schema_where_the_engine_can(
    engines: dict[str, Engine], tiny_base: ModelArtifact
) -> None:
    schema = {
        "type": "object",
        "properties": {"done": {"type": "boolean"}},
        "required": ["done"],
        "additionalProperties": False,
    }
    written = text(ask(engines["llama.cpp"], tiny_base, tokens=40, json_schema=schema))
    assert json.loads(written)["done"] in (True, False)
    with pytest.raises(InvalidConfig, match="cannot hold an answer to a JSON schema"):
        ask(engines["pytorch"], tiny_base, json_schema=schema)


def test_llama_cpp_is_chosen_where_it_can_and_a_setting_goes_before(
    engines: dict[str, Engine], tiny_base: ModelArtifact, tmp_path: Path
) -> None:
    choice = EngineChoice(engines)

    def chosen(artifact: ModelArtifact, engine: str) -> str:
        info = dataclasses.replace(artifact.info, engine=engine)
        return choice.engine_for(dataclasses.replace(artifact, info=info)).name

    assert choice.engine_for(tiny_base).name == "llama.cpp"
    assert chosen(tiny_base, "pytorch") == "pytorch"
    assert EngineChoice(engines, device="cuda").engine_for(tiny_base).name == "pytorch"
    assert EngineChoice({"pytorch": engines["pytorch"]}).engine_for(tiny_base).name == "pytorch"
    with pytest.raises(InvalidConfig, match=r"unknown engine 'vllm'; there are auto, llama\.cpp, pytorch"):
        chosen(tiny_base, "vllm")
    foreign = tiny_artifact(build_tiny_model(tmp_path / "foreign"))
    config = json.loads((foreign.path / "config.json").read_text())
    (foreign.path / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert choice.engine_for(foreign).name == "pytorch"
    with pytest.raises(InvalidConfig, match="'mamba' are not written as GGUF"):
        chosen(foreign, "llama.cpp")


def test_the_two_engines_share_one_budget(tiny_base: ModelArtifact, prompts: PromptWriter, tmp_path: Path) -> None:
    """Opening in one what does not fit beside what the other holds drops that."""
    budget = Budget(3 << 20)
    torch = PyTorchEngine(ModelCache(budget), prompts)
    llama = LlamaCppEngine(budget, prompts, GGUFFiles(tmp_path / "files"), threads=1, sockets=tmp_path)
    small = dataclasses.replace(tiny_base)
    torch.load(small)
    with pytest.raises(Unavailable, match="TERAKOYA_MODEL_CACHE_BYTES"):  # its cache alone has 4 MiB and more
        llama.load(small)
    assert torch.open_models() == []
    torch.load(small)
    assert budget.used_bytes == sum(model.size_bytes for model in torch.open_models()) > 0
