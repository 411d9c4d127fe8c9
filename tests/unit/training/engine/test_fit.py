from __future__ import annotations

from dataclasses import replace

from transformers import LlamaConfig

from terakoya.training.engine.fit import ModelShape, bytes_per_token, get_optimal_batch_size, optimizer_bytes

GIB = 2**30
SMOLLM2_135M = ModelShape(
    parameters=134_515_008,
    layers=30,
    hidden=576,
    intermediate=1536,
    attention_width=(9 + 2 * 3) * 64,
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
