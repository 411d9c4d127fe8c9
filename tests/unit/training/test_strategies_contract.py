"""Every strategy in the table keeps the contract of a way to train."""

from __future__ import annotations

from tests.contract.training_suites import suites

from terakoya.training.methods import STRATEGIES

globals().update(suites({name: {"strategy": name} for name in STRATEGIES}, __name__))
