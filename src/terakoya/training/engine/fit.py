"""What a micro-batch costs in memory, what a whole run needs, and how many tokens may go through a model at once: from
a model's shape, or from measured costs where there are any (``training/measurements.py``). Pure arithmetic, without
torch: the plan before a run and the run itself decide by the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from terakoya.exceptions import InvalidConfig

_BYTES = 4
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight in 4 bits, the scale of its 64 in 8 and the scale of 256 such scales in 32."""
_SAFETY = 1.5
SHARE_OF_MEMORY = 0.8
"""Of what is free, so much is planned with: other programs move, and estimates err."""
_MOST_TOKENS = {"cpu": 2048, "cuda": 65_536}
"""More at once is no faster."""
_FEWEST_TOKENS = 64
LABELS_AT_ONCE = 512
"""As in ``models/label_forward.py``: the head's output for more labels is recomputed."""
LIBRARIES_BYTES = 600_000_000
"""An interpreter with PyTorch, Transformers and PEFT, before it has loaded anything; measured: 0.44 GB."""
_COMFORTABLE_TOKENS = 512
"""Below so many at once, recomputing activations costs less than small products do."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    attention_width: int
    """Heads times head width, queries, keys and values together."""
    key_width: int
    """Of the keys alone."""
    vocabulary: int
    context: int
    """Most positions the model knows."""

    @property
    def linear_parameters(self) -> int:
        """Of the layers' products, a gated feed-forward assumed; without embedding and head."""
        queries = self.attention_width - 2 * self.key_width
        attention = self.hidden * (self.attention_width + queries)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @classmethod
    def of(cls, config: Any, parameters: int) -> ModelShape:
        """Read from a Transformers configuration, or from its ``config.json``.

        Raises: InvalidConfig if a size is not there, under none of the names in use.
        """
        text = _attribute(config, "text_config") or config
        heads = int(_size(text, "num_attention_heads", "n_head", "num_heads"))
        hidden = int(_size(text, "hidden_size", "n_embd", "d_model"))
        head_width = int(_attribute(text, "head_dim") or hidden // heads)
        key_heads = int(_attribute(text, "num_key_value_heads") or heads)
        return cls(
            parameters=parameters,
            layers=int(_size(text, "num_hidden_layers", "n_layer", "num_layers")),
            hidden=hidden,
            intermediate=int(_attribute(text, "intermediate_size") or _attribute(text, "n_inner") or 4 * hidden),
            attention_width=(heads + 2 * key_heads) * head_width,
            key_width=key_heads * head_width,
            vocabulary=int(_size(text, "vocab_size")),
            context=int(_attribute(text, "max_position_embeddings") or _attribute(text, "n_positions") or 2**20),
        )


def _attribute(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


def _size(config: Any, *names: str) -> Any:
    found = next((value for name in names if (value := _attribute(config, name))), None)
    if found is None:
        raise InvalidConfig(f"the model's configuration does not say its {names[0]!r}, so nothing can be estimated")
    return found


@dataclass(frozen=True, slots=True)
class Trained:
    """What of a model is trained, as far as memory is concerned."""

    parameters: int
    is_adapter: bool
    low_precision: bool
    """Computed in bfloat16; what is trained has float32 master weights all the same."""
    is_quantized: bool = False
    """The base's linear layers, but for the head, are in 4 bits."""

    @property
    def weight_bytes_factor(self) -> int:
        """Bytes of each of the model's own weights: a frozen base follows the compute type."""
        return 2 if self.is_adapter and self.low_precision else _BYTES

    def weight_bytes(self, shape: ModelShape) -> int:
        """Of model and adapter while it is trained."""
        packed = shape.linear_parameters if self.is_quantized else 0
        own = (shape.parameters - packed) * self.weight_bytes_factor + math.ceil(packed * _NF4_BYTES)
        return own + (self.parameters * _BYTES if self.is_adapter else 0)

    def loading_bytes(self, shape: ModelShape) -> int:
        """Of the model while it is read: in float32, and beside it in the type that it is computed in."""
        lowered = self.is_adapter and self.low_precision
        return shape.parameters * _BYTES + (self.weight_bytes(shape) if lowered or self.is_quantized else 0)


@dataclass(frozen=True, slots=True)
class BatchShape:
    """What of a micro-batch costs something."""

    rows: int
    tokens: int
    """That are computed: a shared prefix once."""
    labels: int
    longest: int

    @property
    def labels_at_once(self) -> int:
        return min(self.labels, LABELS_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a micro-batch, in bytes or in seconds: what each layer takes, and what embedding and head take."""

    layers: int
    layer_fixed: float
    layer_token: float
    layer_square: float
    """Each square of the longest row: attention."""
    fixed: float
    token: float
    label: float

    def of(self, batch: BatchShape) -> float:
        square = batch.longest**2
        layer = self.layer_fixed + self.layer_token * batch.tokens + self.layer_square * square
        return self.layers * layer + self.fixed + self.token * batch.tokens + self.label * batch.labels_at_once

    def recomputed(self, kept_token: float) -> Costs:
        """In bytes, with gradient checkpointing: a layer keeps its input, and one layer at a time is recomputed."""
        return Costs(
            layers=self.layers,
            layer_fixed=0.0,
            layer_token=kept_token,
            layer_square=0.0,
            fixed=self.fixed + self.layer_fixed,
            token=self.token + self.layer_token,
            label=self.label,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        return cls(**{name: fields[name] for name in cls.__slots__})


def bytes_per_token(shape: ModelShape, *, element_bytes: int = _BYTES) -> int:
    """Return about what one token keeps in memory until its backward pass."""
    # Inputs of norms and linears (hidden), of the gated activation (intermediate), rotated and plain q, k, v.
    layer = 10 * shape.hidden + 5 * shape.intermediate + 4 * shape.attention_width
    return int(_SAFETY * element_bytes * (shape.layers * layer + 4 * shape.hidden))


def memory_costs(shape: ModelShape, trained: Trained) -> Costs:
    """Return the estimate by the model's shape alone, which errs towards too much."""
    element = 2 if trained.low_precision else _BYTES
    layer = 10 * shape.hidden + 5 * shape.intermediate + 4 * shape.attention_width
    return Costs(
        layers=shape.layers,
        layer_fixed=0.0,
        layer_token=_SAFETY * element * layer,
        layer_square=float(element),
        fixed=2.0 * trained.parameters * trained.low_precision,  # autocast's copies of what is trained
        token=_SAFETY * element * 4 * shape.hidden,
        label=3.0 * _BYTES * shape.vocabulary,
    )


def attention_share(shape: ModelShape) -> float:
    """Return how many tokens' worth of a layer's products the attention of a row costs, by its length squared."""
    width = shape.attention_width  # queries, keys and values; scores and weighted sums are two products of the queries
    linear = shape.hidden * width + shape.hidden**2 + 3 * shape.hidden * shape.intermediate
    return 2 * shape.hidden / linear


def kept_bytes_per_token(shape: ModelShape, trained: Trained) -> float:
    """Return what a layer keeps of a token under gradient checkpointing: its input."""
    return float(shape.hidden * (2 if trained.low_precision else _BYTES))


def optimizer_bytes(trained_parameters: int) -> int:
    """Gradient and AdamW's two moments, in float32."""
    return 3 * _BYTES * trained_parameters


def lane_bytes(trained_parameters: int, lanes: int) -> int:
    """Gradients of each lane beside those that are added up; a single one has none of its own."""
    return lanes * _BYTES * trained_parameters if lanes > 1 else 0


def get_optimal_batch_size(
    model_size: ModelShape, available_memory: int, *, device_type: str = "cpu", costs: Costs | None = None
) -> int:
    """Return the micro-batch budget in tokens for so many bytes left after weights and optimizer.

    ``costs``: measured or for another compute type; by default those of the shape in float32. The head's output for
    up to 512 labels at once is set aside first.
    """
    if costs is None:
        costs = memory_costs(model_size, Trained(0, is_adapter=False, low_precision=False))
    room = available_memory * SHARE_OF_MEMORY - costs.label * LABELS_AT_ONCE - costs.fixed
    room -= costs.layers * costs.layer_fixed
    tokens = int(room / max(costs.layers * costs.layer_token + costs.token, 1.0))
    return max(min(tokens, _MOST_TOKENS.get(device_type, _MOST_TOKENS["cpu"])), _FEWEST_TOKENS)


def least_memory(parameters: int, *, is_adapter: bool) -> int:
    """Return what a run needs before anything of it is known but its model: to load it, and where all of it is
    trained, gradients and moments.
    """
    return LIBRARIES_BYTES + _BYTES * parameters + (0 if is_adapter else optimizer_bytes(parameters))


@dataclass(frozen=True, slots=True)
class Fit:
    """How a run is made to fit."""

    budget_tokens: int
    gradient_checkpointing: bool
    is_tight: bool
    """Not even the longest row fits by the estimate; it is tried alone."""


def choose_fit(
    shape: ModelShape,
    trained: Trained,
    available_memory: int,
    *,
    longest: int,
    gradient_checkpointing: str = "auto",
    device_type: str = "cpu",
    costs: Costs | None = None,
) -> Fit:
    """Choose the micro-batch for so many bytes left after weights and optimizer, and whether to recompute activations.

    "auto" recomputes only where a micro-batch of a comfortable size, or the longest row, does not fit otherwise.
    """
    costs = costs or memory_costs(shape, trained)
    with_all = get_optimal_batch_size(shape, available_memory, device_type=device_type, costs=costs)
    recomputed = costs.recomputed(kept_bytes_per_token(shape, trained))
    with_less = get_optimal_batch_size(shape, available_memory, device_type=device_type, costs=recomputed)
    wanted = max(longest, _COMFORTABLE_TOKENS)
    recompute = gradient_checkpointing == "on" or (
        gradient_checkpointing == "auto" and with_all < wanted and with_less > with_all
    )
    budget = with_less if recompute else with_all
    return Fit(max(budget, longest), recompute, is_tight=budget < longest)


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The most that a run's process holds at any time, and what it is made of, in bytes."""

    libraries: int
    weights: int
    """The model's and an adapter's."""
    optimizer: int
    """Gradients and AdamW's moments."""
    activations: int
    """Of the largest micro-batch, the head's output and copies in the compute type included."""
    peak: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def memory_need(
    shape: ModelShape,
    trained: Trained,
    batches: Iterable[BatchShape],
    *,
    gradient_checkpointing: bool,
    costs: Costs | None = None,
    libraries_bytes: int = LIBRARIES_BYTES,
    lanes: int = 1,
) -> MemoryNeed:
    """Return what training with these micro-batches needs at its peak, or loading if that needs more.

    ``lanes``: threads that take rows of a step, each with gradients of its own until they are added up.
    """
    costs = costs or memory_costs(shape, trained)
    if gradient_checkpointing:
        costs = costs.recomputed(kept_bytes_per_token(shape, trained))
    activations = math.ceil(max((costs.of(batch) for batch in batches), default=0.0))
    weights = trained.weight_bytes(shape)
    optimizer = optimizer_bytes(trained.parameters) + lane_bytes(trained.parameters, lanes)
    training = libraries_bytes + weights + optimizer + activations
    loading = libraries_bytes + trained.loading_bytes(shape)
    return MemoryNeed(libraries_bytes, weights, optimizer, activations, max(training, loading))


def batch_shape(lengths: Sequence[int], labels: Sequence[int], *, shared: int) -> BatchShape:
    """Return the cost-bearing facts of a micro-batch whose rows have so many tokens and labels."""
    own = sum(lengths) - shared * (len(lengths) - 1)
    return BatchShape(len(lengths), own, sum(labels), max(lengths))
