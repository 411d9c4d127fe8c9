"""A Llama-like decoder of Transformers run by the passes of this package: its modules say what to compute with, and
keep all weights. Knows which models it understands; whether it is right for one, only comparing logits tells.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from terakoya.models.fused.attention import Heads, Tile, TiledAttention, tiles
from terakoya.models.fused.elementwise import RmsNorm, SwiGlu, rounded_up
from terakoya.models.fused.label_loss import LabelLoss
from terakoya.models.fused.linear import LinearGroup, is_plain
from terakoya.models.packing import PackedBatch

_TOKENS, _LABELS = 32, 16
"""Of these, products are computed for multiples: see ``rounded_up``."""
_LAYERS = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"})
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def understands(causal: Any, backbone: Any) -> bool:
    """Whether every module of the model is one that this package computes, and every trained weight one it trains."""
    config = causal.config
    plain = (
        bool(len(getattr(backbone, "layers", ())))
        and all(type(layer).__name__ in _LAYERS for layer in backbone.layers)
        and getattr(config, "hidden_act", None) == "silu"
        and not getattr(config, "attention_dropout", 0)
        and type(backbone.embed_tokens) is nn.Embedding
        and type(causal.get_output_embeddings()) is nn.Linear
        and causal.get_output_embeddings().bias is None
        and all(_is_plain_layer(layer) for layer in backbone.layers)
    )
    if not plain:
        return False
    decoder = FusedDecoder(causal, backbone, torch.float32, prepare=False)
    known = {id(parameter) for parameter in decoder.trained()}
    return all(id(parameter) in known for parameter in causal.parameters() if parameter.requires_grad)


def _is_plain_layer(layer: Any) -> bool:
    linears = [getattr(layer.self_attn, name) for name in _ATTENTION]
    linears += [getattr(layer.mlp, name) for name in _FEED_FORWARD]
    return (
        all(is_plain(each) for each in linears)
        and all(_alike(group) for group in (linears[:3], linears[4:6]))
        and set(dict(layer.self_attn.named_children())) == set(_ATTENTION)
        and hasattr(layer.input_layernorm, "variance_epsilon")
    )


def _alike(layers: list[Any]) -> bool:
    """Whether layers can share a product: of one kind, all biased or none, all trained or none."""
    bases = [getattr(layer, "base_layer", layer) for layer in layers]
    facts = {
        (type(layer), base.bias is None, base.weight.requires_grad, base.weight.dtype)
        for layer, base in zip(layers, bases, strict=True)
    }
    return len(facts) == 1


class FusedDecoder:
    """States and label losses of packed rows under the model's current weights; ``dtype``: of products."""

    def __init__(self, causal: Any, backbone: Any, dtype: torch.dtype, *, prepare: bool = True) -> None:
        self._backbone = backbone
        self._dtype = dtype
        self._head: nn.Linear = causal.get_output_embeddings()
        self._head_copy = _Copy(self._head.weight, dtype)
        self._layers = [_Layer(layer, backbone, dtype) for layer in backbone.layers]

    def trained(self) -> list[nn.Parameter]:
        own = [self._backbone.embed_tokens.weight, self._head.weight, self._backbone.norm.weight]
        return [*own, *(parameter for layer in self._layers for parameter in layer.trained())]

    def states(self, batch: PackedBatch) -> Tensor:
        """Return the last hidden states, [tokens, width]."""
        backbone = self._backbone
        tokens = batch.input_ids.shape[1]
        more = (0, rounded_up(tokens, _TOKENS) - tokens)  # belong to no row, are seen by none and have no gradient
        x = backbone.embed_tokens(pad(batch.input_ids, more))[0]
        exact = x.new_empty(1, dtype=torch.float32)
        cos, sin = backbone.rotary_emb(exact, position_ids=pad(batch.position_ids, more))
        half = cos.shape[-1] // 2  # both halves are the same
        cos, sin = cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
        layout = batch.layout
        plan = tiles(layout.prefix, layout.starts, layout.lengths, x.shape[0])
        for layer in self._layers:
            if layer.is_computed_again and torch.is_grad_enabled():  # nothing here draws random numbers
                x = checkpoint(layer, x, cos, sin, plan, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cos, sin, plan)
        return _norm(backbone.norm, x[:tokens], self._dtype)

    def losses(self, states: Tensor, labels: Tensor) -> Tensor:
        """states [labels, width] -> [labels], float32."""
        count = len(labels)
        more = rounded_up(count, _LABELS) - count
        states, labels = pad(states, (0, 0, 0, more)), pad(labels, (0, more))
        losses: Tensor = LabelLoss.apply(states, self._head_copy(), labels)  # type: ignore[no-untyped-call]
        return losses[:count]

    def logits(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self._head_copy())


class _Layer:
    def __init__(self, layer: Any, backbone: Any, dtype: torch.dtype) -> None:
        attention, feed_forward, config = layer.self_attn, layer.mlp, backbone.config
        self._module = layer
        self._dtype = dtype
        self._norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self._scale: float = attention.scaling
        width: int = attention.head_dim
        self._heads = Heads(config.num_attention_heads, config.num_key_value_heads, width)
        self._qkv = LinearGroup([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        self._out = LinearGroup([attention.o_proj], dtype)
        self._gate_up = LinearGroup([feed_forward.gate_proj, feed_forward.up_proj], dtype)
        self._down = LinearGroup([feed_forward.down_proj], dtype)

    def trained(self) -> list[nn.Parameter]:
        groups = (self._qkv, self._out, self._gate_up, self._down)
        return [*(norm.weight for norm in self._norms), *(each for group in groups for each in group.trained())]

    @property
    def is_computed_again(self) -> bool:
        """Whether the model was told to keep only each layer's input for the backward pass."""
        return bool(self._module.gradient_checkpointing and self._module.training)

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, plan: list[Tile]) -> Tensor:
        """x [tokens, width] -> [tokens, width]."""
        qkv = self._qkv(_norm(self._norms[0], x, self._dtype))
        attended = TiledAttention.apply(qkv, cos, sin, self._heads, plan, self._scale)  # type: ignore[no-untyped-call]
        x = x + self._out(attended)
        gate_up = self._gate_up(_norm(self._norms[1], x, self._dtype))
        return x + self._down(SwiGlu.apply(gate_up))  # type: ignore[no-untyped-call]


class _Copy:
    """A weight in the compute type: itself, or a copy that follows it."""

    def __init__(self, weight: nn.Parameter, dtype: torch.dtype) -> None:
        self._weight, self._dtype = weight, dtype

    def __call__(self) -> Tensor:
        return self._weight.to(self._dtype)


def _norm(norm: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    result: Tensor = RmsNorm.apply(x, norm.weight, norm.variance_epsilon, dtype)  # type: ignore[no-untyped-call]
    return result
