"""Whole runs on a tiny model: real data, training, report card and files, in the test's own process."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tests.tiny_model import tiny_artifact
from tests.unit.training.conftest import Recorder

from terakoya.data.examples import to_line
from terakoya.domain.datasets import Example, Message, Split
from terakoya.domain.events import EventType, Phase
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.exceptions import InvalidConfig, InvalidDataset, OutOfMemory, StorageFull
from terakoya.models import probe
from terakoya.models.artifacts import check_folder
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.training.defaults import resolve
from terakoya.training.engine import checkpoint
from terakoya.training.request import TrainingRequest
from terakoya.training.run import TrainingRun
from terakoya.training.spec import RunSpec

QUESTIONS = [f"{'very ' * (number % 3)}nice number {number}?" for number in range(24)]


@pytest.fixture(autouse=True)
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_gflops", lambda device, dtype, *_: 100.0 if dtype is torch.float32 else 1.0)


@pytest.fixture(autouse=True)
def few_canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passages a language instead of thirty, and none of them in a language the tiny model does not have."""
    from terakoya.evaluation import canaries
    from terakoya.training import judging

    def few(language: str) -> canaries.CanarySet:
        return canaries.CanarySet(language, ("The tide was out.", "It rained all day."), "few")

    for module in (canaries, judging):
        monkeypatch.setattr(module, "canary_set", few)


def never() -> None:
    return None


class Bench:
    """Builds runs over one small dataset in one folder."""

    def __init__(self, folder: Path, model: Path, recorder: Recorder) -> None:
        self.folder = folder
        self.recorder = recorder
        self.model = tiny_artifact(model)
        rows = folder / "rows.jsonl"
        rows.write_bytes(b"".join(map(to_line, self._examples())))
        self.rows = rows

    @staticmethod
    def _examples() -> list[Example]:
        return [
            Example(
                row,
                (Message("user", question), Message("assistant", "even" if row % 2 else "odd")),
                Split.HELDOUT if row % 4 == 0 else Split.TRAIN,
            )
            for row, question in enumerate(QUESTIONS, start=1)
        ]

    def run(
        self,
        *,
        task: str = "task",
        attempt: int = 1,
        requested_action: Callable[[], str | None] = never,
        **fields: Any,
    ) -> Outcome:
        asked = {"model": "tiny", "dataset": "numbers", "max_steps": 6, "batch_size": 4, "learning_rate": 0.01}
        request = TrainingRequest.model_validate(asked | fields)
        spec = RunSpec(
            name="tuned",
            request=request.model_dump(mode="json", exclude_unset=True),
            resolved=resolve(request, parameters=100_000, rows=18),
            model=self.model,
            dataset_id="data_x",
            dataset_name="numbers",
            dataset_sha256=hashlib.sha256(self.rows.read_bytes()).hexdigest(),
            rows_path=self.rows,
            evaluation_cache=self.folder / "cache",
            threads=1,
            token_cache=self.folder / "tokens",
            token_cache_bytes=1 << 20,
        )
        (self.folder / task).mkdir(exist_ok=True)
        return TrainingRun(
            RunSpec.from_json(json.loads(json.dumps(spec.to_json()))),
            task_id="task_x",
            task_dir=self.folder / task,
            attempt=attempt,
            observer=self.recorder,
            requested_action=requested_action,
        ).execute()

    def phases(self) -> list[str]:
        """Each phase once per time it was entered."""
        names = [event["phase"] for event in self.recorder.of(EventType.PHASE)]
        return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


@pytest.fixture
def bench(tmp_path: Path, tiny_folder: Path, recorder: Recorder) -> Bench:
    return Bench(tmp_path, tiny_folder, recorder)


