"""Keeps opened models in memory under a budget of bytes, least recently used out first. Adapters share their base's
weights: one is switched on for whoever borrows it alone, several work side by side for who shares the base. Lives in
the model server; knows nothing of requests.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import AppException, ModelLoadError
from terakoya.models.base_loader import AdapterLoader, LoadedModel
from terakoya.models.budget import Budget
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.mixed_adapters import MixedAdapters
from terakoya.utils.freed_memory import return_freed_memory

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass
class _Adapter:
    loader: AdapterLoader
    size_bytes: int
    used: int
    can_mix: bool
    leases: int = 0


@dataclass
class _Base:
    """One module and the adapters on it, by content hash. Which adapter is on is the module's state, so ``lock`` is
    held by whoever works with it; ``leases`` counts those and the ones waiting."""

    loaded: LoadedModel
    size_bytes: int
    used: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    leases: int = 0
    adapters: dict[str, _Adapter] = field(default_factory=dict)
    mixed: MixedAdapters = field(default_factory=MixedAdapters)
    is_broken: bool = False
    """An adapter failed to attach half-way: not to be lent again."""

    @property
    def total_bytes(self) -> int:
        return self.size_bytes + sum(adapter.size_bytes for adapter in self.adapters.values())


class ModelCache:
    """Thread-safe. Opening happens one at a time: two at once would need memory for both."""

    def __init__(
        self, budget: int | Budget, *, dtype_of: Callable[[str], str] = lambda _: "float32", device: str = "cpu"
    ) -> None:
        """``budget``: bytes of its own, or what it shares with others. ``dtype_of``: type of model -> the type its
        weights are opened in."""
        self._budget = Budget(budget) if isinstance(budget, int) else budget
        self._dtype_of = dtype_of
        self._device = device
        self._bases: dict[str, _Base] = {}
        self._opening = threading.Lock()
        self._table = self._budget.lock
        """Guards ``_bases`` and what it holds. Taken after ``_opening``, which is taken after a base's lock."""

        self._budget.join(self)

    @property
    def used_bytes(self) -> int:
        with self._table:
            return self.held_bytes()

    @property
    def is_opening(self) -> bool:
        return self._opening.locked()

    @property
    def open_models(self) -> list[tuple[ModelArtifact, int, list[str]]]:
        """Each whole model with its bytes and the hashes of the adapters on it."""
        with self._table:
            return [(base.loaded.artifact, base.total_bytes, list(base.adapters)) for base in self._bases.values()]

    @contextmanager
    def get_cached_model(self, artifact: ModelArtifact) -> Iterator[LoadedModel]:
        """Lend the model, opening it if need be: until it is given back nobody else works with its base and nothing
        evicts it.

        Raises: ModelLoadError, UnsafeArtifact; Unavailable if it does not fit beside what is in use.
        """
        whole = _whole_of(artifact)
        while True:
            with self._lease(whole) as base, base.lock:
                if not base.is_broken:
                    yield self._switched_to(base, artifact, whole)
                    return

    @contextmanager
    def share(self, artifact: ModelArtifact) -> Iterator[SharedBase]:
        """Lend the whole model that the artifact is or belongs to, opening it if need be, to several at once: until
        all have given it back nothing evicts it. Whoever works with its module holds its lock.

        Raises as ``get_cached_model`` does.
        """
        whole = _whole_of(artifact)
        with self._lease(whole) as base:
            yield SharedBase(self, base, whole)

    @contextmanager
    def _lease(self, whole: ModelArtifact) -> Iterator[_Base]:
        base = self._leased(whole.info.content_sha256)
        if base is None:
            with self._opening:
                base = self._leased(whole.info.content_sha256) or self._opened(whole)
        try:
            yield base
        finally:
            with self._table:
                base.leases -= 1

    def _leased(self, key: str) -> _Base | None:
        """One that is open is lent without waiting for another that is being opened."""
        with self._table:
            base = self._bases.get(key)
            if base is not None:
                base.leases += 1
                base.used = self._budget.tick()
            return base

    def _opened(self, whole: ModelArtifact) -> _Base:
        kind = loader_type(whole)
        dtype = self._dtype_of(kind)
        # Files may hold a narrower type than the one they are opened in.
        item = _ITEM_BYTES.get(dtype, 4)
        opened = (whole, whole.base) if whole.base else (whole,)  # an adapter with a base of its own opens both
        self._budget.make_room(
            whole.info.name, sum(max(each.info.size_bytes, each.info.parameters * item) for each in opened)
        )
        loaded = create_model_loader(kind).load(whole, dtype=dtype, device=self._device)
        base = _Base(loaded, _size_of(loaded), used=self._budget.tick(), leases=1)
        with self._table:
            self._bases[whole.info.content_sha256] = base
        return base

    def _switched_to(self, base: _Base, artifact: ModelArtifact, whole: ModelArtifact) -> LoadedModel:
        """Turn the adapter on, or for the base itself all of them off. The caller holds ``base.lock``."""
        base.mixed.use(())
        if artifact is whole:
            self._switch_off(base)
            return base.loaded
        adapter = self._adapter(base, artifact, whole)
        adapter.loader.activate(base.loaded, name=artifact.info.content_sha256)
        return LoadedModel(base.loaded.module, base.loaded.tokenizer, artifact)

    def _switch_off(self, base: _Base) -> None:
        for adapter in base.adapters.values():
            adapter.loader.activate(base.loaded, name=None)

    def _adapter(self, base: _Base, artifact: ModelArtifact, whole: ModelArtifact) -> _Adapter:
        """Return the adapter on the base, attached if need be. The caller holds ``base.lock``."""
        key = artifact.info.content_sha256
        if key not in base.adapters:
            with self._opening:
                self._attach(base, artifact, whole)
        adapter = base.adapters[key]
        adapter.used = self._budget.tick()
        return adapter

    def _attach(self, base: _Base, artifact: ModelArtifact, whole: ModelArtifact) -> None:
        loader = create_model_loader(loader_type(artifact))
        assert isinstance(loader, AdapterLoader)  # else _whole_of had returned the artifact itself
        self._budget.make_room(artifact.info.name, artifact.info.size_bytes, at_work=base)
        key = artifact.info.content_sha256
        try:
            attached = loader.attach(base.loaded, artifact, name=key)
        except AppException:
            with self._table:
                base.is_broken = True
                self._bases.pop(whole.info.content_sha256, None)
            raise
        with self._table:
            base.loaded = LoadedModel(attached.module, attached.tokenizer, whole)
            can_mix = base.mixed.can_mix(attached.module, key)
            base.adapters[key] = _Adapter(loader, artifact.info.size_bytes, self._budget.tick(), can_mix)
            base.mixed.pack(attached.module)
        return_freed_memory()  # what was read, and the matrices that have grown

    # -- what the budget asks of a holder --

    def held_bytes(self) -> int:
        return sum(base.total_bytes for base in self._bases.values())

    def oldest(self, at_work: object | None) -> tuple[int, Callable[[], None]] | None:
        """An adapter or a base. A base's use is never older than its adapters', so those go before it. Adapters of
        the base at work may go: its lock is the caller's."""
        candidates: list[tuple[int, str, str | None]] = []
        for key, base in self._bases.items():
            if base.leases == 0:
                candidates.append((base.used, key, None))
            if base.leases == 0 or base is at_work:
                candidates.extend(
                    (adapter.used, key, name) for name, adapter in base.adapters.items() if adapter.leases == 0
                )
        if not candidates:
            return None
        used, key, name = min(candidates, key=lambda candidate: candidate[0])
        return used, functools.partial(self._drop, key, name)

    def drop(self, sha256: str) -> bool:
        """Close the model of that hash if nobody uses it; return whether it is closed now."""
        with self._table:
            base = self._bases.get(sha256)
            if base is not None and base.leases:
                return False
            if self._bases.pop(sha256, None) is not None:
                del base
                return_freed_memory()
            return True

    def _drop(self, key: str, name: str | None) -> None:
        if name is None:
            del self._bases[key]
            return_freed_memory()  # layers and what mixes their adapters refer to each other
        else:
            base = self._bases[key]
            base.loaded = base.adapters.pop(name).loader.detach(base.loaded, name=name)
            base.mixed.pack(base.loaded.module)


