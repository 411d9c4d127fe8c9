"""A pull from a model hub, by the task's own process against a hub server on loopback."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub_server import COMMIT, HubServer, Repository, repository_of
from tests.tiny_model import build_tiny_adapter, build_tiny_gguf, build_tiny_model, tiny_artifact

from terakoya.models.hub import HUB_TOKEN
from terakoya.models.wire import artifact_to_json

TOKEN = "hf_very_secret"
pytestmark = pytest.mark.timeout(400)
FORGETFUL = "import sys; sys.argv[0] = 'pull'; from terakoya.processes import pull"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({}, token=TOKEN) as server:
        yield server


class HubPull:
    """One task's folder; each ``start`` is another attempt."""

    def __init__(self, root: Path, hub: HubServer, source: str, **spec: Any) -> None:
        self.folder, self.downloads = root / "task", root / "downloads"
        self.folder.mkdir(parents=True)
        asked = {"source": source, "endpoint": hub.endpoint, "folder": str(self.downloads)}
        self._spec = {
            "task_id": "t",
            "fencing_token": 1,
            "kind": "pull",
            "parent": None,
            "name": "tiny",
            "hub": asked,
        } | spec
        self._attempt = 0
        self.command = ["-m", "terakoya.processes.pull"]

    def start(self) -> subprocess.Popen[bytes]:
        self._attempt += 1
        (self.folder / "spec.json").write_text(json.dumps(self._spec | {"attempt": self._attempt}))
        (self.folder / "outcome.json").unlink(missing_ok=True)
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *self.command, str(self.folder)],
                env=os.environ | {HUB_TOKEN: TOKEN},
                stdout=log,
                stderr=log,
            )

    def run(self) -> dict[str, Any]:
        self.start().wait(300)
        outcome: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        return outcome

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def everything_written(self) -> str:
        names = ("events.jsonl", "output.log", "outcome.json", "spec.json")
        return "".join((self.folder / name).read_text() for name in names)

    def leftovers(self) -> list[str]:
        kept = [path.name for path in (self.folder / "result", self.folder / "work") if path.exists()]
        return kept + [path.name for path in (self.downloads.iterdir() if self.downloads.exists() else ())]


def test_a_model_comes_pinned_to_its_commit_and_the_token_stays_with_the_hub(
    tmp_path: Path, hub: HubServer, tiny: Path
) -> None:
    hub.repositories["org/tiny"] = repository_of(tiny, is_gated=True)
    hub.repositories["org/tiny"].files["README.md"] = b"# Tiny"
    task = HubPull(tmp_path, hub, "hf:org/tiny@main")
    outcome = task.run()
    assert outcome["status"] == "succeeded", outcome["error"]
    model = outcome["model"]
    assert (model["source"], model["license"], model["kind"]) == (f"hf:org/tiny@{COMMIT}", "apache-2.0", "base")
    assert model["card"]["revision"] == "main"
    stored = {path.name: path.read_bytes() for path in (task.folder / "result").iterdir()}
    assert stored == hub.repositories["org/tiny"].files
    progress = [event for event in task.events() if "total" in event]
    assert progress[-1]["done"] == progress[-1]["total"] == sum(map(len, stored.values()))
    assert hub.paths("store")
    assert not any(TOKEN in str(headers) for host, _, headers in hub.requests if host == "store")
    assert TOKEN not in task.everything_written()
    assert task.leftovers() == ["result"]


