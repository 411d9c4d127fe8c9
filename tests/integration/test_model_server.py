"""The model server as the web process meets it: a real child process, a real socket, a tiny real model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from tests.tiny_model import build_tiny_adapter, build_tiny_model, tiny_artifact

from terakoya.api.machine import model_server_view
from terakoya.domain.datasets import Message
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig, ModelLoadError, TooBusy, Unavailable
from terakoya.models import server_process
from terakoya.models.client import ModelServerClient
from terakoya.models.server_process import ModelServerProcess

pytestmark = pytest.mark.slow
QUESTION = [Message("user", "寺子屋?")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return tiny_artifact(build_tiny_model(tmp_path_factory.mktemp("models") / "base"))


@pytest.fixture(scope="module")
def adapter(base: ModelArtifact, tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return tiny_artifact(build_tiny_adapter(tmp_path_factory.mktemp("models") / "adapter", base.path), base=base)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ModelServerClient]:
    folder = tmp_path_factory.mktemp("server")
    client = ModelServerClient(
        socket_path=folder / "s.sock", log_path=folder / "logs" / "server.log", cache_bytes=1 << 28, threads=1
    )
    yield client
    await client.stop()
    assert not client.is_running


async def answer(client: ModelServerClient, artifact: ModelArtifact, *, tokens: int = 20, seed: int = 0) -> str:
    parts = client.stream(artifact, QUESTION, max_new_tokens=tokens, temperature=1.0, seed=seed)
    return "".join([part.delta async for part in parts])


async def asked(client: ModelServerClient) -> int:
    transport = httpx.AsyncHTTPTransport(uds=str(client._process.socket_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        return int((await http.get("/health")).json()["asked"])


async def is_running(client: ModelServerClient) -> bool:
    return client.is_running


async def until(question: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(10):
        while await question() != wanted:  # noqa: ASYNC110  the process on the other side tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.asyncio(loop_scope="module")
async def test_base_and_adapter_answer_differently_and_repeatably(
    client: ModelServerClient, base: ModelArtifact, adapter: ModelArtifact
) -> None:
    first = [await answer(client, artifact) for artifact in (base, adapter)]
    again = [await answer(client, artifact) for artifact in (base, adapter)]
    assert first == again
    assert first[0] != first[1]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_end_says_how_many_tokens_and_why(client: ModelServerClient, base: ModelArtifact) -> None:
    parts = [part async for part in client.stream(base, QUESTION, max_new_tokens=5)]
    assert (parts[-1].tokens, parts[-1].reason) == (5, "length")
    parts = [part async for part in client.stream(base, [Message("user", "a" * 990)], max_new_tokens=500)]
    assert parts[-1].reason in ("context", "stop")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_socket_is_its_owners_alone(client: ModelServerClient) -> None:
    await client.start()
    mode = client._process.socket_path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_answered_comes_back_as_its_own_error(
    client: ModelServerClient, base: ModelArtifact, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="reads 1024"):
        await answer_to(client, base, "a" * 2000)
    gone = dataclasses.replace(tiny_artifact(tmp_path / "gone"), path=tmp_path / "gone")
    with pytest.raises(ModelLoadError, match="gone"):
        await answer(client, gone)
    assert await answer(client, base)


async def answer_to(client: ModelServerClient, artifact: ModelArtifact, text: str) -> None:
    async for _ in client.stream(artifact, [Message("user", text)], max_new_tokens=1):
        pass


@pytest.mark.asyncio(loop_scope="module")
async def test_a_reader_who_leaves_stops_the_work(client: ModelServerClient, base: ModelArtifact) -> None:
    parts = client.stream(base, QUESTION, max_new_tokens=900)
    async with contextlib.aclosing(parts):
        await anext(parts)
        assert await asked(client) == 1
    await until(lambda: asked(client), 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_full_queue_is_said_at_once_and_empties(client: ModelServerClient, base: ModelArtifact) -> None:
    results = await asyncio.gather(
        *(answer(client, base, tokens=800, seed=seed) for seed in range(30)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert 1 <= len(refused) <= 6  # eight are written at once, sixteen wait; some may have ended meanwhile
    assert all(isinstance(error, TooBusy) and "wait for the engine" in str(error) for error in refused)
    await until(lambda: asked(client), 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_hangs_is_told_within_seconds_and_left_alone(
    client: ModelServerClient, base: ModelArtifact
) -> None:
    assert await answer(client, base)
    pid = client.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        view = await model_server_view(client)
        assert time.monotonic() - began < 4
        assert view.running
        assert "did not say within 2 s" in str(view.problem)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert client.pid == pid
    assert await answer(client, base)
    assert (await model_server_view(client)).models


@pytest.mark.asyncio(loop_scope="module")
async def test_it_gives_way_to_training_and_opens_nothing_that_would_not_fit(
    tmp_path: Path, base: ModelArtifact
) -> None:
    """A process that is promised more than the machine has; then it has its memory, or is gone."""
    leases = tmp_path / "memory"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom terakoya.storage.memory_leases import hold\n"
        f"hold(Path({str(leases)!r}), 'task_1', 1 << 50)\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    client = ModelServerClient(
        socket_path=tmp_path / "s", log_path=tmp_path / "log", cache_bytes=1 << 28, threads=1, leases=leases
    )

    async def models() -> int:
        return len((await client.open_models())["models"])

    try:
        await client.load(base)
        assert await models() == 1
        trainer = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
        try:
            assert trainer.stdout is not None
            assert await trainer.stdout.readline() == b"held\n"
            await until(models, 0)
            with pytest.raises(Unavailable, match="training is going to take"):
                await answer(client, base)
        finally:
            trainer.kill()
            await trainer.wait()
        assert await answer(client, base)
    finally:
        await client.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_crash_in_mid_answer_is_told_and_the_next_question_restarts_it(
    client: ModelServerClient, base: ModelArtifact
) -> None:
    parts = client.stream(base, QUESTION, max_new_tokens=900)
    await anext(parts)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="signal 9"):
        async for _ in parts:
            pass
    assert await answer(client, base)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_past_its_time_is_stopped(tmp_path: Path, base: ModelArtifact) -> None:
    """The same client also goes idle afterwards."""
    client = ModelServerClient(
        socket_path=tmp_path / ("long" * 40) / "s.sock",  # longer than a socket's path may be
        log_path=tmp_path / "server.log",
        cache_bytes=1 << 28,
        threads=1,
        idle_seconds=0.5,
        timeout_seconds=0.01,
    )
    with pytest.raises(Unavailable, match=r"took over 0\.01 s"):
        await answer(client, base, tokens=900)
    folder = client._process.socket_path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await until(lambda: is_running(client), False)
    await client.stop()
    assert not folder.exists()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_dies_at_once_is_an_error_with_its_last_words(
    tmp_path: Path, base: ModelArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "_MODULE", "terakoya.processes.no_such_thing")
    client = ModelServerClient(socket_path=tmp_path / "s", log_path=tmp_path / "server.log", cache_bytes=1)
    with pytest.raises(Unavailable, match=r"exit code 1[^\n]*\n.*No module named"):
        await answer(client, base)


def test_keys_of_the_web_process_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERAKOYA_API_KEYS", "secret-1")
    monkeypatch.setenv("HF_TOKEN", "secret-2")
    server = ModelServerProcess(tmp_path / "s", tmp_path / "log", cache_bytes=1, threads=1)
    server.start(timeout_seconds=100)
    try:
        passed = psutil.Process(server.pid).environ()
    finally:
        server.stop()
    assert not {"secret-1", "secret-2"} & set(passed.values())


def test_it_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from terakoya.models.server_process import ModelServerProcess\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "server = ModelServerProcess(folder / 's', folder / 'log', cache_bytes=1, threads=1)\n"
        "server.start(timeout_seconds=100)\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        children = [server, *server.children(recursive=True)]
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.asyncio(loop_scope="module")
async def test_stopping_a_server_that_never_ran_is_nothing(tmp_path: Path) -> None:
    ModelServerProcess(tmp_path / "s", tmp_path / "log", cache_bytes=1, threads=1).stop()
