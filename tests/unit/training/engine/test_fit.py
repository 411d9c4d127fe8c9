from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import LlamaConfig

from terakoya.exceptions import InvalidConfig
from terakoya.training.engine.fit import (
    BatchShape,
    ModelShape,
    Trained,
    bytes_per_token,
    choose_fit,
    get_optimal_batch_size,
    memory_need,
    optimizer_bytes,
)

GIB = 2**30
SMOLLM2_135M = ModelShape(
    parameters=134_515_008,
    layers=30,
    hidden=576,
    intermediate=1536,
    attention_width=(9 + 2 * 3) * 64,
    key_width=3 * 64,
    vocabulary=49_152,
    context=8192,
)


def test_the_shape_is_read_from_the_configuration() -> None:
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
    )
    assert ModelShape.of(config, 134_515_008) == SMOLLM2_135M


def test_an_estimate_is_not_below_what_was_measured() -> None:
    # 8 rows of 190 tokens through SmolLM2-135M with LoRA took 5.8 GB of which about 1.3 GB are weights and libraries.
    assert bytes_per_token(SMOLLM2_135M) * 8 * 190 >= 4.5e9 * 0.9


def test_less_memory_means_fewer_tokens_and_never_none() -> None:
    budgets = [get_optimal_batch_size(SMOLLM2_135M, room) for room in (0, GIB, 2 * GIB, 8 * GIB, 1000 * GIB)]
    assert budgets == sorted(budgets)
    assert budgets[0] == 64
    assert budgets[-1] == 2048
    assert budgets[1] < budgets[3]


def test_a_larger_model_gets_fewer_tokens() -> None:
    larger = replace(SMOLLM2_135M, layers=60)
    assert get_optimal_batch_size(larger, 8 * GIB) < get_optimal_batch_size(SMOLLM2_135M, 8 * GIB)


def test_a_gpu_may_take_more_at_once() -> None:
    assert get_optimal_batch_size(SMOLLM2_135M, 1000 * GIB, device_type="cuda") == 65_536


def test_adamw_keeps_three_numbers_beside_each_weight() -> None:
    assert optimizer_bytes(1_000_000) == 12_000_000


@pytest.mark.parametrize("nested", [False, True])
def test_the_shape_is_read_from_a_configuration_file_of_any_family(nested: bool) -> None:
    gpt2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257}
    shape = ModelShape.of({"text_config": gpt2} if nested else gpt2, 124_000_000)
    assert (shape.hidden, shape.layers, shape.intermediate, shape.context) == (768, 12, 3072, 1024)
    assert shape.attention_width == 3 * 768
    with pytest.raises(InvalidConfig, match="num_attention_heads"):
        ModelShape.of({"hidden_size": 64}, 1)


def test_activations_are_recomputed_only_where_the_run_would_not_fit() -> None:
    trained = Trained(5_000_000, is_adapter=True, low_precision=False)
    roomy = choose_fit(SMOLLM2_135M, trained, 16 * GIB, longest=300)
    assert (roomy.gradient_checkpointing, roomy.is_tight) == (False, False)
    short = choose_fit(SMOLLM2_135M, trained, 2 * GIB, longest=900)
    assert short.gradient_checkpointing is True
    assert short.budget_tokens >= 900
    off = choose_fit(SMOLLM2_135M, trained, 2 * GIB, longest=900, gradient_checkpointing="off")
    assert (off.gradient_checkpointing, off.is_tight, off.budget_tokens) == (False, True, 900)
    assert choose_fit(SMOLLM2_135M, trained, 16 * GIB, longest=300, gradient_checkpointing="on").gradient_checkpointing


def test_a_run_needs_what_its_parts_need() -> None:
    full = Trained(SMOLLM2_135M.parameters, is_adapter=False, low_precision=False)
    batch = BatchShape(rows=4, tokens=800, labels=100, longest=200)
    need = memory_need(SMOLLM2_135M, full, [batch], gradient_checkpointing=False)
    assert need.peak == need.libraries + need.weights + need.optimizer + need.activations
    assert need.weights == 4 * SMOLLM2_135M.parameters
    assert need.optimizer == 12 * SMOLLM2_135M.parameters
    less = memory_need(SMOLLM2_135M, full, [batch], gradient_checkpointing=True)
    assert less.activations < need.activations / 3
    tiny = BatchShape(rows=1, tokens=1, labels=1, longest=1)
    adapter = Trained(1000, is_adapter=True, low_precision=True)
    loading = memory_need(SMOLLM2_135M, adapter, [tiny], gradient_checkpointing=False)
    # Opened in float32, and both are there while it is cast.
    assert loading.peak == loading.libraries + 4 * SMOLLM2_135M.parameters + loading.weights
    two = memory_need(SMOLLM2_135M, full, [batch], gradient_checkpointing=False, lanes=2)
    assert two.peak - need.peak == 2 * 4 * SMOLLM2_135M.parameters  # each thread's gradients beside their sum


def test_four_bits_are_counted_where_they_are() -> None:
    assert SMOLLM2_135M.linear_parameters == 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 576 * 1536)
    trained = Trained(1000, is_adapter=True, low_precision=True, is_quantized=True)
    rest = SMOLLM2_135M.parameters - SMOLLM2_135M.linear_parameters
    assert trained.weight_bytes(SMOLLM2_135M) == pytest.approx(2 * rest + 0.516 * 106_168_320 + 4000, rel=1e-3)
