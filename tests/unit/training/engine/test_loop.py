from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from tests.unit.training.conftest import Recorder
from torch import Tensor
from torch.nn.functional import cross_entropy

from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType
from terakoya.exceptions import TrainingError
from terakoya.models.label_forward import LabelForward, Way
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.loop import LoopResult, Stop, TrainingLoop, make_optimizer
from terakoya.training.engine.schedule import Schedule
from terakoya.training.objectives.supervised import SupervisedObjective

Rows = list[EncodedExample]


def adapted(module: Any, *, dropout: float = 0.0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(module, config)


def never() -> None:
    return None


def a_loop(
    module: Any,
    rows: Rows,
    folder: Path,
    observer: Recorder,
    *,
    way: Way = Way.PACKED,
    share_prefix: bool = True,
    batch_size: int = 4,
    epochs: int = 2,
    rate: float = 1e-2,
    requested_action: Callable[[], str | None] = never,
    checkpoint_seconds: float = 1e9,
    lanes: int = 1,
) -> TrainingLoop:
    parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
    plan = StepPlan.of(rows=len(rows), batch_size=batch_size, seed=0, epochs=epochs, max_steps=None)
    return TrainingLoop(
        module=module,
        parameters=parameters,
        rows=rows,
        objective=SupervisedObjective({}),
        forward=LabelForward(module, way=way, share_prefix=share_prefix),
        plan=plan,
        schedule=Schedule(rate, plan.total_steps, 0.05),
        accelerator=Accelerator(cpu=True),
        optimizer=make_optimizer(parameters, weight_decay=0.0),
        max_grad_norm=1.0,
        checkpoints=Checkpoints(folder, fingerprint="test"),
        checkpoint_seconds=checkpoint_seconds,
        observer=observer,
        requested_action=requested_action,
        lanes=lanes,
    )


def weights(module: Any) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in module.named_parameters() if each.requires_grad}


