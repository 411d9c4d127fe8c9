"""Every objective in the table keeps the contract of a way to train; supervised learning does so with each strategy."""

from __future__ import annotations

from tests.contract.training_suites import suites

from terakoya.training.objectives.methods import OBJECTIVES

WAYS = {name: {"objective": name} for name in OBJECTIVES if name != "supervised"}
FULL = {"objective": "dpo", "strategy": "full", "learning_rate": 0.001}
globals().update(suites({**WAYS, "dpo with all weights": FULL}, __name__))
