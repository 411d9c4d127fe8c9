"""What can be wrong with a chain. Apart from everything that needs torch, so that the web process can say it too."""

from __future__ import annotations

from terakoya.exceptions import TrainingError


class ChainMismatch(TrainingError):
    """A chain's state belongs to another model: a weight is missing, foreign or of another shape."""

    code = "chain_mismatch"


class DamagedChain(TrainingError):
    """A link of a chain is missing, incomplete or was changed after it was written."""

    status = 409
    code = "damaged_chain"