def registered(outcome: Outcome, bench: Bench, task: str = "task") -> ModelArtifact:
    """What the registry would make of an outcome."""
    assert outcome.model is not None
    info = ModelInfo(
        **{
            **{key: value for key, value in outcome.model.items() if key != "directory"},
            "id": "model_tuned",
            "kind": ModelKind(outcome.model["kind"]),
            "size_bytes": 0,
            "content_sha256": "0" * 64,
            "created_at": bench.model.info.created_at,
        }
    )
    path = bench.folder / task / outcome.model["directory"]
    return ModelArtifact(info, path, bench.model if info.kind is ModelKind.ADAPTER else None)


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_a_run_ends_with_a_model_that_opens_and_a_report(bench: Bench, strategy: str) -> None:
    outcome = bench.run(strategy=strategy)
    assert outcome.status is TaskState.SUCCEEDED
    artifact = registered(outcome, bench)
    assert artifact.info.kind is (ModelKind.ADAPTER if strategy == "lora" else ModelKind.FULL)
    assert artifact.info.parent_id == bench.model.info.id
    loaded = create_model_loader(loader_type(artifact)).load(artifact)
    assert loaded.tokenizer.chat_template

    report = json.loads((bench.folder / "task" / "report.json").read_bytes())
    assert report["heldout"]["examples"] == 6
    assert report["heldout"]["loss"]["after"]["value"] < report["heldout"]["loss"]["before"]["value"]
    assert report["configuration"]["compute_type"] == "float32"
    assert report["cost"]["trained_tokens"] == outcome.result["trained_tokens"] > 0

    english, japanese = report["canaries"]
    assert english["is_applicable"]
    assert english["after"]["value"] != english["before"]["value"]
    assert not japanese["is_applicable"], "random weights know no Japanese"
    assert report["forgetting"]["code"] in ("no_clear_change", "slightly_worse", "worse", "better")
    assert outcome.result["forgetting"] == report["forgetting"]

    card = (artifact.path / "README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"')
    assert "# tuned" in card
    assert "6 held-out examples" in card
    assert "| ja |" in card
    assert "The base had no Japanese" in card
    suffixes = {path.suffix for path in artifact.path.iterdir()}
    assert suffixes <= {".safetensors", ".json", ".jinja", ".md", ".txt"}


def test_phases_come_in_order_and_steps_reach_the_end(bench: Bench) -> None:
    bench.run()
    assert bench.phases() == [
        Phase.READING_DATA,
        Phase.LOADING_MODEL,
        Phase.TOKENIZING,
        Phase.PROBING,
        Phase.TRAINING,
        Phase.EVALUATING_BEFORE,
        Phase.EVALUATING_AFTER,
        Phase.SAVING,
    ]
    steps = bench.recorder.of(EventType.STEP)
    assert steps[-1]["step"] == steps[-1]["total_steps"] == 6
    assert [event["when"] for event in bench.recorder.of(EventType.EVAL)] == ["before", "after"]
    canaries = [(event["when"], event["language"]) for event in bench.recorder.of(EventType.CANARY)]
    assert canaries == [("before", "en"), ("before", "ja"), ("after", "en")]


def test_the_effective_configuration_is_told_and_kept(bench: Bench) -> None:
    outcome = bench.run()
    told = next(event["effective"] for event in bench.recorder.of(EventType.LOG) if "effective" in event)
    assert told.items() <= (outcome.result["effective"] | told).items()
    assert outcome.result["effective"]["forward"] == "fused"
    assert outcome.result["effective"]["shares_prefix"] is True
    assert outcome.result["effective"]["steps"] == 6


def test_dropout_is_not_shared_along_with_a_prefix(bench: Bench) -> None:
    outcome = bench.run(adapter={"rank": 2, "dropout": 0.1})
    assert outcome.result["effective"]["shares_prefix"] is False


def test_the_unchanged_model_is_scored_once(bench: Bench) -> None:
    bench.run(task="one")
    bench.run(task="two", learning_rate=0.02)
    assert bench.phases().count(Phase.EVALUATING_BEFORE) == 1
    before = [event["loss"] for event in bench.recorder.of(EventType.EVAL) if event["when"] == "before"]
    assert before[0] == before[1]


def test_general_text_is_scored_once_for_a_model_whatever_the_data(bench: Bench) -> None:
    bench.run(task="one")
    bench.rows.write_bytes(bench.rows.read_bytes().replace(b"nice", b"fine"))
    bench.run(task="two")
    before = [event for event in bench.recorder.of(EventType.PHASE) if event["phase"] == Phase.EVALUATING_BEFORE]
    assert max(event["total"] for event in before) == before[0]["total"] == 6 + 2
    assert before[-1]["total"] == 6, "the second time only the new rows"


def test_rows_are_tokenised_once_for_a_tokenizer_whatever_the_run(bench: Bench) -> None:
    for strategy in ("lora", "full"):
        bench.run(task=strategy, strategy=strategy)
        ready = [event["message"] for event in bench.recorder.of(EventType.LOG) if "earlier run" in event["message"]]
        assert len(ready) == (strategy == "full"), ready


def test_lora_and_full_agree_on_the_model_before(bench: Bench, tmp_path: Path) -> None:
    bench.run(task="one")
    for cached in (tmp_path / "cache").iterdir():
        cached.unlink()
    bench.run(task="two", strategy="full")
    before = [event["loss"] for event in bench.recorder.of(EventType.EVAL) if event["when"] == "before"]
    assert before[0] == pytest.approx(before[1], rel=1e-6)


def test_conversations_that_cannot_be_one_row_are_told(bench: Bench, tmp_path: Path) -> None:
    rows = [
        Example(row, (*turns, Message("assistant", "</think>yes")), split)
        for row, split in ((1, Split.TRAIN), (2, Split.HELDOUT))
        for turns in [(Message("user", "a?"), Message("assistant", "hm</think>no"), Message("user", f"b{row}?"))]
    ]
    bench.rows.write_bytes(b"".join(map(to_line, rows)))
    folder = shutil.copytree(bench.model.path, tmp_path / "thinking")
    template = folder / "chat_template.jinja"
    template.write_text(
        template.read_text().replace(
            "message['content']", "(message['content'] if loop.last else message['content'].split('</think>')[-1])"
        )
    )
    bench.model = tiny_artifact(folder)

    outcome = bench.run(max_steps=1)

    warning = next(w for w in bench.recorder.of(EventType.WARNING) if w["code"] == "conversations_split")
    assert "1 conversations" in warning["message"]
    assert outcome.result["effective"]["rows"] == 2


def asking(action: str, *, during: Phase, recorder: Recorder) -> Callable[[], str | None]:
    """Ask for it once the run is in that phase."""
    return lambda: action if any(event["phase"] == during for event in recorder.of(EventType.PHASE)) else None


@pytest.mark.parametrize("phase", [Phase.TOKENIZING, Phase.TRAINING, Phase.EVALUATING_AFTER])
def test_cancel_ends_a_run_in_any_phase(bench: Bench, phase: Phase) -> None:
    outcome = bench.run(requested_action=asking("cancel", during=phase, recorder=bench.recorder))
    assert outcome == Outcome(TaskState.CANCELLED, 1)
    assert bench.phases()[-1] == phase
    assert not (bench.folder / "task" / "report.json").exists()


FILES = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}


