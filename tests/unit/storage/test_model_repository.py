from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from terakoya.domain.models import ModelKind
from terakoya.domain.tasks import NewModel, TaskKind, TaskState
from terakoya.exceptions import Conflict, InvalidConfig, ModelLoadError, ModelNotFound, UnsafeArtifact
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.files import DataDir
from terakoya.storage.garbage import collect_garbage
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository

Make = Callable[..., NewModel]


def test_a_model_is_found_by_id_and_by_name_in_any_case_and_width(models: SqlModelRepository, new_model: Make) -> None:
    saved = models.save_model(new_model("Inbox-4"))
    assert models.find(saved.id) == models.find("inbox-4") == models.find("ＩＮＢＯＸ-４") == saved
    assert models.list_models() == [saved]
    assert (saved.kind, saved.size_bytes) == (ModelKind.BASE, 9)


def test_saving_moves_the_files_under_their_hash(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    model = new_model()
    saved = models.save_model(model)
    assert not model.directory.exists()
    artifact = models.load_model("base")
    assert artifact.path == data_dir.models / saved.content_sha256[:32]
    assert (artifact.path / "model.safetensors").read_bytes() == b"weights"


def test_an_adapter_is_loaded_with_the_whole_chain_below_it(models: SqlModelRepository, new_model: Make) -> None:
    base = models.save_model(new_model())
    first = models.save_model(new_model("first", weights=b"1", kind="adapter", parent_id=base.id))
    second = models.save_model(new_model("second", weights=b"2", kind="adapter", parent_id=first.id))
    artifact = models.load_model("second")
    assert artifact.info == second
    assert artifact.base is not None
    assert artifact.base.info == first
    assert artifact.root.info == base


def test_a_damaged_base_is_noticed_when_its_adapter_is_loaded(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    base = models.save_model(new_model())
    models.save_model(new_model("adapter", weights=b"1", kind="adapter", parent_id=base.id))
    (data_dir.model(base.content_sha256) / "config.json").write_text("[]")
    with pytest.raises(ModelLoadError, match=r"'config\.json'"):
        models.load_model("adapter")


def test_an_unknown_name_brings_close_ones(models: SqlModelRepository, new_model: Make) -> None:
    with pytest.raises(ModelNotFound, match="there are none yet"):
        models.find("smollm")
    models.save_model(new_model("smollm2-135m-instruct-q4_1"))
    with pytest.raises(ModelNotFound, match="did you mean 'smollm2-135m-instruct-q4_1'"):
        models.find("SmolLM2-135M-instruct")


def test_a_taken_name_is_refused_and_the_files_stay_where_they_were(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    models.save_model(new_model("base"))
    other = replace(new_model("other", weights=b"other"), name="BASE")
    with pytest.raises(Conflict, match="already a model 'base'"):
        models.save_model(other)
    assert other.directory.exists()
    assert len(list(data_dir.models.iterdir())) == 1


@pytest.mark.parametrize("name", ["", " ", "a/b", "../../x", ".hidden", "a\nb", "<b>", "x" * 101, "model_" + "0" * 26])
def test_a_name_that_could_not_stand_in_an_address_is_refused(
    models: SqlModelRepository, new_model: Make, name: str
) -> None:
    with pytest.raises(InvalidConfig, match="name"):
        models.save_model(replace(new_model(), name=name))


def test_the_same_weights_under_another_readme_are_on_the_disk_once(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    weights = b"w" * (1 << 20)
    first, other = new_model("first", weights=weights), new_model("second", weights=weights)
    (other.directory / "README.md").write_text("# Another")
    models.save_model(first)
    models.save_model(other)
    paths = [models.load_model(name).path / "model.safetensors" for name in ("first", "second")]
    assert paths[0].parent != paths[1].parent
    assert paths[0].samefile(paths[1])
    models.delete("first")
    assert models.load_model("second").path == paths[1].parent


def test_damaged_weights_of_another_model_are_not_shared(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    weights = b"w" * (1 << 20)
    models.save_model(new_model("first", weights=weights))
    damaged = models.load_model("first").path / "model.safetensors"
    damaged.unlink()
    damaged.write_bytes(b"x" * (1 << 20))
    other = new_model("second", weights=weights)
    (other.directory / "README.md").write_text("# Another")
    models.save_model(other)
    assert (models.load_model("second").path / "model.safetensors").read_bytes() == weights


def test_an_embedder_that_a_collection_is_pinned_to_is_not_deleted(
    models: SqlModelRepository, new_model: Make, engine: Engine, data_dir: DataDir
) -> None:
    embedder = models.save_model(replace(new_model("embedder"), kind="embedder"))
    collections = SqlDocumentRepository(engine, data_dir)
    collection = collections.add_collection(
        "handbook", embedder_id=embedder.id, embedder_sha256=embedder.content_sha256, dimension=3
    )
    with pytest.raises(Conflict, match="the collection 'handbook' of documents was embedded with"):
        models.delete("embedder")
    collections.delete_collection(collection.id)
    models.delete("embedder")


def test_the_same_bytes_under_two_names_share_a_directory_until_both_are_gone(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    first, second = models.save_model(new_model("first")), models.save_model(new_model("second"))
    assert first.content_sha256 == second.content_sha256
    models.delete("first")
    assert models.load_model("second").path.is_dir()
    models.delete(second.id)
    assert list(data_dir.models.iterdir()) == []


def test_saving_good_bytes_again_heals_a_damaged_directory(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir
) -> None:
    first = models.save_model(new_model("first"))
    (data_dir.model(first.content_sha256) / "model.safetensors").write_bytes(b"damaged")
    models.save_model(new_model("second"))
    assert (models.load_model("first").path / "model.safetensors").read_bytes() == b"weights"


def test_a_task_registers_one_model_however_often_it_is_asked(
    models: SqlModelRepository, tasks: SqlTaskRepository, new_model: Make
) -> None:
    task = tasks.add(TaskKind.PULL, "base", {}, {})
    saved = models.save_model(new_model("base"), task_id=task.id)
    assert models.save_model(new_model("again"), task_id=task.id) == saved
    assert tasks.find(task.id).model_id == saved.id


def test_what_others_need_is_not_deleted(models: SqlModelRepository, tasks: SqlTaskRepository, new_model: Make) -> None:
    base = models.save_model(new_model())
    models.save_model(new_model("adapter", weights=b"1", kind="adapter", parent_id=base.id))
    with pytest.raises(Conflict, match="'adapter' is built on"):
        models.delete("base")
    task = tasks.add(TaskKind.TRAINING, "next", {"model": "Adapter"}, {})
    with pytest.raises(Conflict, match=task.id):
        models.delete("adapter")
    tasks.finish(task, TaskState.CANCELLED)
    models.delete("adapter")
    models.delete("base")
    assert models.list_models() == []


def test_unsafe_files_register_nothing(models: SqlModelRepository, new_model: Make, data_dir: DataDir) -> None:
    model = new_model()
    (model.directory / "pytorch_model.bin").touch()
    with pytest.raises(UnsafeArtifact, match=r"pytorch_model\.bin"):
        models.save_model(model)
    assert models.list_models() == []
    assert list(data_dir.models.iterdir()) == []


def test_at_start_only_what_a_row_names_stays(
    models: SqlModelRepository, new_model: Make, data_dir: DataDir, engine: Engine
) -> None:
    models.save_model(new_model())
    (data_dir.models / ".incoming-1").mkdir()
    (data_dir.models / ("0" * 32)).mkdir()
    (data_dir.datasets / "data_x").mkdir()
    (data_dir.uploads / "half").write_bytes(b"half an upload")
    gone = collect_garbage(engine, data_dir)
    assert sorted(gone) == ["datasets/data_x", "models/.incoming-1", f"models/{'0' * 32}", "uploads/half"]
    models.load_model("base")
    assert collect_garbage(engine, data_dir) == []
