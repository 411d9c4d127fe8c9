"""Measures what a micro-batch costs on this machine, in bytes and seconds, with a model of the same shape that is cut
down to one and two layers and has random weights: the same strategy, forward pass and compute type as a run has.
What a layer costs is the difference. Knows nothing of data.

A micro-batch costs, with L layers, L (a + b tokens + c longest^2) + d + e tokens + f labels.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from terakoya.domain.models import ModelArtifact
from terakoya.models.label_forward import LabelForward, Way
from terakoya.models.probe import ComputeChoice, choose_compute_type
from terakoya.models.quantization import quantize_nf4
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.engine.batching import lane_count, lanes_of
from terakoya.training.engine.fit import BatchShape, Costs, ModelShape, attention_share
from terakoya.training.engine.lanes import Lanes
from terakoya.training.engine.loop import make_optimizer
from terakoya.training.measurements import Measured
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.objective import Share
from terakoya.utils.gpu_utils import training_device

_REPEATS = 3
_TRIAL_SECONDS = 1.0
"""No further repeat is begun after so long."""


@dataclass(frozen=True, slots=True)
class _Row:
    input_ids: list[int]
    label_spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    """Rows alike: so many, so long, with so many labels each."""

    rows: int
    length: int
    labels: int

    @property
    def shape(self) -> BatchShape:
        return BatchShape(self.rows, self.rows * self.length, self.rows * self.labels, self.length)

    def lane(self, threads: int) -> BatchShape:
        """The part that one of the lanes computes which so many threads are cut into."""
        lanes = lane_count(threads=threads, tokens_per_step=self.rows * self.length)
        return _Trial(math.ceil(self.rows / lanes), self.length, self.labels).shape

    def made(self, vocabulary: int) -> list[_Row]:
        drawn = np.random.default_rng(self.rows)
        return [
            _Row(drawn.integers(vocabulary, size=self.length).tolist(), ((self.length - self.labels, self.length),))
            for _ in range(self.rows)
        ]


_TRIALS = (_Trial(8, 48, 8), _Trial(4, 160, 120), _Trial(1, 640, 16))
"""Three unlike each other, so that what tokens, labels and length cost can be told apart."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one trial with one number of layers."""

    saved_bytes: float
    """What autograd keeps."""
    peak_bytes: float | None
    """By how much the process grew; None where the system does not tell."""
    seconds: float


def measure(artifact: ModelArtifact, resolved: ResolvedTraining, *, threads: int, start_seconds: float) -> Measured:
    """Raises: AppException if the method does not fit the model; what the libraries raise if they cannot build it."""
    device = training_device()
    if device.type == "cpu":
        torch.set_num_threads(threads or os.cpu_count() or 1)
    libraries = psutil.Process().memory_info().rss
    config = AutoConfig.from_pretrained(artifact.root.path, local_files_only=True, trust_remote_code=False)
    shape = ModelShape.of(config, artifact.info.parameters)
    compute = choose_compute_type(device, hidden=shape.hidden, intermediate=shape.intermediate)
    bench = _Bench(config, resolved, compute, device)
    found = {layers: bench.run(layers) for layers in (1, 2)}
    return Measured(
        device=device.type,
        compute_type=compute.name,
        gflops=max(compute.gflops_float32, compute.gflops_bfloat16),
        libraries_bytes=libraries,
        start_seconds=start_seconds,
        update_seconds=bench.update_seconds,
        lane_threads=bench.lane_threads,
        bytes=_solved_bytes(shape.layers, found),
        seconds=_solved_seconds(shape, found, bench.lane_threads),
    )


class _Bench:
    def __init__(self, config: Any, resolved: ResolvedTraining, compute: ComputeChoice, device: torch.device) -> None:
        self._config = config
        self._resolved = resolved
        self._compute = compute
        self._device = device
        self.lane_threads = 1
        self.update_seconds = 0.0
        """Of one optimizer step, for each trained parameter."""

    def run(self, layers: int) -> list[_Found]:
        strategy = STRATEGIES.load(self._resolved.strategy)(self._resolved)
        low = self._compute.dtype is not torch.float32
        module = AutoModelForCausalLM.from_config(_cut(self._config, layers), dtype=torch.float32).to(self._device)
        if strategy.quantizes:
            quantize_nf4(module, compute_dtype=self._compute.dtype, device=self._device)
        if low and not strategy.trains_whole_model:
            strategy.lower(module, self._compute.dtype)
        module = strategy.prepare(module, base_id="measured").train()
        parameters = strategy.trained_parameters(module)
        accelerator = Accelerator(cpu=self._device.type == "cpu", mixed_precision="bf16" if low else "no")
        vocabulary = int(cast(Any, module).get_input_embeddings().num_embeddings)
        adapter = self._resolved.adapter
        with accelerator.autocast():
            forward = LabelForward.choose(
                module, _Trial(2, 16, 4).made(vocabulary), share_prefix=adapter is None or adapter.dropout == 0
            )
        own = (*module.parameters(), *module.buffers())
        weights = frozenset(tensor.untyped_storage().data_ptr() for tensor in own)
        threads = torch.get_num_threads() if forward.way is Way.FUSED else 1
        self.lane_threads = max(threads, 1)
        trials = []
        for trial in _TRIALS:
            lanes = lane_count(threads=self.lane_threads, tokens_per_step=trial.rows * trial.length)
            taken = Lanes(lanes, list(parameters.values()))
            trials.append(_Step(forward, trial.made(vocabulary), accelerator, weights, taken))
        found = [step.measured(self._device) for step in trials]
        self.update_seconds = _time_update(parameters, trials[0], accelerator)
        return found