@pytest.mark.parametrize(
    ("action", "strategy", "state"),
    [("cancel", "lora", TaskState.CANCELLED), ("pause", "lora", TaskState.PAUSED), ("pause", "full", TaskState.PAUSED)],
)
def test_a_stopped_run_goes_on_where_it_was_and_ends_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, action: str, strategy: str, state: TaskState
) -> None:
    bench.run(task="whole", strategy=strategy)
    steps = iter([None] * 5)  # one for each tick before training and each micro-batch
    stopped = bench.run(requested_action=lambda: next(steps, action), strategy=strategy)
    assert stopped == Outcome(state, 1)
    stopped_at = bench.recorder.of(EventType.CHECKPOINT)[-1]["step"]
    assert 0 < stopped_at < 6
    monkeypatch.setattr(probe, "_gflops", lambda device, dtype, *_: 9.0 if dtype is torch.bfloat16 else 1.0)
    outcome = bench.run(attempt=2, strategy=strategy)
    assert outcome.attempt == 2
    assert outcome.result["effective"]["compute_type"] == "float32", "as it began, whatever a probe would say now"
    assert f"going on after step {stopped_at} of 6" in str(bench.recorder.of(EventType.LOG))
    hashes = {
        hashlib.sha256((bench.folder / task / "result" / FILES[strategy]).read_bytes()).digest()
        for task in ("whole", "task")
    }
    assert len(hashes) == 1


def test_a_run_paused_while_it_is_judged_is_judged_when_it_goes_on(bench: Bench) -> None:
    paused = bench.run(requested_action=asking("pause", during=Phase.EVALUATING_AFTER, recorder=bench.recorder))
    assert paused.status is TaskState.PAUSED
    before = len(bench.recorder.of(EventType.STEP))
    assert bench.run(attempt=2).status is TaskState.SUCCEEDED
    assert len(bench.recorder.of(EventType.STEP)) == before, "no step is taken twice"


def test_a_disk_that_fills_up_during_a_checkpoint_ends_the_run_with_the_older_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(task="whole", epochs=3, max_steps=None)
    save_file, saved = checkpoint.save_file, []

    def until_full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        saved.append(path)
        if len(saved) > 3:  # two files a checkpoint: in the middle of the second
            path.write_bytes(b"torn")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", until_full)
    with pytest.raises(StorageFull, match="free some space"):
        bench.run(epochs=3, max_steps=None)
    kept = [path.name for path in (bench.folder / "task" / "checkpoints").iterdir()]
    assert kept == [saved[0].parent.name.removesuffix(".tmp")]
    monkeypatch.setattr(checkpoint, "save_file", save_file)
    assert bench.run(attempt=2, epochs=3, max_steps=None).status is TaskState.SUCCEEDED
    weights = [(bench.folder / task / "result" / FILES["lora"]).read_bytes() for task in ("whole", "task")]
    assert weights[0] == weights[1]


