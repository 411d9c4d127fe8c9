"""How many tokens go through a model at once: from its shape and the memory that is free. Knows nothing of data.

The estimate counts what autograd keeps for the backward pass. It is checked against measured peaks in
``docs/lab-notebook.md`` and errs towards too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_BYTES = 4
_SAFETY = 1.5
_SHARE_OF_MEMORY = 0.8
_MOST_TOKENS = {"cpu": 2048, "cuda": 65_536}
"""More at once is no faster."""
_FEWEST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class ModelShape:
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    attention_width: int
    """Heads times head width, queries, keys and values together."""
    vocabulary: int
    context: int
    """Most positions the model knows."""

    @classmethod
    def of(cls, config: Any, parameters: int) -> ModelShape:
        """Read from a Transformers configuration."""
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(
            parameters=parameters,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            attention_width=(heads + 2 * key_heads) * head_width,
            vocabulary=config.vocab_size,
            context=getattr(config, "max_position_embeddings", None) or 2**20,
        )


def bytes_per_token(shape: ModelShape) -> int:
    """Return about what one token keeps in memory until its backward pass, a label's share of the head included."""
    # Inputs of norms and linears (hidden), of the gated activation (intermediate), rotated and plain q, k, v.
    layer = 10 * shape.hidden + 5 * shape.intermediate + 4 * shape.attention_width
    return int(_SAFETY * _BYTES * (shape.layers * layer + 4 * shape.hidden))


def optimizer_bytes(trained_parameters: int) -> int:
    """Gradient and AdamW's two moments, in float32."""
    return 3 * _BYTES * trained_parameters


def get_optimal_batch_size(model_size: ModelShape, available_memory: int, *, device_type: str = "cpu") -> int:
    """Return the micro-batch budget in tokens for so many bytes left after weights and optimizer.

    The head's output for up to 512 labels at once is set aside first.
    """
    head = 3 * 512 * model_size.vocabulary * _BYTES
    room = int(available_memory * _SHARE_OF_MEMORY) - head
    tokens = room // bytes_per_token(model_size)
    return max(min(tokens, _MOST_TOKENS.get(device_type, _MOST_TOKENS["cpu"])), _FEWEST_TOKENS)
