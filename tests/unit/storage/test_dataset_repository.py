from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from terakoya.domain.datasets import DatasetInfo, DatasetKind
from terakoya.domain.tasks import TaskKind
from terakoya.exceptions import Conflict, DatasetNotFound, InvalidConfig, NotFound
from terakoya.storage.dataset_repository import SqlDatasetRepository
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.task_repository import SqlTaskRepository

REPORT = {"version": 1, "kind": "preference"}


def info(name: str) -> DatasetInfo:
    now = datetime.now(UTC)
    found = {"longest": 3}
    return DatasetInfo(
        *(new_id("data"), name, 2, 0, "prompt", "cp932", 10, "0" * 64, now, ("converted",), found),
        DatasetKind.PREFERENCE,
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_text('{"row": 1}\n')
    return path


def test_a_data_set_comes_back_as_it_was_saved(datasets: SqlDatasetRepository, rows: Path) -> None:
    saved = datasets.save(info("問い合わせ 箱"), rows, REPORT)
    assert datasets.find("問い合わせ 箱") == datasets.find(saved.id) == saved
    assert datasets.list_datasets() == [saved]
    assert saved.created_at.tzinfo is not None
    assert datasets.rows_path("問い合わせ 箱").read_text() == '{"row": 1}\n'
    assert datasets.report(saved.id) == REPORT
    assert not rows.exists()


def test_a_data_set_of_an_earlier_version_has_no_report(
    datasets: SqlDatasetRepository, rows: Path, data_dir: DataDir
) -> None:
    saved = datasets.save(info("inbox"), rows, REPORT)
    (data_dir.dataset(saved.id) / "report.json").unlink()
    with pytest.raises(NotFound, match=r"'inbox' has no report.*import it again"):
        datasets.report("inbox")


def test_a_refused_data_set_leaves_nothing_behind(
    datasets: SqlDatasetRepository, rows: Path, tmp_path: Path, data_dir: DataDir
) -> None:
    datasets.save(info("inbox"), rows, REPORT)
    second = tmp_path / "second"
    second.touch()
    with pytest.raises(Conflict, match="already a data set 'inbox'"):
        datasets.save(info("Inbox"), second, REPORT)
    with pytest.raises(InvalidConfig):
        datasets.save(info("../../x"), second, REPORT)
    assert len(list(data_dir.datasets.iterdir())) == 1


def test_a_deleted_data_set_is_gone_with_its_rows_unless_a_task_needs_it(
    datasets: SqlDatasetRepository, tasks: SqlTaskRepository, rows: Path, data_dir: DataDir
) -> None:
    saved = datasets.save(info("inbox"), rows, REPORT)
    task = tasks.add(TaskKind.TRAINING, "run", {"dataset": "inbox", "strategy": "lora"}, {"dataset_id": saved.id})
    with pytest.raises(Conflict, match=task.id):
        datasets.delete("inbox")
    tasks.finish(task, task.state.CANCELLED)
    for key in (f"{saved.content_sha256[:16]}-abc", "0123456789abcdef-abc"):  # its tokens, and another's
        (data_dir.tokens / key).mkdir(parents=True)
        (data_dir.tokens / key / "texts").write_text("private")
    datasets.delete("inbox")
    assert list(data_dir.datasets.iterdir()) == []
    assert [path.name for path in data_dir.tokens.iterdir()] == ["0123456789abcdef-abc"]
    with pytest.raises(DatasetNotFound, match="none yet"):
        datasets.delete("inbox")
