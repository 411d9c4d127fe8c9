"""The table of objectives: what each learns from and which settings it takes. Read by request, form and command line,
so it names the parts that compute and loads none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidConfig
from terakoya.registry import Registry
from terakoya.training.objectives.encodings import ANSWERS, DOCUMENTS, PAIRS, Encoding

if TYPE_CHECKING:
    from terakoya.training.objectives.objective import Objective


@dataclass(frozen=True, slots=True)
class Setting:
    """A number that only some objectives have."""

    name: str
    default: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class ObjectiveMethod:
    name: str
    implementation: str
    """``module:attribute`` of the Objective; imported where it runs."""
    learns_from: tuple[DatasetKind, ...]
    encoding: Encoding = ANSWERS
    """As the implementation's own."""
    settings: tuple[Setting, ...] = ()
    rate_factor: float = 1.0
    """The default learning rate is that of supervised learning times this."""

    def resolve_settings(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return every setting with its value. Raises: InvalidConfig for one that is unknown or out of bounds."""
        known = {setting.name: setting for setting in self.settings}
        if unknown := sorted(set(given) - set(known)):
            takes = f"takes {', '.join(sorted(known))}" if known else "takes none"
            raise InvalidConfig(f"objective {self.name!r} has no setting {unknown[0]!r}; it {takes}")
        for name, value in given.items():
            setting = known[name]
            if not setting.least <= value <= setting.most:
                raise InvalidConfig(
                    f"{name} of objective {self.name!r} must be {setting.least:g} to {setting.most:g}; got {value:g}"
                )
        return {name: float(given.get(name, setting.default)) for name, setting in known.items()}

    def load(self) -> type[Objective]:
        module, _, attribute = self.implementation.partition(":")
        return cast("type[Objective]", getattr(import_module(module), attribute))


SUPERVISED = ObjectiveMethod(
    "supervised",
    "terakoya.training.objectives.supervised:SupervisedObjective",
    learns_from=(DatasetKind.CONVERSATION, DatasetKind.PREFERENCE),
)
TEXT = ObjectiveMethod(
    "text", "terakoya.training.objectives.text:TextObjective", learns_from=(DatasetKind.TEXT,), encoding=DOCUMENTS
)
DPO = ObjectiveMethod(
    "dpo",
    "terakoya.training.objectives.dpo:DPOObjective",
    learns_from=(DatasetKind.PREFERENCE,),
    encoding=PAIRS,
    settings=(Setting("beta", 0.1, 1e-4, 10.0), Setting("label_smoothing", 0.0, 0.0, 0.49)),
    rate_factor=0.1,
)
ORPO = ObjectiveMethod(
    "orpo",
    "terakoya.training.objectives.orpo:ORPOObjective",
    learns_from=(DatasetKind.PREFERENCE,),
    encoding=PAIRS,
    settings=(Setting("beta", 0.1, 1e-4, 10.0),),
    rate_factor=0.5,
)

_NATURAL = {DatasetKind.CONVERSATION: "supervised", DatasetKind.TEXT: "text", DatasetKind.PREFERENCE: "dpo"}


def natural_objective(kind: DatasetKind) -> str:
    """Return the objective of a run that names none: what the rows of the data set were written for."""
    return _NATURAL[kind]


OBJECTIVES: Registry[ObjectiveMethod] = Registry(
    "objective",
    {
        "supervised": "terakoya.training.objectives.methods:SUPERVISED",
        "text": "terakoya.training.objectives.methods:TEXT",
        "dpo": "terakoya.training.objectives.methods:DPO",
        "orpo": "terakoya.training.objectives.methods:ORPO",
    },
    group="terakoya.objectives",
)
