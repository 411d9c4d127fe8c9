"""Against a real hub server on loopback: what is listed, fetched, gone on with, refused; and who sees the token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.hub_server import COMMIT, HubServer, Repository

from terakoya.exceptions import (
    AccessDenied,
    InvalidConfig,
    ModelLoadError,
    NotFound,
    StorageFull,
    Unavailable,
    UnsafeArtifact,
)
from terakoya.models.hub import HubAccess, HubConnection, HubFile, HubRepository
from terakoya.models.hub_download import Cancelled, HubDownload
from terakoya.models.hub_files import choose_files

Connect = Callable[[str, str | None], HubConnection]
WEIGHTS = bytes(range(256)) * 4000
TOKEN = "hf_secret"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    files = {"config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": b"x" * 5000, "run.py": b"exit()"}
    with HubServer({"org/model": Repository(files)}, token=TOKEN) as server:
        yield server


@pytest.fixture
def connected() -> Iterator[Connect]:
    """Connects to an address with a token, and closes what it opened."""
    with ExitStack() as opened:

        def connect(endpoint: str, token: str | None) -> HubConnection:
            return opened.enter_context(closing(HubConnection(HubAccess(endpoint, token))))

        yield connect


@pytest.fixture
def connection(hub: HubServer, connected: Connect) -> HubConnection:
    return connected(hub.endpoint, TOKEN)


class Fetching:
    """A download into ``root`` without pauses between tries."""

    def __init__(self, root: Path, connection: HubConnection) -> None:
        self.repository = connection.repository("org/model", "main")
        self.files = choose_files(self.repository)
        self.progress: list[tuple[int, int]] = []
        self.is_cancelled = False
        self.folder, self.target = root / "downloads", root / "target"
        self.target.mkdir(exist_ok=True)
        self.download = HubDownload(
            connection,
            self.repository,
            self.folder,
            progress=lambda done, total: self.progress.append((done, total)),
            is_cancelled=lambda: self.is_cancelled,
            retry_pauses=(0.0, 0.0),
        )

    def fetch(self) -> dict[str, bytes]:
        self.download.expect(self.files)
        for file in self.files:
            self.download.fetch(file, self.target / file.name)
        return {path.name: path.read_bytes() for path in self.target.iterdir()}


def test_the_files_of_a_model_come_and_no_others(tmp_path: Path, connection: HubConnection) -> None:
    fetching = Fetching(tmp_path, connection)
    assert fetching.repository.commit == COMMIT
    assert fetching.repository.license == "apache-2.0"
    assert fetching.fetch() == {"config.json": b"{}", "model.safetensors": WEIGHTS}
    assert fetching.progress[-1] == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)


def test_the_token_is_seen_by_the_hub_and_never_by_where_it_points_to(
    tmp_path: Path, hub: HubServer, connection: HubConnection
) -> None:
    Fetching(tmp_path, connection).fetch()
    seen = {host for host, _, headers in hub.requests if TOKEN in str(headers)}
    assert seen == {"hub"}
    assert hub.paths("store"), "nothing was fetched from the other address"
    assert TOKEN not in repr(HubAccess(hub.endpoint, TOKEN))


def test_a_line_that_drops_is_taken_up_where_it_dropped(
    tmp_path: Path, hub: HubServer, connection: HubConnection
) -> None:
    hub.cut_after = [100_000, 50_000]
    assert Fetching(tmp_path, connection).fetch()["model.safetensors"] == WEIGHTS
    ranges = [headers.get("Range") for host, _, headers in hub.requests if host == "store"]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(
    tmp_path: Path, hub: HubServer, connection: HubConnection
) -> None:
    fetching = Fetching(tmp_path, connection)
    hub.failures = 2
    assert fetching.fetch()["config.json"] == b"{}"
    hub.failures = 1000
    (fetching.target / "config.json").unlink()
    fetching.download.forget(fetching.files)
    with pytest.raises(Unavailable, match="503"):
        fetching.fetch()


def test_what_an_earlier_attempt_left_is_gone_on_with(
    tmp_path: Path, hub: HubServer, connection: HubConnection
) -> None:
    first = Fetching(tmp_path, connection)
    hub.cut_after = [300_000, 0, 0]
    with pytest.raises(Unavailable, match=r"model\.safetensors"):
        first.fetch()
    hub.requests.clear()
    (first.target / "config.json").unlink()
    second = Fetching(tmp_path, connection)
    assert second.fetch()["model.safetensors"] == WEIGHTS
    assert second.progress[0] == (300_002, len(WEIGHTS) + 2)
    assert [headers.get("Range") for host, _, headers in hub.requests if host == "store"] == ["bytes=300000-"]
    second.download.forget(second.files)
    assert list(second.folder.iterdir()) == []


def test_other_bytes_than_the_hub_names_are_refused_and_deleted(
    tmp_path: Path, hub: HubServer, connection: HubConnection
) -> None:
    for name in ("config.json", "model.safetensors"):
        hub.repositories["org/model"].hashed_as = {name: b"something else"}
        root = tmp_path / name
        root.mkdir()
        fetching = Fetching(root, connection)
        with pytest.raises(ModelLoadError, match=name):
            fetching.fetch()
        assert not (fetching.target / name).exists()
        assert fetching.files[-1].key not in {path.name for path in fetching.folder.iterdir()} or name == "config.json"


def test_a_bad_part_of_an_earlier_attempt_is_replaced(tmp_path: Path, connection: HubConnection) -> None:
    fetching = Fetching(tmp_path, connection)
    fetching.folder.mkdir()
    weights = fetching.files[-1]
    (fetching.folder / weights.key).write_bytes(b"\0" * 1000)
    assert fetching.fetch()["model.safetensors"] == WEIGHTS
    assert fetching.progress[-1] == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)


def test_a_cancelled_download_stops_at_the_next_piece(tmp_path: Path, connection: HubConnection) -> None:
    fetching = Fetching(tmp_path, connection)
    fetching.is_cancelled = True
    with pytest.raises(Cancelled):
        fetching.fetch()


def test_a_model_larger_than_the_disk_is_refused_before_a_byte(tmp_path: Path, connection: HubConnection) -> None:
    fetching = Fetching(tmp_path, connection)
    fetching.files = [HubFile("model.safetensors", 10**18, "0" * 64, "0" * 40)]
    with pytest.raises(StorageFull, match="MB are free"):
        fetching.download.expect(fetching.files)


def test_what_is_not_there_is_said_by_name(hub: HubServer, connection: HubConnection, connected: Connect) -> None:
    with pytest.raises(NotFound, match="org/modell"):
        connection.repository("org/modell", "main")
    with pytest.raises(NotFound, match=r"'v9'.*main"):
        connection.repository("org/model", "v9")
    hub.token = None  # as the hub answers those who show none
    with pytest.raises(NotFound, match="private one needs HF_TOKEN"):
        connected(hub.endpoint, None).repository("org/secret", "main")


@pytest.mark.parametrize(
    ("token", "remedy"), [(None, "set HF_TOKEN"), ("hf_other", "account of HF_TOKEN has no access")]
)
def test_a_gated_repository_says_how_to_get_in(
    tmp_path: Path, hub: HubServer, connected: Connect, token: str | None, remedy: str
) -> None:
    hub.repositories["org/model"].is_gated = True
    with pytest.raises(AccessDenied, match=remedy):
        Fetching(tmp_path, connected(hub.endpoint, token)).fetch()
    assert Fetching(tmp_path, connected(hub.endpoint, TOKEN)).fetch()["config.json"] == b"{}"


def test_a_hub_that_is_down_is_unavailable(connected: Connect) -> None:
    with pytest.raises(Unavailable, match="HF_ENDPOINT"):
        connected("http://127.0.0.1:9", None).repository("org/model", "main")


def test_what_is_no_hub_is_said(hub: HubServer, connection: HubConnection) -> None:
    hub.repositories["org/odd"] = Repository({}, revisions={"main": "not a commit"})
    with pytest.raises(ModelLoadError, match="does not answer as a model hub"):
        connection.repository("org/odd", "main")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y", "http://[::1", "https://x:port/", "http:///"])
def test_a_redirect_to_what_is_no_address_is_not_followed(
    hub: HubServer, connection: HubConnection, location: str
) -> None:
    repository = connection.repository("org/model", "main")
    hub.redirect_to = location
    with pytest.raises((ModelLoadError, Unavailable)), connection.file(repository, repository.files[1]):
        pass


def test_redirects_in_circles_end(hub: HubServer, connection: HubConnection) -> None:
    repository = connection.repository("org/model", "main")
    hub.redirect_to = hub.endpoint + "/org/model/resolve/x/model.safetensors"
    with pytest.raises(ModelLoadError, match="circles"), connection.file(repository, repository.files[1]):
        pass


def test_the_token_is_not_sent_unencrypted() -> None:
    HubAccess("https://hub.example", TOKEN).check()
    with pytest.raises(InvalidConfig, match="unencrypted"):
        HubAccess("http://hub.example", TOKEN).check()
    with pytest.raises(InvalidConfig, match="HF_HUB_OFFLINE"):
        HubAccess(is_offline=True).check()


def chosen(names: list[str], wanted: str | None = None) -> list[str]:
    files = tuple(HubFile(name, 1, None, "0" * 40) for name in names)
    return [file.name for file in choose_files(HubRepository("org/model", COMMIT, files, "mit"), wanted)]


def test_weights_come_last_and_in_one_form() -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "model.safetensors.index.json"
    others = ["pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx", "modeling_evil.py", "model.q4.gguf"]
    assert chosen([*others, *shards, index, "README.md", "config.json"]) == ["README.md", "config.json", index, *shards]
    assert chosen([*others, *shards, "README.md"], "model.q4.gguf") == ["README.md", "model.q4.gguf"]
    adapter = ["adapter_config.json", "adapter_model.safetensors"]
    assert chosen([*adapter, "adapter_model.bin", "README.md"]) == ["README.md", *adapter]
    assert chosen(["a.gguf", "config.json"]) == ["a.gguf"]
    assert chosen([*adapter, "config.json"]) == ["adapter_config.json", "config.json", "adapter_model.safetensors"]
    merged = ["config.json", "model.safetensors", "adapter_config.json"]  # left over from before the merge
    assert chosen(merged) == ["config.json", "model.safetensors"]


def test_a_repository_without_safe_weights_is_refused() -> None:
    with pytest.raises(UnsafeArtifact, match=r"pickles.*pytorch_model\.bin"):
        chosen(["config.json", "pytorch_model.bin"])
    with pytest.raises(UnsafeArtifact, match=r"adapter_model\.bin"):
        chosen(["adapter_config.json", "adapter_model.bin"])
    with pytest.raises(ModelLoadError, match="no weights"):
        chosen(["config.json", "sub/model.safetensors"])
    with pytest.raises(ModelLoadError, match="00002 of 00003"):
        chosen(["config.json", "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"])
    with pytest.raises(InvalidConfig, match=r"name one.*'hf:org/model:a\.gguf'"):
        chosen(["a.gguf", "b.gguf"])
    with pytest.raises(InvalidConfig, match=r"did you mean 'model-q8\.gguf'"):
        chosen(["model-q8.gguf"], "model-q4.gguf")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "config.json/../../x"])
def test_a_name_that_is_a_path_is_never_written(
    tmp_path: Path, hub: HubServer, connection: HubConnection, name: str
) -> None:
    hub.repositories["org/model"].files[name] = json.dumps({}).encode()
    assert set(Fetching(tmp_path, connection).fetch()) == {"config.json", "model.safetensors"}
