from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from tests.tiny_model import tiny_artifact

from terakoya import registry
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig
from terakoya.models.base_loader import BaseModelLoader, LoadedModel, widest_dtype
from terakoya.models.factory import create_model_loader, model_loaders


class OtherLoader(BaseModelLoader):
    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
        raise NotImplementedError


def test_each_type_has_its_loader() -> None:
    assert [type(create_model_loader(name)).__name__ for name in ("full", "lora", "gguf")] == [
        "FullModelLoader",
        "LoRAModelLoader",
        "GGUFModelLoader",
    ]


def test_an_unknown_type_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidConfig, match="'onnx'; registered: embedder, external, full, gguf, lora"):
        create_model_loader("onnx")


def test_another_package_adds_a_type_without_any_change_here(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("other", f"{__name__}:OtherLoader", "terakoya.model_loaders")
    monkeypatch.setattr(EntryPoint, "load", lambda self: OtherLoader)
    monkeypatch.setattr(registry, "entry_points", lambda *, group, name=None: [point])
    assert isinstance(create_model_loader("other"), OtherLoader)
    assert "other" in model_loaders


def test_a_card_may_name_its_loader(tmp_path: Path) -> None:
    import dataclasses

    from terakoya.models.factory import loader_type

    artifact = tiny_artifact(tmp_path)
    artifact = dataclasses.replace(artifact, info=dataclasses.replace(artifact.info, card={"loader": "other"}))
    assert loader_type(artifact) == "other"


def test_what_the_web_process_imports_brings_no_torch() -> None:
    code = (
        "import sys, terakoya.models.service, terakoya.models.client, terakoya.models.factory\n"
        "import terakoya.models.wheels\n"
        "print({'torch', 'transformers', 'peft', 'safetensors'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "set()"


@pytest.mark.parametrize(
    ("parameters", "free", "dtype"),
    [(100, 1000, "float32"), (300, 1000, "bfloat16"), (500, 1000, None), (0, 0, "float32")],
)
def test_the_widest_type_that_fits_is_taken(parameters: int, free: int, dtype: str | None) -> None:
    assert widest_dtype(parameters, free) == dtype
