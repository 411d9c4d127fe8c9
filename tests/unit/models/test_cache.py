from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from tests.contract.model_loader import PROMPT
from tests.tiny_model import build_tiny_adapter, build_tiny_model, tiny_artifact

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError, Unavailable
from terakoya.models.base_loader import LoadedModel
from terakoya.models.cache import ModelCache
from terakoya.models.factory import create_model_loader, loader_type

PLENTY = 1 << 30


def logits_of(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits = loaded.module(input_ids=torch.tensor([loaded.tokenizer(PROMPT)["input_ids"]])).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def alone(artifact: ModelArtifact) -> torch.Tensor:
    return logits_of(create_model_loader(loader_type(artifact)).load(artifact))


def weights_of(loaded: LoadedModel) -> int:
    return next(p.data_ptr() for n, p in loaded.module.named_parameters() if "embed_tokens" in n)


def test_base_and_adapters_share_one_module_and_each_answers_as_alone(
    tiny_base: ModelArtifact, tiny_adapter: ModelArtifact, tmp_path: Path
) -> None:
    other = tiny_artifact(build_tiny_adapter(tmp_path / "other", tiny_base.path, seed=2), base=tiny_base)
    expected = {artifact.path: alone(artifact) for artifact in (tiny_base, tiny_adapter, other)}
    cache = ModelCache(PLENTY)
    places = set()
    for artifact in (tiny_base, tiny_adapter, tiny_base, other, tiny_adapter, tiny_base):
        with cache.get_cached_model(artifact) as loaded:
            assert torch.equal(logits_of(loaded), expected[artifact.path])
            assert loaded.artifact.info.id == artifact.info.id
            places.add(weights_of(loaded))
    assert len(places) == 1


def test_the_model_used_longest_ago_goes_first(tmp_path: Path) -> None:
    first, second, third = (tiny_artifact(build_tiny_model(tmp_path / str(seed), seed=seed)) for seed in range(3))
    cache = ModelCache(int(2.5 * first.info.size_bytes))
    kept = {}
    for artifact in (first, second, first, third):
        with cache.get_cached_model(artifact) as loaded:
            kept[artifact.path] = loaded.module
    with cache.get_cached_model(first) as loaded:
        assert loaded.module is kept[first.path]
    with cache.get_cached_model(second) as loaded:
        assert loaded.module is not kept[second.path]
    assert cache.used_bytes <= 2.5 * first.info.size_bytes


def test_an_adapter_goes_before_its_base(tiny_base: ModelArtifact, tiny_adapter: ModelArtifact, tmp_path: Path) -> None:
    other = tiny_artifact(build_tiny_adapter(tmp_path / "other", tiny_base.path, seed=2), base=tiny_base)
    cache = ModelCache(tiny_base.info.size_bytes + int(1.5 * tiny_adapter.info.size_bytes))
    with cache.get_cached_model(tiny_adapter) as loaded:
        place = weights_of(loaded)
    with cache.get_cached_model(other) as loaded:
        assert weights_of(loaded) == place
        assert torch.equal(logits_of(loaded), alone(other))
    with cache.get_cached_model(tiny_adapter) as loaded:
        assert weights_of(loaded) == place
        assert torch.equal(logits_of(loaded), alone(tiny_adapter))


def test_a_model_in_use_is_not_evicted_and_the_error_says_what_to_raise(tmp_path: Path) -> None:
    first, second = (tiny_artifact(build_tiny_model(tmp_path / str(seed), seed=seed)) for seed in range(2))
    cache = ModelCache(int(1.5 * first.info.size_bytes))
    with cache.get_cached_model(first):
        with pytest.raises(Unavailable, match="TERAKOYA_MODEL_CACHE_BYTES"), cache.get_cached_model(second):
            pass
        assert cache.used_bytes > 0
    with cache.get_cached_model(second):
        pass


def test_two_threads_never_work_with_one_base_at_once(tiny_base: ModelArtifact, tiny_adapter: ModelArtifact) -> None:
    expected = {artifact.info.id: alone(artifact) for artifact in (tiny_base, tiny_adapter)}
    cache = ModelCache(PLENTY)
    wrong: list[str] = []

    def ask(artifact: ModelArtifact) -> None:
        for _ in range(8):
            with cache.get_cached_model(artifact) as loaded:
                if not torch.equal(logits_of(loaded), expected[artifact.info.id]):
                    wrong.append(artifact.info.id)

    threads = [threading.Thread(target=ask, args=(artifact,)) for artifact in (tiny_base, tiny_adapter)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_bad_adapter_leaves_the_base_in_order(
    tiny_base: ModelArtifact, tiny_adapter: ModelArtifact, tmp_path: Path
) -> None:
    wrong_base = tiny_artifact(build_tiny_model(tmp_path / "wider", hidden=128))
    misfit = dataclasses.replace(tiny_adapter, base=wrong_base)
    cache = ModelCache(PLENTY)
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="another model"), cache.get_cached_model(misfit):
            pass
    with cache.get_cached_model(wrong_base) as loaded:
        assert torch.equal(logits_of(loaded), alone(wrong_base))


def test_an_adapter_on_an_adapter_is_refused(tiny_adapter: ModelArtifact) -> None:
    stacked = dataclasses.replace(tiny_adapter, base=tiny_adapter)
    with pytest.raises(ModelLoadError, match="adapter on the adapter"), ModelCache(PLENTY).get_cached_model(stacked):
        pass