def assert_same_training(found: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """A thousandth of what training changed: Adam divides by small numbers, so rounding grows."""
    for name, wanted in expected.items():
        assert (found[name] - wanted).norm() <= 1e-3 * (wanted - start[name]).norm() + 1e-7, name


@pytest.mark.parametrize(
    ("way", "share_prefix", "budget", "lanes"),
    [
        (Way.FUSED, True, 70, 1),
        (Way.FUSED, True, 200, 2),
        (Way.FUSED, False, 90, 3),
        (Way.PACKED, True, 70, 1),
        (Way.PACKED, False, 90, 1),
        (Way.PADDED, False, 1000, 1),
        (Way.WHOLE, False, 1, 1),
    ],
)
def test_the_result_does_not_depend_on_micro_batches_nor_on_the_way(
    tiny_folder: Path,
    rows: Rows,
    tmp_path: Path,
    recorder: Recorder,
    way: Way,
    share_prefix: bool,
    budget: int,
    lanes: int,
) -> None:
    from transformers import AutoModelForCausalLM

    whole, cut = (adapted(AutoModelForCausalLM.from_pretrained(tiny_folder)) for _ in range(2))
    start = weights(whole)
    a_loop(whole, rows, tmp_path / "whole", recorder).run(Position(budget_tokens=10_000))
    a_loop(cut, rows, tmp_path / "cut", recorder, way=way, share_prefix=share_prefix, lanes=lanes).run(
        Position(budget_tokens=budget)
    )
    assert_same_training(weights(cut), weights(whole), start)


def test_the_loss_is_the_mean_over_all_labels_of_the_step(
    tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder
) -> None:
    losses = []
    for row in rows:
        logits = tiny(torch.tensor([row.input_ids])).logits[0, row.labels_start - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(row.answer_ids), reduction="none"))
    expected = torch.cat(losses).mean().item()
    loop = a_loop(tiny, rows, tmp_path, recorder, batch_size=len(rows), epochs=1)
    loop.run(Position(budget_tokens=100))
    assert recorder.of(EventType.STEP)[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_training_lowers_the_loss(tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder) -> None:
    a_loop(adapted(tiny), rows, tmp_path, recorder, epochs=8, rate=0.02).run(Position(budget_tokens=1000))
    losses = [event["loss"] for event in recorder.of(EventType.STEP)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", ["lora", "lora with dropout", "full", "lora in lanes", "full in lanes"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tiny_folder: Path, rows: Rows, tmp_path: Path, recorder: Recorder, kind: str
) -> None:
    from transformers import AutoModelForCausalLM

    def fresh() -> Any:
        module = AutoModelForCausalLM.from_pretrained(tiny_folder)
        return module if "full" in kind else adapted(module, dropout=0.2 if "dropout" in kind else 0.0)

    def loop(module: Any, folder: Path, **options: Any) -> TrainingLoop:
        if "lanes" in kind:
            options |= {"way": Way.FUSED, "lanes": 2}
        return a_loop(module, rows, folder, recorder, share_prefix="dropout" not in kind, **options)

    uninterrupted = fresh()
    loop(uninterrupted, tmp_path / "one").run(Position(budget_tokens=120))

    asked = iter([None] * 7)  # micro-batches before the request: it comes in the middle of a step
    interrupted = fresh()
    first = loop(interrupted, tmp_path / "two", requested_action=lambda: next(asked, "cancel"))
    stopped = first.run(Position(budget_tokens=120))
    assert stopped.stop is Stop.CANCEL
    assert 0 < stopped.position.step < first.plan.total_steps

    resumed = fresh()
    second = loop(resumed, tmp_path / "two")
    position = second.checkpoints.restore(second.parameters, second.optimizer)
    assert position == stopped.position
    second.run(position)
    expected = weights(uninterrupted)
    assert all(torch.equal(each, expected[name]) for name, each in weights(resumed).items())


def test_finish_stops_at_a_step_and_keeps_what_was_learned(
    tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder
) -> None:
    asked = iter([None] * 3)
    result = a_loop(tiny, rows, tmp_path, recorder, requested_action=lambda: next(asked, "finish")).run(
        Position(budget_tokens=1000)
    )
    assert result == LoopResult(Stop.FINISH, result.position)
    assert result.position.step == 3
    assert (tmp_path / "step-3").is_dir()


def test_each_epochs_end_is_a_checkpoint(tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder) -> None:
    a_loop(tiny, rows, tmp_path, recorder).run(Position(budget_tokens=1000))
    assert [event["step"] for event in recorder.of(EventType.CHECKPOINT)] == [3, 6]


def test_checkpoints_come_by_the_clock_too(tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder) -> None:
    a_loop(tiny, rows, tmp_path, recorder, checkpoint_seconds=0.0).run(Position(budget_tokens=1000))
    assert [event["step"] for event in recorder.of(EventType.CHECKPOINT)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "step-6" / "state.json").read_bytes())["step"] == 6


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(
    tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder
) -> None:
    with torch.no_grad():
        tiny.model.norm.weight.fill_(math.nan)
    loop = a_loop(tiny, rows, tmp_path, recorder)
    with pytest.raises(
        TrainingError, match=r"at step 1 the loss was nan.*no checkpoint.*rows are \d.*rate below 0\.01"
    ):
        loop.run(Position(budget_tokens=1000))
    assert not recorder.of(EventType.CHECKPOINT)


def test_a_full_gpu_halves_the_micro_batch_and_says_so(
    tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = a_loop(tiny, rows, tmp_path, recorder, epochs=1)
    real = loop.forward.losses

    def losses(batch: Any) -> Tensor:
        if sum(len(row.input_ids) for row in batch) > 150:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(batch)

    monkeypatch.setattr(loop.forward, "losses", losses)
    result = loop.run(Position(budget_tokens=400))
    assert result.stop is Stop.COMPLETED
    assert result.position.budget_tokens in (100, 200)
    assert recorder.of(EventType.WARNING)[0]["code"] == "smaller_micro_batch"


def test_a_row_that_does_not_fit_alone_ends_the_run(
    tiny: Any, rows: Rows, tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = a_loop(tiny, rows, tmp_path, recorder)

    def losses(batch: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(loop.forward, "losses", losses)
    with pytest.raises(TrainingError, match="does not fit into GPU memory even alone; a max_length below"):
        loop.run(Position(budget_tokens=400))
