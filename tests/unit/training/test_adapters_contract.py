"""Every adapter kind in the table keeps the contract of a way to train; plain LoRA does so as a strategy."""

from __future__ import annotations

from tests.contract.training_suites import suites

from terakoya.training.adapters import ADAPTERS

KINDS = {kind: {"adapter": {"kind": kind}} for kind in ADAPTERS if kind != "lora"}
globals().update(suites(KINDS | {"dora in nf4": {"adapter": {"kind": "dora", "quantization": "nf4"}}}, __name__))
