"""Writes a Llama in a Transformers folder, or a LoRA adapter for one, as a GGUF file for llama.cpp. Other architectures
and adapters of other kinds are refused by name. Knows nothing of engines; the tokenizer's part is
``gguf_tokenizer``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from terakoya.exceptions import InvalidConfig, ModelLoadError
from terakoya.models.artifacts import read_json
from terakoya.models.export_formats import WeightType
from terakoya.models.gguf_tokenizer import GGUFTokenizer, read_gguf_tokenizer

WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)
ARCHITECTURES = frozenset({"llama"})
_TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_Q8_BLOCK = 32
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_ADAPTED = re.compile(r"base_model\.model\.(model\.layers\.\d+\..+)\.lora_([AB])\.weight")
Progress = Callable[[int, int], None]
Array = NDArray[np.float32]


def check_writable(folder: Path) -> dict[str, Any]:
    """Return the model's configuration. Raises: InvalidConfig naming what of it no GGUF is written for here."""
    config: dict[str, Any] = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise InvalidConfig(
            f"models of the architecture {kind!r} are not written as GGUF here; those of "
            f"{', '.join(sorted(ARCHITECTURES))} are"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if (rope_type := rope.get("rope_type", rope.get("type", "default"))) != "default":
        raise InvalidConfig(f"positions scaled by {rope_type!r} are not written as GGUF here; unscaled ones are")
    if config.get("hidden_act", "silu") != "silu":
        raise InvalidConfig(f"a Llama with the activation {config['hidden_act']!r} has no GGUF form; 'silu' has")
    return config


def write_model(folder: Path, target: Path, *, weights: WeightType, progress: Progress = lambda *_: None) -> None:
    """Write the model in ``folder``. Norms stay float32; a matrix whose rows Q8_0 cannot divide becomes float16.

    A tensor at a time is in memory. Raises: InvalidConfig for what cannot be written.
    """
    config = check_writable(folder)
    tokenizer = read_gguf_tokenizer(folder, vocabulary=int(config["vocab_size"]))
    with _tensors(folder) as tensors, _writer(target, "llama") as writer:
        _describe(writer, config, tokenizer, weights)
        names = [name for name in tensors if not name.endswith("rotary_emb.inv_freq")]
        kinds = {name: _kind(tensors[name].get_shape(), weights) for name in names}
        for name in names:
            shape, kind = tuple(tensors[name].get_shape()), kinds[name]
            size = int(np.prod(shape)) // gguf.GGML_QUANT_SIZES[kind][0] * gguf.GGML_QUANT_SIZES[kind][1]
            stored = gguf.quant_shape_to_byte_shape(shape, kind) if kind is gguf.GGMLQuantizationType.Q8_0 else shape
            dtype = np.dtype({"F32": "float32", "F16": "float16"}.get(kind.name, "uint8"))
            writer.add_tensor_info(_gguf_name(name), stored, dtype, size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, name in enumerate(names, start=1):
            array = _permuted(name, _read(tensors[name]), config)
            writer.write_tensor_data(gguf.quantize(array, kinds[name]))
            progress(done, len(names))


def write_adapter(adapter: Path, base: Path, target: Path) -> None:
    """Write a LoRA adapter, its scaling multiplied into B. Raises: InvalidConfig for what llama.cpp cannot add."""
    config = check_writable(base)
    settings = read_json(adapter / "adapter_config.json")
    refuse_adapter(settings)
    with _tensors(adapter) as tensors, _writer(target, "llama") as writer:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)  # 0: nothing is to be scaled any more
        for name in tensors:
            match = _ADAPTED.fullmatch(name)
            if match is None:
                raise InvalidConfig(f"the adapter changes {name!r}, which llama.cpp cannot add to a running model")
            layer, part = match.groups()
            array = _read(tensors[name])
            if part == "B":
                array = _permuted(f"{layer}.weight", array, config) * _scaling(settings, layer, array.shape[1])
            writer.add_tensor(f"{_gguf_name(f'{layer}.weight')}.lora_{part.lower()}", array.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def refuse_adapter(settings: Mapping[str, Any]) -> None:
    """Raises: InvalidConfig for what is more than two matrices beside each weight."""
    for key in ("use_dora", "modules_to_save", "layer_replication", "lora_bias", "trainable_token_indices"):
        if settings.get(key):
            raise InvalidConfig(f"an adapter with {key} = {settings[key]!r} has no form that llama.cpp can add")
    if settings.get("peft_type") != "LORA" or settings.get("bias") not in (None, "none"):
        raise InvalidConfig(
            f"an adapter of the type {settings.get('peft_type')!r} with bias {settings.get('bias')!r} has no form "
            "that llama.cpp can add"
        )


def _describe(
    writer: gguf.GGUFWriter, config: Mapping[str, Any], tokenizer: GGUFTokenizer, weights: WeightType
) -> None:
    heads = int(config["num_attention_heads"])
    head_size = int(config.get("head_dim") or config["hidden_size"] // heads)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(_TYPES[weights][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.scheme)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    for name, number in tokenizer.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


@contextmanager
def _tensors(folder: Path) -> Iterator[dict[str, Any]]:
    """Name -> slice of every safetensors file, sorted; nothing is read yet."""
    with ExitStack() as stack:
        found: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            found |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a dict
        if not found:
            raise ModelLoadError(f"the folder {folder.name!r} has no safetensors")
        yield dict(sorted(found.items()))


@contextmanager
def _writer(target: Path, architecture: str) -> Iterator[gguf.GGUFWriter]:
    """Write beside the target and rename at the end, so that a half-written file never has its name."""
    unfinished = target.with_name(f"{target.name}.part")
    writer = gguf.GGUFWriter(unfinished, architecture)
    try:
        yield writer
        writer.close()
        unfinished.replace(target)
    finally:
        writer.close()
        unfinished.unlink(missing_ok=True)


def _read(tensor: Any) -> Array:
    import torch  # for the types that numpy has not: only who writes a file waits for it

    array: Array = tensor[:].to(torch.float32).numpy()
    return array


def _kind(shape: list[int], weights: WeightType) -> gguf.GGMLQuantizationType:
    if len(shape) < 2:
        return gguf.GGMLQuantizationType.F32
    if weights == "q8_0" and shape[-1] % _Q8_BLOCK:
        return gguf.GGMLQuantizationType.F16
    return _TYPES[weights][0]


def _gguf_name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    match = _LAYER.fullmatch(name)
    if match is None or match[2] not in _IN_LAYER:
        raise InvalidConfig(f"the weight {name!r} belongs to no part of a Llama that a GGUF file has")
    return f"blk.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"


def _permuted(name: str, array: Array, config: Mapping[str, Any]) -> Array:
    """Reorder the rows of queries and keys: llama.cpp rotates neighbours where Transformers rotates halves."""
    heads = int(config["num_attention_heads"])
    if ".k_proj." in name:
        heads = int(config.get("num_key_value_heads") or heads)
    elif ".q_proj." not in name:
        return array
    rows, *rest = array.shape
    return np.ascontiguousarray(array.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(rows, *rest))


def _scaling(settings: Mapping[str, Any], layer: str, rank: int) -> float:
    """Return alpha / r as PEFT computes it for that layer, or alpha / sqrt(r) for rank-stabilised adapters."""
    alpha = _of_layer(settings.get("alpha_pattern") or {}, layer, settings["lora_alpha"])
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def _of_layer(pattern: Mapping[str, float], layer: str, default: float) -> float:
    return next((value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", layer)), default)