@dataclass(frozen=True, slots=True)
class _Step:
    """Forward and backward of one micro-batch, as the loop does it."""

    forward: LabelForward
    rows: list[_Row]
    accelerator: Accelerator
    weights: frozenset[int]
    """Where the module's own tensors are stored: they are there anyway."""
    lanes: Lanes

    def measured(self, device: torch.device) -> _Found:
        self.take()  # sets up kernels; and the gradients, which are counted elsewhere, are there
        saved = _saved_bytes(self.loss, self.weights)
        peak = _growth(self.take, device)
        seconds: list[float] = []
        while len(seconds) < _REPEATS and sum(seconds) < _TRIAL_SECONDS:
            started = time.perf_counter()
            self.take()
            _wait(device)
            seconds.append(time.perf_counter() - started)
        return _Found(saved, peak, min(seconds))

    def loss(self) -> Tensor:
        return self._share(self.rows).loss

    def take(self) -> None:
        lengths = [len(row.input_ids) for row in self.rows]
        parts = lanes_of(range(len(self.rows)), lengths, count=self.lanes.count)
        self.lanes.backward([partial(self._share, [self.rows[place] for place in part]) for part in parts])

    def _share(self, rows: list[_Row]) -> Share:
        with self.accelerator.autocast():
            return Share(self.forward.losses(rows).sum())


def _cut(config: Any, layers: int) -> Any:
    cut = copy.deepcopy(config)
    text = getattr(cut, "text_config", None) or cut
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return cut


def _time_update(parameters: dict[str, nn.Parameter], step: _Step, accelerator: Accelerator) -> float:
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    seconds = []
    for _ in range(2):  # the first makes the moments
        step.take()
        started = time.perf_counter()
        accelerator.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return seconds[-1] / max(sum(parameter.numel() for parameter in parameters.values()), 1)


def _saved_bytes(loss: Callable[[], Tensor], weights: frozenset[int]) -> float:
    """Return the bytes that autograd keeps for the backward pass, each storage once, weights left out."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # freed storage would be used again at the same address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return float(sum(kept.values()))


def _growth(work: Callable[[], None], device: torch.device) -> float | None:
    """Return by how much memory grew at its peak during the work; None where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with contextlib.suppress(OSError, ValueError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = psutil.Process().memory_info().rss
        work()
        return float(_high_water() - before)
    return None


def _high_water() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmHWM")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _overhead(found: dict[int, list[_Found]]) -> tuple[float, float]:
    """Return what a token and a label take at the peak beside what autograd keeps: results on their way."""
    deep = found[2]
    if any(each.peak_bytes is None for each in deep):
        return 0.0, 0.0
    beside = [max(each.peak_bytes - each.saved_bytes, 0.0) for each in deep if each.peak_bytes is not None]
    _, labelled, long = (trial.shape for trial in _TRIALS)
    token = beside[2] / long.tokens
    return token, max(beside[1] - token * labelled.tokens, 0.0) / labelled.labels


def _solved_bytes(layers: int, found: dict[int, list[_Found]]) -> Costs:
    """What autograd keeps is counted, not timed, so three trials with one and two layers give it exactly."""
    one, two = (np.array([each.saved_bytes for each in found[count]]) for count in (1, 2))
    shapes = [trial.shape for trial in _TRIALS]
    layer = _positive(np.array([[1.0, shape.tokens, shape.longest**2] for shape in shapes]), two - one)
    rest = _positive(np.array([[1.0, shape.tokens, shape.labels_at_once] for shape in shapes]), 2 * one - two)
    token, label = _overhead(found)
    layer_fixed, layer_token, layer_square = map(float, layer)
    fixed, more_token, more_label = map(float, rest)
    return Costs(layers, layer_fixed, layer_token, layer_square, fixed, more_token + token, more_label + label)


def _solved_seconds(shape: ModelShape, found: dict[int, list[_Found]], threads: int) -> Costs:
    """Six noisy times for three unknowns: a layer's overhead, its tokens (attention in proportion), and labels.

    Rows alike fill their lanes evenly, but for a single one: what is solved for is a lane's part.
    """
    square = attention_share(shape)
    facts, values = [], []
    for count, row in found.items():
        for trial, each in zip(_TRIALS, row, strict=True):
            batch = trial.lane(threads)
            facts.append([count, count * (batch.tokens + square * batch.longest**2), batch.labels_at_once])
            values.append(each.seconds)
    fixed, token, label = map(float, _positive(np.array(facts), np.array(values)))
    return Costs(shape.layers, fixed, token, token * square, 0.0, 0.0, label)


def _positive(facts: Any, values: Any) -> Any:
    """Return the non-negative solution nearest to the measured values: noise must not make a token cost less
    than nothing. The errors are relative, so that small micro-batches count too.
    """
    scale = 1 / np.maximum(values, values.max() * 1e-3)
    best, least = np.zeros(facts.shape[1]), float("inf")
    for chosen in _subsets(facts.shape[1]):
        columns = list(chosen)
        solution = np.zeros(facts.shape[1])
        solution[columns] = np.linalg.lstsq(facts[:, columns] * scale[:, None], values * scale, rcond=None)[0]
        residual = float((((facts @ solution - values) * scale) ** 2).sum())
        if (solution >= 0).all() and residual < least:
            best, least = solution, residual
    return best


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    for bits in range(1, 2**count):
        yield tuple(place for place in range(count) if bits >> place & 1)
