"""The forms that a model is exported in, and what each must keep of the original. The one list of them: API, command
line, page, service, writer and check all read it. Without torch.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum
from typing import Literal

from terakoya.domain.names import did_you_mean
from terakoya.exceptions import InvalidConfig

WeightType = Literal["f32", "f16", "q8_0"]
"""What GGUF weights are written as here."""
_NOT_WRITTEN = frozenset({"gguf-q4_k_m", "gguf-q5_k_m", "gguf-q6_k", "gguf-q4_0", "gguf-q4_k_s"})


class ExportFormat(StrEnum):
    SAFETENSORS = "safetensors"
    GGUF_F16 = "gguf-f16"
    GGUF_Q8_0 = "gguf-q8_0"

    @property
    def weights(self) -> WeightType | None:
        """The type of a GGUF file's weights; None for what is no GGUF file."""
        return _WEIGHTS.get(self)

    @property
    def label(self) -> str:
        """As the page shows it."""
        return "safetensors" if self.weights is None else f"GGUF {self.weights.upper()}"

    @property
    def least_agreement(self) -> float:
        """The share of places at which the export must find the same token likeliest as the original."""
        return _LEAST_AGREEMENT[self]


DEFAULT_FORMAT = ExportFormat.GGUF_Q8_0
_WEIGHTS: dict[ExportFormat, WeightType] = {ExportFormat.GGUF_F16: "f16", ExportFormat.GGUF_Q8_0: "q8_0"}
_LEAST_AGREEMENT = {ExportFormat.SAFETENSORS: 0.999, ExportFormat.GGUF_F16: 0.99, ExportFormat.GGUF_Q8_0: 0.95}


def export_format(name: str) -> ExportFormat:
    """Raises: InvalidConfig naming the forms there are; for a k-quant, also how to get one."""
    with contextlib.suppress(ValueError):
        return ExportFormat(name)
    if name in _NOT_WRITTEN:
        kind = name.removeprefix("gguf-").upper()
        raise InvalidConfig(
            f"{name!r} is not available: only llama.cpp's own quantizer may write it, and no package that runs here "
            f"brings that; export 'gguf-f16' and run `llama-quantize model.gguf model-{kind}.gguf {kind}` of llama.cpp"
        )
    names = [*ExportFormat]
    raise InvalidConfig(f"unknown format {name!r}; there are {', '.join(names)}{did_you_mean(name, names)}")
