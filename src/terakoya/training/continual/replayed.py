"""An objective with rows of earlier tasks among its own: those with soft targets are learned from what the earlier
model said of them, the others like any row. Knows rows and losses; not buffers on disk or how rows were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from terakoya.data.tokenization import EncodedExample
from terakoya.exceptions import InvalidConfig
from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import Row
from terakoya.training.continual.replay import ReplayExample
from terakoya.training.continual.soft_targets import SoftTargets, joined, soft_target_losses
from terakoya.training.objectives.objective import MicroBatch, Objective, Share, Start, StepSize


class ReplayedObjective(Objective):
    """The loss of a step is the sum over all its labels, new and old alike, divided by their number."""

    def __init__(self, inner: Objective, targets: Mapping[int, SoftTargets]) -> None:
        """``targets``: of those examples, by number, that are learned from soft targets."""
        super().__init__(inner.settings)
        if inner.encoding.rows_per_example != 1:
            raise InvalidConfig(
                "replay mixes earlier rows with those of an objective that learns one row an example; "
                "with this objective, set retention.replay.share to 0"
            )
        self.inner = inner
        self.encoding = inner.encoding  # type: ignore[misc]
        self.targets = targets

    def start(self, start: Start) -> None:
        self.inner.start(start)

    def share(self, forward: LabelForward, batch: MicroBatch, size: StepSize) -> Share:
        soft = [place for place, number in enumerate(batch.numbers) if number in self.targets]
        own = [place for place in range(len(batch.numbers)) if place not in set(soft)]
        parts = []
        if own:
            numbers, examples = [batch.numbers[place] for place in own], [batch.examples[place] for place in own]
            parts.append(self.inner.share(forward, MicroBatch(numbers, examples), size))
        if soft:
            rows = [batch.examples[place][0] for place in soft]
            targets = joined([self.targets[batch.numbers[place]] for place in soft])
            loss = losses_against(forward, rows, targets).sum() / size.labels
            parts.append(Share(loss, {"replay_loss": loss.detach()}))
        facts = {name: value for part in parts for name, value in part.facts.items()}
        return Share(sum(part.loss for part in parts), facts)  # type: ignore[arg-type]


def losses_against(forward: LabelForward, rows: Sequence[Row], targets: SoftTargets) -> Tensor:
    """KL(stored || model) of each label of some rows, [labels], in nats; ``targets`` has one entry a label."""
    return forward.of_logits(
        rows, lambda logits, which: soft_target_losses(logits, targets.slice(which.start, which.stop).to(logits.device))
    )


def as_row(example: ReplayExample) -> EncodedExample:
    """A training row; it has no line in this run's dataset."""
    return EncodedExample(row=0, input_ids=list(example.input_ids), label_spans=example.label_spans)
