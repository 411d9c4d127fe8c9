"""Opens an adapter on the 4-bit base that it was trained on, so that it answers as it was judged. The base is its
own: other adapters, and the base itself, keep their full weights.
"""

from __future__ import annotations

import torch

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.base_loader import BaseModelLoader, LoadedModel
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.full_loader import torch_dtype
from terakoya.models.lora_loader import LoRAModelLoader
from terakoya.models.quantization import quantize_nf4


class QLoRAModelLoader(BaseModelLoader):
    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        if artifact.base is None:
            raise ModelLoadError(f"the adapter {artifact.info.name!r} has no base model; import it with one")
        # On the CPU first: a base that fits into a GPU's memory in 4 bits may not fit in full.
        base = create_model_loader(loader_type(artifact.base)).load(artifact.base, dtype=dtype, device="cpu")
        quantize_nf4(base.module, compute_dtype=torch_dtype(dtype), device=torch.device(device))
        return LoRAModelLoader().attach(base, artifact, name="default")
