"""Runs of strategy ``ewc`` on a tiny model: two tasks of a chain, in the test's own process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny_model import tiny_artifact
from tests.unit.training.conftest import Recorder

from terakoya.data.examples import to_line
from terakoya.domain.datasets import Example, Message, Split
from terakoya.domain.events import EventType
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind
from terakoya.domain.tasks import Outcome, TaskState
from terakoya.evaluation.task_scores import TaskScores, score_task
from terakoya.exceptions import InvalidConfig
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.training.chaining import tokenizer_sha256
from terakoya.training.continual.chain import load_link, read_replay
from terakoya.training.continual.errors import ChainMismatch, DamagedChain
from terakoya.training.continual.link import erase_kept, lineage
from terakoya.training.continual.scored import row_of
from terakoya.training.defaults import resolve
from terakoya.training.link_size import link_bytes
from terakoya.training.request import TrainingRequest
from terakoya.training.retention import ChainPlace
from terakoya.training.run import TrainingRun
from terakoya.training.spec import RunSpec


@pytest.fixture(autouse=True)
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    from terakoya.models import probe

    monkeypatch.setattr(probe, "_gflops", lambda device, dtype, *_: 100.0 if dtype is torch.float32 else 1.0)


def never() -> None:
    return None


class ChainBench:
    """Builds runs of one chain in one folder; each task has rows of its own."""

    def __init__(self, folder: Path, model: Path, recorder: Recorder) -> None:
        self.folder, self.recorder = folder, recorder
        self.base = tiny_artifact(model)
        self.chain = folder / "chain_x"

    def rows(self, task: str) -> Path:
        path = self.folder / f"{task}.jsonl"
        answers = {"first": ("even", "odd"), "second": ("left", "right"), "third": ("up", "down")}[task]
        path.write_bytes(
            b"".join(
                to_line(
                    Example(
                        row,
                        (Message("user", f"{task} number {row}?"), Message("assistant", answers[row % 2])),
                        Split.HELDOUT if row % 4 == 0 else Split.TRAIN,
                    )
                )
                for row in range(1, 17)
            )
        )
        return path

    def run(
        self,
        task: str,
        after: tuple[ModelArtifact, dict[str, Any]] | None = None,
        *,
        rows: str | None = None,
        attempt: int = 1,
        folder: str | None = None,
        requested_action: Callable[[], str | None] = never,
        chain_base: ModelArtifact | None = None,
        **fields: Any,
    ) -> Outcome:
        asked = {"model": "tiny", "dataset": task, "strategy": "ewc", "max_steps": 8, "batch_size": 4}
        request = TrainingRequest.model_validate(asked | {"learning_rate": 0.01} | fields)
        path = self.rows(rows or task)
        before = after[1] if after else None
        spec = RunSpec(
            name=task,
            request=request.model_dump(mode="json", exclude_unset=True),
            resolved=resolve(request, parameters=100_000, rows=12),
            model=after[0] if after else self.base,
            dataset_id="data_x",
            dataset_name=task,
            dataset_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            rows_path=path,
            evaluation_cache=self.folder / "cache",
            threads=1,
            chain=ChainPlace(
                directory=self.chain,
                number=before["number"] + 1 if before else 1,
                name=f"{folder or task}-abc",
                base_sha256=self.base.info.content_sha256,
                parent=before and before["link"],
                parent_sha256=before and before["sha256"],
            ),
            chain_base=chain_base,
        )
        (self.folder / (folder or task)).mkdir(exist_ok=True)
        return TrainingRun(
            RunSpec.from_json(json.loads(json.dumps(spec.to_json()))),
            task_id="task_x",
            task_dir=self.folder / (folder or task),
            attempt=attempt,
            observer=self.recorder,
            requested_action=requested_action,
        ).execute()

    def model_of(self, outcome: Outcome, folder: str) -> tuple[ModelArtifact, dict[str, Any]]:
        """What the registry would make of an outcome, and its place in the chain."""
        assert outcome.status is TaskState.SUCCEEDED
        assert outcome.model is not None
        fields = {key: value for key, value in outcome.model.items() if key != "directory"}
        kind = ModelKind(fields["kind"])
        assert fields["parent_id"] == self.base.info.id or kind is ModelKind.FULL
        info = ModelInfo(
            **fields
            | {
                "id": f"model_{folder}",
                "kind": kind,
                "size_bytes": 0,
                "content_sha256": hashlib.sha256(folder.encode()).hexdigest(),
                "created_at": self.base.info.created_at,
            }
        )
        path = self.folder / folder / outcome.model["directory"]
        return ModelArtifact(info, path, self.base if kind is ModelKind.ADAPTER else None), info.card["chain"]


@pytest.fixture
def bench(tmp_path: Path, tiny_folder: Path, recorder: Recorder) -> ChainBench:
    return ChainBench(tmp_path, tiny_folder, recorder)


def weights(artifact: ModelArtifact) -> dict[str, torch.Tensor]:
    (path,) = artifact.path.glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("base", ["lora", "full"])
def test_a_second_task_goes_on_from_the_first_and_stays_near_it(bench: ChainBench, base: str) -> None:
    first = bench.model_of(bench.run("first", base=base), "first")
    assert first[1]["number"] == 1
    assert first[1]["space"] == base
    assert first[1]["kept_rows"] == 1  # 5% of 12 rows, one at least
    distances = {}
    for strength in (0.0, 1e6):
        retention = {"regulariser": {"strength": strength}, "replay": {"share": 0.2, "mix": 0.0}}
        folder = f"second{int(strength)}"
        second = bench.model_of(bench.run("second", first, folder=folder, base=base, retention=retention), folder)
        before, after = weights(first[0]), weights(second[0])
        assert before.keys() == after.keys()
        distances[strength] = sum(float((after[name] - before[name]).square().sum()) for name in before)
        loaded = create_model_loader(loader_type(second[0])).load(second[0])
        assert loaded.tokenizer.chat_template
    assert 0 < distances[1e6] < 0.5 * distances[0.0]
    assert second[1]["number"] == 2
    assert second[1]["lambda"] == 1e6
    assert second[0].info.card["chain"]["after"]["name"] == "first"
    found = lineage(bench.chain / second[1]["link"], second[1]["sha256"])
    assert [path.name for path, _ in found] == ["001-first-abc", f"002-{folder}-abc"]
    link = load_link(
        *found[1], base_sha256=bench.base.info.content_sha256, tokenizer_sha256=tokenizer_sha256(bench.base.path)
    )
    assert (link.facts.sequences, link.facts.space, link.facts.label_mode) == (12, base, "model")
    assert link.facts.trace > 0
    assert len(link.replay.examples) == 2
    request = TrainingRequest.model_validate({"model": "tiny", "dataset": "second", "strategy": "ewc", "base": base})
    trained = sum(weight.numel() for weight in after.values())
    expected = link_bytes(resolve(request, parameters=100_000, rows=12), trained, train=None, heldout=None)
    assert sum(4 * value.numel() for value in link.importance.values()) == expected


def test_earlier_rows_are_mixed_in_with_their_soft_targets(bench: ChainBench) -> None:
    retention = {"regulariser": {"strength": 0.0}, "replay": {"share": 0.25, "mix": 0.5, "top_k": 8}}
    first = bench.model_of(bench.run("first", retention=retention), "first")
    bench.recorder.events.clear()
    outcome = bench.run("second", first, retention=retention)
    steps = bench.recorder.of(EventType.STEP)
    assert any(step.get("replay_loss", 0) > 0 for step in steps)
    assert outcome.result["effective"]["rows"] == 24  # 12 of its own, as many of three kept ones
    kept = bench.model_of(outcome, "second")[1]
    assert kept["kept_rows"] == 3  # of its own 12 only


@pytest.mark.slow
def test_a_budget_is_calibrated_and_steered(bench: ChainBench) -> None:
    first = bench.model_of(bench.run("first", retention={"replay": {"share": 0.5}}), "first")
    bench.recorder.events.clear()
    retention = {"replay": {"share": 0.5, "mix": 0.0}, "budget": 0.01}
    outcome = bench.run("second", first, retention=retention, max_steps=20)
    measured = [event for event in bench.recorder.of(EventType.CANARY) if event["when"] == "during"]
    assert [event["step"] for event in measured] == [4, 8, 12, 16, 20]  # a fourth of so short a run at most
    assert all([task["task"] for task in event["tasks"]] == ["first"] for event in measured)
    assert all(task["kl"] >= 0 and task["loss"] > 0 for event in measured for task in event["tasks"])
    assert all(event["budget"] == 0.01 for event in measured)
    free = bench.run(
        "second",
        first,
        folder="free",
        max_steps=20,
        retention={"replay": {"share": 0.5, "mix": 0.0}, "regulariser": {"strength": 0.0}},
    )
    assert free.status is TaskState.SUCCEEDED
    assert json.loads((bench.folder / "second" / "calibration.json").read_bytes())["probe"]["measured_kl"] > 0
    assert bench.model_of(outcome, "second")[1]["lambda"] == measured[-1]["strength"] > 0


@pytest.mark.slow
def test_a_resumed_second_task_is_the_uninterrupted_one_bit_for_bit(bench: ChainBench) -> None:
    first = bench.model_of(bench.run("first", retention={"replay": {"share": 0.5}}), "first")
    options: dict[str, Any] = {"retention": {"replay": {"share": 0.5}, "budget": 0.02}, "epochs": 4, "max_steps": None}
    whole = bench.model_of(bench.run("second", first, folder="whole", **options), "whole")
    bench.recorder.events.clear()
    cut = bench.run(
        "second",
        first,
        folder="cut",
        requested_action=lambda: "cancel" if len(bench.recorder.of(EventType.CHECKPOINT)) == 2 else None,
        **options,
    )
    assert cut.status is TaskState.CANCELLED
    assert list((bench.folder / "cut").glob("checkpoints/step-*"))
    resumed = bench.model_of(bench.run("second", first, folder="cut", attempt=2, **options), "cut")
    for name, expected in weights(whole[0]).items():
        assert torch.equal(weights(resumed[0])[name], expected), name
    assert resumed[1]["lambda"] == whole[1]["lambda"]


def test_a_chain_refuses_a_dataset_it_has_learned(bench: ChainBench) -> None:
    first = bench.model_of(bench.run("first"), "first")
    with pytest.raises(InvalidConfig, match="has learned this dataset already"):
        bench.run("second", first, rows="first")


def test_a_chain_refuses_another_model_than_the_one_it_ended_with(bench: ChainBench) -> None:
    first = bench.model_of(bench.run("first"), "first")
    other = bench.model_of(bench.run("third"), "third")
    with pytest.raises(ChainMismatch, match="other weights"):
        bench.run("second", (other[0], first[1]))


def test_a_flipped_bit_in_the_link_before_stops_the_run_before_it_trains(bench: ChainBench) -> None:
    first = bench.model_of(bench.run("first"), "first")
    path = bench.chain / first[1]["link"] / "fisher.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    bench.recorder.events.clear()
    with pytest.raises(DamagedChain, match=r"fisher\.safetensors"):
        bench.run("second", first)
    assert not bench.recorder.of(EventType.STEP)


def test_a_budget_without_kept_rows_says_what_would_work(bench: ChainBench) -> None:
    alone = {"regulariser": {"strength": 10.0}, "replay": {"share": 0.0}}
    first = bench.model_of(bench.run("first", retention=alone), "first")
    assert first[1]["kept_rows"] == 0
    with pytest.raises(InvalidConfig, match="fixed lambda"):
        bench.run("second", first)
    bench.recorder.events.clear()
    assert bench.run("second", first, folder="fixed", retention=alone).status is TaskState.SUCCEEDED
    assert "no_old_data" in [event["code"] for event in bench.recorder.of(EventType.WARNING)]
    (seen, *_) = (event for event in bench.recorder.of(EventType.CANARY) if event["when"] == "during")
    assert (seen["kl"], seen["tasks"], seen["budget"], seen["strength"]) == (None, [], None, 10.0)


def test_a_fixed_lambda_is_watched_too_and_not_steered(bench: ChainBench) -> None:
    first = bench.model_of(bench.run("first", retention={"replay": {"share": 0.5}}), "first")
    bench.recorder.events.clear()
    bench.run("second", first, retention={"regulariser": {"strength": 3.0}, "replay": {"share": 0.5}})
    seen = [event for event in bench.recorder.of(EventType.CANARY) if event["when"] == "during"]
    assert [event["step"] for event in seen] == [4, 8]
    assert {event["strength"] for event in seen} == {3.0}
    assert {event["budget"] for event in seen} == {None}
    assert all(event["tasks"][0]["kl"] > 0 for event in seen)
    assert all(general["rise"] != 0 for event in seen for general in event["general"])


def test_where_nothing_was_kept_the_model_writes_rows_itself(bench: ChainBench) -> None:
    nothing = {"replay": {"share": 0.0, "generate": 4, "mix": 0.5}}
    first = bench.model_of(bench.run("first", retention=nothing, max_steps=60), "first")
    assert first[1]["kept_rows"] == 0
    bench.recorder.events.clear()
    outcome = bench.run("second", first, retention=nothing)
    assert outcome.result["effective"]["rows"] == 24  # 12 of its own and as many of the four
    seen = [event for event in bench.recorder.of(EventType.CANARY) if event["when"] == "during"]
    assert {task["task"] for event in seen for task in event["tasks"]} == {"generated"}
    assert all(event["budget"] == 0.05 for event in seen)
    folder = bench.folder / "second" / "generated-rows"
    written = read_replay(folder)
    assert len(written.examples) == 4
    assert all(row.targets is not None and len(row.targets) == row.labels for row in written.examples)
    kept = (folder / "replay.jsonl").stat().st_mtime_ns
    bench.run("second", first, retention=nothing, attempt=2)
    assert (folder / "replay.jsonl").stat().st_mtime_ns == kept  # a resumed run goes on with the same rows


def test_every_cell_of_the_matrix_is_what_its_own_model_scores(bench: ChainBench) -> None:
    """Row by row, each model opened from its files and scored by itself."""
    options: dict[str, Any] = {"retention": {"regulariser": {"strength": 1.0}, "replay": {"share": 0.5}}}
    first = bench.model_of(bench.run("first", **options), "first")
    second = bench.model_of(bench.run("second", first, **options), "second")
    links = [
        load_link(
            bench.chain / chain["link"],
            chain["sha256"],
            base_sha256=bench.base.info.content_sha256,
            tokenizer_sha256=tokenizer_sha256(bench.base.path),
        )
        for _, chain in (first, second)
    ]
    cells: dict[tuple[int, int], TaskScores] = {}
    for i, artifact in enumerate((bench.base, first[0], second[0])):
        loaded = create_model_loader(loader_type(artifact)).load(artifact)
        for j, link in enumerate(links, start=1):
            assert link.heldout is not None
            assert (len(link.heldout.rows), len(link.heldout.labels)) == (4, 2)
            cells[i, j] = score_task(loaded.module, loaded.tokenizer, link.heldout)
    rows = [row_of(link.metrics) for link in links]
    assert rows[0] is not None
    assert rows[1] is not None
    found = {
        (0, 1): rows[0].base,
        (1, 1): rows[0].scores["first-abc"],
        (0, 2): rows[1].base,
        (1, 2): rows[1].previous,
        (2, 1): rows[1].scores["first-abc"],
        (2, 2): rows[1].scores["second-abc"],
    }
    for cell, scores in found.items():
        assert scores is not None, cell
        assert scores.loss_sums == pytest.approx(cells[cell].loss_sums, rel=1e-4), cell
        assert (scores.exact, scores.likeliest) == (cells[cell].exact, cells[cell].likeliest), cell
    matrix = links[1].metrics["matrix"]
    loss = matrix["measures"]["loss"]
    assert loss["r"][2][0] == pytest.approx(sum(cells[2, 1].loss_sums) / sum(cells[2, 1].label_counts), rel=1e-4)
    assert loss["bwt"]["value"] == pytest.approx(loss["r"][2][0] - loss["r"][1][0])
    assert loss["fwt"]["value"] == pytest.approx(loss["r"][1][1] - loss["r"][0][1])
    assert {"exact_match", "likelihood", "loss"} == matrix["measures"].keys()
    assert [task["name"] for task in matrix["tasks"]] == ["first", "second"]
    assert [len(each["bits_per_byte"]) for each in matrix["canaries"]] == [3] * len(matrix["canaries"])
    assert matrix["costs"][1]["peak_bytes"] > 0
    report = json.loads((bench.folder / "second" / "report.json").read_bytes())
    assert report["chain"] == json.loads(json.dumps(matrix))
    assert links[1].facts.scores == tuple(matrix["measures"]["exact_match"]["r"][2])


def test_rows_that_are_not_kept_leave_a_cell_unmeasured(bench: ChainBench) -> None:
    alone = {"regulariser": {"strength": 1.0}, "replay": {"share": 0.0}}
    first = bench.model_of(bench.run("first", retention=alone), "first")
    assert not (bench.chain / first[1]["link"] / "heldout.jsonl").exists()
    bench.recorder.events.clear()
    second = bench.model_of(bench.run("second", first, retention=alone | {"heldout_rows": 3}), "second")
    assert any("not measured" in event["message"] for event in bench.recorder.of(EventType.LOG))
    assert len((bench.chain / second[1]["link"] / "heldout.jsonl").read_bytes().splitlines()) == 4
    erase_kept(bench.chain / second[1]["link"])
    third = bench.model_of(bench.run("third", second, retention=alone | {"heldout_rows": 3}), "third")
    matrix = json.loads((bench.chain / third[1]["link"] / "metrics.json").read_bytes())["matrix"]
    exact = matrix["measures"]["exact_match"]
    assert [row[:2] for row in exact["r"][3:]] == [[None, None]]
    assert (exact["acc"], exact["bwt"]) == (None, None)
    assert exact["r"][3][2] is not None
    assert [task["heldout_rows"] for task in matrix["tasks"]] == [0, 3, 3]


def test_whole_models_are_scored_against_the_one_the_chain_began_with(bench: ChainBench) -> None:
    options: dict[str, Any] = {"base": "full", "retention": {"regulariser": {"strength": 1.0}}}
    first = bench.model_of(bench.run("first", **options), "first")
    without = bench.model_of(bench.run("second", first, folder="without", **options), "without")
    with_base = bench.model_of(bench.run("second", first, chain_base=bench.base, **options), "second")
    found = []
    for _, chain in (without, with_base):
        metrics = json.loads((bench.chain / chain["link"] / "metrics.json").read_bytes())
        found.append(metrics["matrix"]["measures"]["loss"])
    assert found[0]["r"][0][1] is None
    assert found[0]["fwt"] is None
    assert found[1]["r"][0][1] > found[1]["r"][2][1]
    assert found[0]["r"][1] == found[1]["r"][1]
