"""Opens a PEFT adapter on its base. The base's weights are shared by every adapter on it; which one works is
switched. Knows nothing of when to switch: the cache does.
"""

from __future__ import annotations

from typing import Any

from peft import PeftConfig, PeftModel
from torch import nn

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.artifacts import check_folder, read_json
from terakoya.models.base_loader import AdapterLoader, LoadedModel
from terakoya.models.factory import create_model_loader, loader_type
from terakoya.models.full_loader import LIBRARY_ERRORS, cannot_open
from terakoya.models.safetensors_header import read_safetensors_header

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


class LoRAModelLoader(AdapterLoader):
    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        if artifact.base is None:
            raise ModelLoadError(f"the adapter {artifact.info.name!r} has no base model; import it with one")
        base = create_model_loader(loader_type(artifact.base)).load(artifact.base, dtype=dtype, device=device)
        return self.attach(base, artifact, name="default")

    def attach(self, base: LoadedModel, artifact: ModelArtifact, *, name: str) -> LoadedModel:
        check_folder(artifact.path)
        _check_configuration(artifact)
        module: Any = base.module
        plain = module.get_base_model() if isinstance(module, PeftModel) else module
        _refuse_misfit(artifact, plain)
        try:
            config = PeftConfig.from_pretrained(artifact.path)
            config.inference_mode = True
            if isinstance(module, PeftModel):
                module.add_adapter(name, config)
            else:
                module = PeftModel(module, config, adapter_name=name)
            device = str(next(plain.parameters()).device)
            loading = module.load_adapter(artifact.path, name, torch_device=device, local_files_only=True)
        except LIBRARY_ERRORS as error:
            raise cannot_open(artifact, error) from error
        if problems := [*loading.missing_keys, *loading.unexpected_keys]:
            raise ModelLoadError(f"the adapter {artifact.info.name!r} does not fit its configuration: {problems[0]!r}")
        loaded = LoadedModel(module.eval(), base.tokenizer, artifact)
        self.activate(loaded, name=name)
        return loaded

    def detach(self, loaded: LoadedModel, *, name: str) -> LoadedModel:
        module = _peft(loaded)
        if set(module.peft_config) == {name}:  # PEFT's model cannot be without an adapter
            return LoadedModel(module.unload(), loaded.tokenizer, loaded.artifact)
        module.delete_adapter(name)
        return loaded

    def activate(self, loaded: LoadedModel, *, name: str | None) -> None:
        module = _peft(loaded)
        if name is None:
            module.base_model.disable_adapter_layers()
        else:
            module.base_model.enable_adapter_layers()
            module.set_adapter(name)
        module.requires_grad_(False)


def _peft(loaded: LoadedModel) -> Any:
    assert isinstance(loaded.module, PeftModel)  # attach made it one
    return loaded.module


def _check_configuration(artifact: ModelArtifact) -> None:
    """Refuse what would change the shared base's own weights, or is no LoRA for a causal language model."""
    if not (artifact.path / WEIGHTS).is_file():
        raise ModelLoadError(f"the adapter {artifact.info.name!r} has no {WEIGHTS}")
    config = read_json(artifact.path / "adapter_config.json")
    wanted: dict[str, tuple[Any, ...]] = {
        "peft_type": ("LORA",),
        "task_type": ("CAUSAL_LM", None),
        "bias": ("none", None),
        "init_lora_weights": (True, False, "gaussian", None),
        "layer_replication": (None,),
    }
    for key, allowed in wanted.items():
        if (value := config.get(key)) not in allowed:
            raise ModelLoadError(
                f"the adapter {artifact.info.name!r} has {key} = {value!r}; "
                f"possible here: {', '.join(repr(choice) for choice in allowed if choice is not None) or 'none'}"
            )


def _refuse_misfit(artifact: ModelArtifact, base: nn.Module) -> None:
    """Compare the adapter's shapes with the base's layers before anything is changed."""
    layers = dict(base.named_modules())
    for key, entry in read_safetensors_header(artifact.path / WEIGHTS).items():
        layer_name, _, part = key.removeprefix(_PREFIX).partition(".lora_")
        if part not in ("A.weight", "B.weight"):
            continue
        layer = layers.get(layer_name)
        shape = _shape_of(getattr(layer, "base_layer", layer))
        axis = 1 if part == "A.weight" else 0
        if shape is None or len(entry.shape) != 2 or entry.shape[axis] != shape[axis]:
            found = "no such layer" if shape is None else f"{shape}"
            raise ModelLoadError(
                f"the adapter {artifact.info.name!r} does not fit its base: {key!r} has shape {entry.shape}, "
                f"the base has {found}; it was made for another model"
            )


def _shape_of(layer: nn.Module | None) -> tuple[int, ...] | None:
    """Of its matrix; one in 4 bits stores another."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    weight = getattr(layer, "weight", None)
    return None if weight is None else tuple(weight.shape)