class SharedBase:
    """A whole model lent to several at once, and the adapters on it."""

    def __init__(self, cache: ModelCache, base: _Base, whole: ModelArtifact) -> None:
        self._cache = cache
        self._base = base
        self._whole = whole

    @property
    def key(self) -> object:
        """Equal for all to whom the same module is lent."""
        return id(self._base)

    @property
    def lock(self) -> threading.Lock:
        return self._base.lock

    @property
    def loaded(self) -> LoadedModel:
        """The module with all adapters that are on it; another one after ``take``."""
        return self._base.loaded

    @property
    def is_broken(self) -> bool:
        """An adapter failed to attach: what is under way may end, nothing more is to begin."""
        return self._base.is_broken

    # -- for who holds the lock --

    def take(self, artifact: ModelArtifact) -> str | None:
        """Put the adapter on the base and keep it there until ``give_back``; return its name, None for the base
        itself. Raises as ``get_cached_model`` does.
        """
        if artifact is self._whole or artifact.info.content_sha256 == self._whole.info.content_sha256:
            return None
        adapter = self._cache._adapter(self._base, artifact, self._whole)
        with self._cache._table:
            adapter.leases += 1
        return artifact.info.content_sha256

    def give_back(self, name: str | None) -> None:
        if name is not None:
            with self._cache._table:
                self._base.adapters[name].leases -= 1

    def can_mix(self, name: str | None) -> bool:
        """Tell whether the adapter can work beside others; if not, its rows are to be computed apart."""
        return name is None or self._base.adapters[name].can_mix

    def use(self, rows: Sequence[str | None]) -> None:
        """Let each row of the next passes have its adapter. Rows of one that cannot mix have all the same."""
        alone = next((name for name in rows if not self.can_mix(name)), None)
        if alone is None:
            self._cache._switch_off(self._base)
            self._base.mixed.use(rows)
        else:
            self._base.mixed.use(())
            self._base.adapters[alone].loader.activate(self._base.loaded, name=alone)


def _whole_of(artifact: ModelArtifact) -> ModelArtifact:
    """Return what holds the weights: the base of an adapter that can share it, else the artifact itself."""
    if artifact.base is None or not isinstance(create_model_loader(loader_type(artifact)), AdapterLoader):
        return artifact
    if artifact.base.base is not None:
        raise ModelLoadError(f"{artifact.info.name!r} is an adapter on the adapter {artifact.base.info.name!r}")
    return artifact.base


def _size_of(loaded: LoadedModel) -> int:
    tensors = [*loaded.module.parameters(), *loaded.module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