def test_finish_judges_and_keeps_what_was_learned_so_far(bench: Bench) -> None:
    outcome = bench.run(
        max_steps=500, requested_action=asking("finish", during=Phase.TRAINING, recorder=bench.recorder)
    )
    assert outcome.status is TaskState.SUCCEEDED
    assert outcome.result["stopped_early"] is True
    assert outcome.result["effective"]["steps"] < 500
    assert "stopped_early" in [event["code"] for event in bench.recorder.of(EventType.WARNING)]


def test_held_out_rows_and_samples_are_seen_while_it_trains(bench: Bench) -> None:
    bench.run(evaluation={"every_steps": 2}, sample_prompts=["nice number 8?"])
    during = [event for event in bench.recorder.of(EventType.EVAL) if event["when"] == "during"]
    assert [event["step"] for event in during] == [2, 4, 6]
    assert during[-1]["loss"] < during[0]["loss"]
    samples = bench.recorder.of(EventType.SAMPLE)
    assert [event["step"] for event in samples] == [2, 4, 6]
    assert samples[0]["samples"][0]["prompt"] == "nice number 8?"


def test_samples_are_of_held_out_rows_if_none_were_asked_for(bench: Bench) -> None:
    bench.run(evaluation={"every_steps": 3, "sample_tokens": 2})
    sample = bench.recorder.of(EventType.SAMPLE)[0]["samples"]
    assert [(each["prompt"], each["reference"]) for each in sample] == [
        ("nice number 3?", "odd"),
        ("nice number 15?", "odd"),
    ]


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_looking_leaves_the_weights_as_they_would_be(bench: Bench, strategy: str) -> None:
    fields: dict[str, Any] = {"strategy": strategy}
    if strategy == "lora":
        fields["adapter"] = {"rank": 2, "dropout": 0.2}
    bench.run(task="unseen", **fields)
    bench.run(task="seen", evaluation={"every_steps": 1}, sample_prompts=["number?"], **fields)
    name = "adapter_model" if strategy == "lora" else "model"
    weights = [load_file(bench.folder / task / "result" / f"{name}.safetensors") for task in ("unseen", "seen")]
    assert all(torch.equal(each, weights[1][name]) for name, each in weights[0].items())


WORSENING: dict[str, Any] = {
    "max_steps": 60,
    "learning_rate": 0.2,  # so high that the held-out loss soon rises
    "evaluation": {"every_steps": 1},
    "early_stopping": {"patience": 3},
    "schedule": {"kind": "constant", "warmup": 0},
}


def test_early_stopping_ends_a_run_that_gets_worse_and_keeps_its_best_weights(bench: Bench) -> None:
    outcome = bench.run(**WORSENING)
    losses = {event["step"]: event["loss"] for event in bench.recorder.of(EventType.EVAL) if event["when"] == "during"}
    best = min(losses, key=lambda step: losses[step])
    effective = outcome.result["effective"]
    assert effective["stop"] == "early_stopping"
    assert effective["steps"] == best + 3 < 60
    assert effective["kept_step"] == best
    assert "best_weights_kept" in [event["code"] for event in bench.recorder.of(EventType.WARNING)]
    bench.run(task="short", **WORSENING | {"max_steps": best, "early_stopping": None})
    kept, wanted = (
        load_file(bench.folder / task / "result" / "adapter_model.safetensors") for task in ("task", "short")
    )
    assert all(torch.equal(each, wanted[name]) for name, each in kept.items())


def test_early_stopping_decides_alike_after_a_stop(bench: Bench) -> None:
    whole = bench.run(task="whole", **WORSENING)
    last = whole.result["effective"]["steps"]
    for calls in (7, 8, 13, 14):  # in the middle of a step, in the middle of an evaluation, and so later
        task = f"stopped-{calls}"
        answers = iter([None] * calls)
        stopped = bench.run(task=task, requested_action=lambda answers=answers: next(answers, "cancel"), **WORSENING)
        assert stopped.status is TaskState.CANCELLED
        assert bench.phases()[-1] == Phase.TRAINING
        again = bench.run(task=task, attempt=2, **WORSENING)
        assert again.result["effective"]["steps"] == last
        assert again.result["effective"]["kept_step"] == whole.result["effective"]["kept_step"]
        weights = [load_file(bench.folder / each / "result" / "adapter_model.safetensors") for each in ("whole", task)]
        assert all(torch.equal(each, weights[1][name]) for name, each in weights[0].items())


