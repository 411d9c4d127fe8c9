"""Puts the frozen linear layers of a model into 4 bits. Knows nothing of adapters or training: the run and the model
server quantise the same base the same way.

Source: Dettmers et al. 2023, "QLoRA": 4-bit NormalFloat in blocks of 64, the blocks' scales quantised again;
bitsandbytes computes it, on a CPU too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from terakoya.exceptions import ModelLoadError


def quantize_nf4(module: nn.Module, *, compute_dtype: torch.dtype, device: torch.device) -> None:
    """Replace every linear layer but the LM head by its 4-bit form, one at a time, and move all to ``device``.

    The layers lose their full weights: a model that is to be changed or merged is loaded again.
    Raises: ModelLoadError where bitsandbytes is missing or cannot run here.
    """
    library = _bitsandbytes()
    head = module.get_output_embeddings()  # type: ignore[operator]
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer is not head:
                setattr(parent, name, _quantized(library, layer, compute_dtype, device))
    module.to(device)


def _quantized(library: Any, layer: nn.Linear, compute_dtype: torch.dtype, device: torch.device) -> nn.Module:
    quantized: Any = library.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=compute_dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    # On CPUs with AVX512-BF16 bitsandbytes 0.50 repacks a layer's weights at its first forward in evaluation mode, for
    # a kernel without a backward pass, and does not put them back: training after an evaluation would lose gradients.
    quantized.support_avx512bf16_for_cpu = False
    quantized.weight = library.nn.Params4bit(
        layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    if layer.bias is not None:
        quantized.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    try:
        moved: nn.Module = quantized.to(device)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelLoadError(
            f"4-bit quantisation does not run on {str(device)!r} here: {reason}; leave out adapter.quantization, "
            "or use a machine that bitsandbytes supports"
        ) from error
    return moved


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ModelLoadError(
            "4-bit base weights need bitsandbytes, which is not installed: pip install terakoya[qlora]"
        ) from error
    return bitsandbytes
