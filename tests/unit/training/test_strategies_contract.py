"""Every strategy in the table keeps the contract of a way to train. "ewc" trains stages of a chain, which a single run
does not have; its tests are in ``continual/``.
"""

from __future__ import annotations

from tests.contract.training_suites import suites

from terakoya.training.methods import STRATEGIES

globals().update(suites({name: {"strategy": name} for name in STRATEGIES if name != "ewc"}, __name__))
