"""A tiny Llama with a byte-level tokenizer, built in code: a real Transformers folder in well under a second,
so that unit tests train, save, load and serve real files without downloading anything.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Ids 0, 1 and 2: padding, start of turn, end of turn (the eos)."""


def build_tiny_model(
    directory: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Write a random Llama (about 0.1 M parameters) and its tokenizer to ``directory`` and return it.

    The tokenizer knows the 256 bytes and no merges, so every text encodes, Japanese included, at one token a
    byte. Same arguments, same bytes.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    build_tiny_tokenizer(directory, chat_template=chat_template)
    config = LlamaConfig(
        vocab_size=len(SPECIAL_TOKENS) + 256,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = LlamaForCausalLM(config)
    module.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    module.save_pretrained(directory)
    return directory


def build_tiny_tokenizer(directory: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(directory)


def build_tiny_adapter(directory: Path, base: Path, *, rank: int = 4, seed: int = 1) -> Path:
    """Write a PEFT LoRA adapter for ``base`` whose weights are random, so that it changes every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(
            module, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.3)
    adapted.save_pretrained(directory)
    config = directory / "adapter_config.json"
    saved = json.loads(config.read_text(encoding="utf-8"))
    saved["base_model_name_or_path"] = None
    config.write_text(json.dumps(saved, indent=2, sort_keys=True), encoding="utf-8")
    return directory


def build_tiny_gguf(path: Path, *, seed: int = 0) -> Path:
    """Write a random Llama of one layer as GGUF, its matrices quantised to Q4_1, with the byte-level vocabulary."""
    import gguf
    import numpy as np
    from tokenizers import pre_tokenizers

    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    hidden, inner, heads, key_heads = 64, 128, 4, 2
    merged = "Ġt"  # one merge: the GGUF reader of Transformers wants the list not to be empty
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), merged]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL_TOKENS) + [1] * (len(tokens) - len(SPECIAL_TOKENS)))
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    narrow = hidden * key_heads // heads
    matrices = {
        "token_embd": (len(tokens), hidden),
        "blk.0.attn_q": (hidden, hidden),
        "blk.0.attn_k": (narrow, hidden),
        "blk.0.attn_v": (narrow, hidden),
        "blk.0.attn_output": (hidden, hidden),
        "blk.0.ffn_gate": (inner, hidden),
        "blk.0.ffn_up": (inner, hidden),
        "blk.0.ffn_down": (hidden, inner),
    }
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, shape in matrices.items():
        weights = random.normal(scale=0.2, size=shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quantize(weights, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny_artifact(path: Path, *, base: ModelArtifact | None = None, name: str | None = None) -> ModelArtifact:
    """Return an artifact for a folder, as if it had been registered; its content hash is its path's."""
    sha256 = hashlib.sha256(str(path).encode()).hexdigest()
    info = ModelInfo(
        id=f"model_{sha256[:26]}",
        name=name or path.name,
        kind=ModelKind.BASE if base is None else ModelKind.ADAPTER,
        architecture="llama",
        parameters=0,
        size_bytes=sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else 0,
        content_sha256=sha256,
        source=f"folder:{path.name}",
        license="Apache-2.0",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        parent_id=None if base is None else base.info.id,
    )
    return ModelArtifact(info, path, base)