def test_a_run_fills_its_trackers(bench: Bench) -> None:
    bench.run(trackers=["tensorboard"], evaluation={"every_steps": 2})
    [events] = (bench.folder / "task" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content
    assert b"heldout/loss" in content
    with pytest.raises(InvalidConfig, match="TERAKOYA_MLFLOW_TRACKING_URI"):
        bench.run(trackers=["mlflow"])


def test_early_stopping_needs_held_out_rows(bench: Bench) -> None:
    examples = [Example(1, (Message("user", "one?"), Message("assistant", "1")))]
    bench.rows.write_bytes(b"".join(map(to_line, examples)))
    with pytest.raises(InvalidConfig, match="early_stopping needs held-out rows"):
        bench.run(early_stopping={})


def test_long_rows_are_refused_before_anything_is_trained(bench: Bench) -> None:
    with pytest.raises(InvalidConfig, match=r"\d+ of 24 examples have more than 30 tokens"):
        bench.run(max_length=30)
    assert Phase.TRAINING not in bench.phases()


def test_damaged_rows_are_named(bench: Bench) -> None:
    bench.rows.write_bytes(b"{")
    with pytest.raises(InvalidDataset, match="line 1"):
        bench.run()


@pytest.mark.parametrize("way", ["fused", "packed"])
@pytest.mark.parametrize(("strategy", "file"), [("lora", "adapter_model"), ("full", "model")])
def test_recomputed_activations_learn_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, strategy: str, file: str, way: str
) -> None:
    if way == "packed":
        monkeypatch.setattr("terakoya.models.label_forward.understands", lambda *_: False)
    for wish in ("off", "on"):
        outcome = bench.run(task=wish, gradient_checkpointing=wish, strategy=strategy)
        assert outcome.result["effective"]["gradient_checkpointing"] is (wish == "on")
        assert outcome.result["effective"]["forward"] == way
        check_folder(bench.folder / wish / "result")
    weights = [load_file(bench.folder / wish / "result" / f"{file}.safetensors") for wish in ("off", "on")]
    for name, each in weights[0].items():
        torch.testing.assert_close(each, weights[1][name], rtol=1e-4, atol=1e-6)


def test_long_rows_are_treated_as_asked_and_that_is_said(bench: Bench) -> None:
    rows = {}
    for policy in ("drop", "truncate", "split"):
        outcome = bench.run(task=policy, max_length=46, long_rows=policy)
        rows[policy] = outcome.result["effective"]["rows"]
    said = [event["message"] for event in bench.recorder.of(EventType.WARNING) if event["code"] == "long_rows"]
    told = [message.partition(": ")[2] for message in said]
    assert [text.split()[0] for text in told] == ["left", "cut", "split"]
    assert 0 < rows["drop"] < rows["truncate"] == rows["split"] == 18


def test_low_memory_ends_an_attempt_with_a_checkpoint_and_the_next_takes_half(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [2**40]
    monkeypatch.setattr("terakoya.training.memory_guard.host_room_bytes", lambda: room[0])
    monkeypatch.setattr("terakoya.training.engine.memory_watch.low_water_bytes", lambda: 2**30)

    def short_of_memory() -> None:
        if bench.recorder.of(EventType.STEP):
            room[0] = 2**29

    with pytest.raises(OutOfMemory, match="up to 2,048 tokens"):
        bench.run(max_steps=3000, requested_action=short_of_memory)
    assert bench.recorder.of(EventType.CHECKPOINT)
    room[0] = 2**40
    steps = bench.recorder.of(EventType.STEP)[-1]["step"]
    outcome = bench.run(max_steps=3000, attempt=2, requested_action=lambda: "finish" if room[0] else None)
    assert outcome.result["effective"]["micro_batch_tokens"] == 1024
    assert outcome.result["effective"]["steps"] >= steps
    codes = [event["code"] for event in bench.recorder.of(EventType.WARNING)]
    assert codes[:2] == ["memory_low", "smaller_micro_batch"]


def test_a_full_disk_is_named_before_anything_is_computed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terakoya.training.run.shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(StorageFull, match=r"writes about 0.\d+ GB"):
        bench.run()
    assert Phase.TRAINING not in bench.phases()