def test_a_pull_that_was_killed_goes_on_where_it_was(tmp_path: Path, hub: HubServer, tiny: Path) -> None:
    hub.repositories["org/tiny"] = repository_of(tiny)
    hub.large_bytes = 100_000  # the weights alone
    hub.pause_after = 150_000
    task = HubPull(tmp_path, hub, "hf:org/tiny")
    process = task.start()
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size >= 131_072 for path in task.downloads.glob("*")):  # what httpx has handed over
        assert time.monotonic() < deadline, (task.folder / "output.log").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.go_on.set()
    hub.pause_after = None
    hub.requests.clear()
    outcome = task.run()
    assert outcome["status"] == "succeeded", outcome["error"]
    (range_asked,) = [headers.get("Range") for host, _, headers in hub.requests if host == "store"]
    assert range_asked is not None
    assert int(range_asked.removeprefix("bytes=").removesuffix("-")) >= 131_072
    assert (task.folder / "result" / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert task.leftovers() == ["result"]


HOSTILE = {
    "auto_map": ({"config.json": b'{"model_type": "x", "auto_map": {"AutoModel": "run.Evil"}}'}, "auto_map"),
    "nested": ({"generation_config.json": b'{"a": [{"trust_remote_code": true}]}'}, "trust_remote_code"),
    "attention": (
        {"config.json": b'{"_attn_implementation_internal": "evil/kernels"}'},
        "_attn_implementation_internal",
    ),
    "bomb": ({"config.json": b"[" * 100_000}, "config.json"),
    "pickle": ({"model.safetensors": b"\x80\x04cos\nsystem\n" + b"x" * 2000}, "not a valid safetensors file"),
    "zip": ({"model.safetensors": b"PK\x03\x04" + b"x" * 2000}, "not a valid safetensors file"),
    "header": ({"model.safetensors": struct.pack("<Q", 10**15) + b"{}" * 1000}, "claims 1000000000000000 bytes"),
    "only pickles": ({"model.safetensors": None, "pytorch_model.bin": b"\x80\x04" * 1000}, "pickles"),
    "escape from the template": (
        {"chat_template.jinja": b"{{ cycler.__init__.__globals__.os }}{{ eos_token }}"},
        "__init__",
    ),
    "template": ({"chat_template.jinja": b"{{ 'a' * 3 }}" * 20_000}, "chat_template.jinja"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_repository_is_refused_and_leaves_nothing(
    tmp_path: Path, hub: HubServer, tiny: Path, case: str
) -> None:
    changes, said = HOSTILE[case]
    files = repository_of(tiny).files | {"run.py": b"open('/tmp/ran', 'w')"}
    for name, content in changes.items():
        files.pop(name, None)
        if content is not None:
            files[name] = content
    hub.repositories["org/tiny"] = Repository(files)
    task = HubPull(tmp_path, hub, "hf:org/tiny")
    outcome = task.run()
    assert (outcome["status"], outcome["error_code"]) == ("failed", "unsafe_artifact")
    assert said in outcome["error"]
    assert task.leftovers() == []
    if case in ("auto_map", "nested", "attention", "bomb"):
        assert not any("safetensors" in path for path in hub.paths("store")), "the weights were fetched all the same"
    assert not any("run.py" in path for _, path, _ in hub.requests)


@pytest.mark.parametrize(
    "template", ["{{ 'a' * 20000000000 }}", "{% for i in range(90000) %}" * 4 + "{% endfor %}" * 4]
)
def test_a_template_that_explodes_or_never_ends_is_not_kept(
    tmp_path: Path, hub: HubServer, tiny: Path, template: str
) -> None:
    files = repository_of(tiny).files | {"chat_template.jinja": template.encode() + b"{{ eos_token }}"}
    hub.repositories["org/tiny"] = Repository(files)
    task = HubPull(tmp_path, hub, "hf:org/tiny")
    outcome = task.run()
    assert (outcome["status"], outcome["error_code"]) == ("failed", "model_load_error")
    assert "chat template" in outcome["error"]
    assert task.leftovers() == []


def test_quantised_weights_are_refused_before_they_come(tmp_path: Path, hub: HubServer, tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    hub.repositories["org/tiny"] = Repository(repository_of(tiny).files | {"config.json": json.dumps(config).encode()})
    outcome = HubPull(tmp_path, hub, "hf:org/tiny").run()
    assert outcome["error_code"] == "model_load_error"
    assert "stored quantised ('gptq')" in outcome["error"]
    assert not any("safetensors" in path for path in hub.paths("hub"))


def test_a_model_larger_than_the_memory_is_kept_unopened_and_says_so(
    tmp_path: Path, hub: HubServer, tiny: Path
) -> None:
    hub.repositories["org/tiny"] = repository_of(tiny)
    task = HubPull(tmp_path, hub, "hf:org/tiny")
    task.command = ["-c", f"{FORGETFUL}; pull.available_bytes = lambda: 1000; pull.run_worker(pull.main)"]
    outcome = task.run()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert outcome["model"]["architecture"] == "llama"
    assert "was not opened" in outcome["model"]["card"]["provenance"]
    assert [event["code"] for event in task.events() if event["type"] == "warning"] == ["not_opened"]


@pytest.mark.slow
def test_an_adapter_is_refused_on_another_base_before_its_weights_come(
    tmp_path: Path, hub: HubServer, tiny: Path
) -> None:
    adapter = build_tiny_adapter(tmp_path / "adapter", tiny)
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": "org/tiny"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    hub.repositories["org/adapter"] = repository_of(adapter)

    def pull(name: str, base_source: str | None) -> dict[str, Any]:
        base = None
        if base_source is not None:
            base = artifact_to_json(tiny_artifact(tiny))
            base["info"]["source"] = base_source
        return HubPull(tmp_path / name, hub, "hf:org/adapter", parent=base).run()

    other = pull("other", f"hf:org/other@{COMMIT}")
    assert (other["status"], other["error_code"]) == ("failed", "invalid_config")
    assert "made for 'org/tiny'" in other["error"]
    none = pull("none", None)
    assert "name the model it belongs to as 'base'; by its own word that is 'org/tiny'" in none["error"]
    assert not any("adapter_model" in path for _, path, _ in hub.requests)
    own = pull("own", f"hf:org/tiny@{COMMIT}")
    assert own["status"] == "succeeded", own["error"]
    assert own["model"]["kind"] == "adapter"


@pytest.mark.slow
def test_one_gguf_of_several_is_taken_by_its_name(tmp_path: Path, hub: HubServer) -> None:
    gguf = build_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    hub.repositories["org/gguf"] = Repository({"a.gguf": gguf, "b.gguf": b"GGUF", "LICENSE": b"MIT"}, license="mit")
    several = HubPull(tmp_path / "several", hub, "hf:org/gguf").run()
    assert several["error_code"] == "invalid_config"
    assert "'hf:org/gguf:a.gguf'" in several["error"]
    task = HubPull(tmp_path / "one", hub, "hf:org/gguf:a.gguf")
    outcome = task.run()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert outcome["model"]["source"] == f"hf:org/gguf@{COMMIT}:a.gguf"
    assert (task.folder / "result" / "LICENSE").read_bytes() == b"MIT"
    assert not any("b.gguf" in path for _, path, _ in hub.requests)


def test_a_cancelled_pull_keeps_nothing(tmp_path: Path, hub: HubServer, tiny: Path) -> None:
    hub.repositories["org/tiny"] = repository_of(tiny)
    task = HubPull(tmp_path, hub, "hf:org/tiny")
    (task.folder / "control.json").write_text('{"action": "cancel"}')
    assert task.run()["status"] == "cancelled"
    assert task.leftovers() == []


def test_a_hub_without_the_repository_or_the_terms_says_so(tmp_path: Path, hub: HubServer, tiny: Path) -> None:
    gated = repository_of(tiny, is_gated=True)
    hub.repositories["org/tiny"] = gated
    hub.token = "another"
    refused = HubPull(tmp_path / "gated", hub, "hf:org/tiny").run()
    assert refused["error_code"] == "access_denied"
    assert "gated" in refused["error"]
    missing = HubPull(tmp_path / "missing", hub, "hf:org/none@v1").run()
    assert (missing["error_code"], "org/none" in missing["error"]) == ("not_found", True)
