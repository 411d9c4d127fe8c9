from __future__ import annotations

from sqlalchemy import Engine

from terakoya.domain.documents import Language
from terakoya.storage.probe_repository import SqlProbeRepository

MODEL = "a" * 64


def test_a_result_belongs_to_one_model_language_and_probe(engine: Engine) -> None:
    probes = SqlProbeRepository(engine)
    probes.save(MODEL, Language.ENGLISH, "1", {"passed": 8})
    assert probes.find(MODEL, Language.ENGLISH, "1") == {"passed": 8}
    assert probes.find(MODEL, Language.JAPANESE, "1") is None
    assert probes.find("b" * 64, Language.ENGLISH, "1") is None
    assert probes.find(MODEL, Language.ENGLISH, "2") is None


def test_a_new_probe_replaces_the_old_result(engine: Engine) -> None:
    probes = SqlProbeRepository(engine)
    probes.save(MODEL, Language.ENGLISH, "1", {"passed": 8})
    probes.save(MODEL, Language.ENGLISH, "2", {"passed": 3})
    assert probes.find(MODEL, Language.ENGLISH, "1") is None
    assert probes.find(MODEL, Language.ENGLISH, "2") == {"passed": 3}
