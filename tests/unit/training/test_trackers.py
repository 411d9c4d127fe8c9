"""Trackers for real: TensorBoard's files read back, MLflow's store asked; and runs that do not wait for either."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.training.conftest import Recorder

from terakoya.domain.events import EventType
from terakoya.exceptions import InvalidConfig
from terakoya.training.trackers import TRACKERS, check_available
from terakoya.training.trackers.base import Ending, TrackedRun, Tracker, flat, metrics_of
from terakoya.training.trackers.tracking import TrackedObserver


class Stopped(Exception):
    pass


def a_run(folder: Path, *, attempt: int = 1, uri: str | None = None) -> TrackedRun:
    settings = {"learning_rate": 0.1, "adapter": {"rank": 4}, "name": "日本"}
    return TrackedRun("task_x", "tuned", folder, attempt, uri, settings)


def tell(observer: Any, first: int, last: int) -> None:
    for step in range(first, last + 1):
        observer.notify(EventType.STEP, step=step, total_steps=9, loss=1.0 / step, learning_rate=0.1, grad_norm=2.0)
    observer.notify(EventType.EVAL, when="during", step=last, loss=0.5, examples=3)
    observer.notify(EventType.EVAL, when="after", loss=0.4, exact_match=0.9, examples=3)
    observer.notify(EventType.CANARY, when="after", language="en", bits_per_byte=1.2, passages=30)
    observer.notify(EventType.SAMPLE, step=last, samples=[{"prompt": "hi", "text": "there", "reference": None}])


def tracked(recorder: Recorder, run: TrackedRun, names: tuple[str, ...], **options: Any) -> TrackedObserver:
    return TrackedObserver(recorder, names, run, **{"load": TRACKERS.load, "stopped": Stopped} | options)


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(event.step, round(event.value, 4)) for event in accumulator.Scalars(name)]


def test_tensorboard_reads_the_curves_and_a_resumed_run_goes_on_in_them(tmp_path: Path, recorder: Recorder) -> None:
    with tracked(recorder, a_run(tmp_path), ("tensorboard",)) as observer:
        tell(observer, 1, 4)
    with tracked(recorder, a_run(tmp_path, attempt=2), ("tensorboard",)) as observer:
        tell(observer, 3, 5)
    assert curve(tmp_path, "train/loss") == [(step, round(1 / step, 4)) for step in (1, 2, 3, 4, 5)]
    assert curve(tmp_path, "heldout/loss")[-1] == (5, 0.5)
    assert len(recorder.of(EventType.STEP)) == 7, "the run's own record has every event"
    assert not recorder.of(EventType.WARNING)


@pytest.mark.slow  # its store sets itself up for ten seconds
@pytest.mark.filterwarnings("ignore")  # MLflow's own of SQLAlchemy and others
def test_mlflow_has_figures_settings_and_how_it_ended(tmp_path: Path, recorder: Recorder) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(Stopped), tracked(recorder, a_run(tmp_path, uri=uri), ("mlflow",)) as observer:  # noqa: PT012
        tell(observer, 1, 3)
        raise Stopped
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("terakoya")
    assert experiment is not None
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "KILLED"
    assert found.data.params == {"learning_rate": "0.1", "adapter.rank": "4", "name": "日本"}
    assert found.data.metrics["heldout/exact_match_after"] == 0.9
    with tracked(recorder, a_run(tmp_path, attempt=2, uri=uri), ("mlflow",)) as observer:
        tell(observer, 4, 5)
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert [each.step for each in client.get_metric_history(found.info.run_id, "train/loss")] == [1, 2, 3, 4, 5]
    assert not recorder.of(EventType.WARNING)


class Broken(Tracker):
    def __init__(self, run: TrackedRun) -> None: ...

    def take(self, type: EventType, fields: Mapping[str, Any]) -> None:
        raise ConnectionError("no route to host")

    def close(self, ending: Ending) -> None:
        raise AssertionError("it is gone by then")


def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(tmp_path: Path, recorder: Recorder) -> None:
    with tracked(recorder, a_run(tmp_path), ("mlflow",), load=lambda name: Broken) as observer:
        tell(observer, 1, 5)
    [warning] = recorder.of(EventType.WARNING)
    assert warning["code"] == "tracker_failed"
    assert "mlflow gets no more of this run (ConnectionError: no route to host)" in warning["message"]
    assert len(recorder.of(EventType.STEP)) == 5


def test_a_run_never_waits_for_a_tracker(tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terakoya.training.trackers.tracking._LAST_SECONDS", 0.1)
    forever = threading.Event()

    class Stuck(Broken):
        def take(self, type: EventType, fields: Mapping[str, Any]) -> None:
            forever.wait()

        def close(self, ending: Ending) -> None: ...

    with tracked(recorder, a_run(tmp_path), ("tensorboard",), load=lambda name: Stuck) as observer:
        tell(observer, 1, 5)
        assert len(recorder.of(EventType.STEP)) == 5
    assert [each["code"] for each in recorder.of(EventType.WARNING)] == ["tracker_slow"]
    forever.set()


def test_without_trackers_there_is_no_thread(tmp_path: Path, recorder: Recorder) -> None:
    others = set(threading.enumerate())  # one that was let go above may still be ending
    with tracked(recorder, a_run(tmp_path), ()) as observer:
        tell(observer, 1, 1)
        assert not set(threading.enumerate()) - others


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_available(["tensorboard", "mlflow"], mlflow_uri="sqlite:///x")
    with pytest.raises(InvalidConfig, match="TERAKOYA_MLFLOW_TRACKING_URI"):
        check_available(["mlflow"], mlflow_uri=None)
    monkeypatch.setattr("terakoya.training.trackers.find_spec", lambda name: None)
    with pytest.raises(InvalidConfig, match=r"pip install 'terakoya\[tensorboard\]'"):
        check_available(["tensorboard"], mlflow_uri=None)


def test_only_figures_are_passed_on() -> None:
    assert metrics_of(EventType.LOG, {"message": "x"}) == (None, {})
    assert metrics_of(EventType.STEP, {"step": 1, "loss": None}) == (1, {})
    assert flat({"a": {"b": {"c": 1}}, "d": (1, 2)}) == {"a.b.c": 1, "d": (1, 2)}
