"""Other programs that get a run's curves. A table by name, what each needs, and how they are fed without a run ever
waiting for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from terakoya.exceptions import InvalidConfig
from terakoya.registry import Registry

if TYPE_CHECKING:
    from terakoya.training.trackers.base import Tracker

TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker",
    {
        "mlflow": "terakoya.training.trackers.mlflow_tracker:MlflowTracker",
        "tensorboard": "terakoya.training.trackers.tensorboard_tracker:TensorboardTracker",
    },
    group="terakoya.trackers",
)
PACKAGES: Mapping[str, str] = {"mlflow": "mlflow", "tensorboard": "tensorboard"}


def available_trackers(*, mlflow_uri: str | None) -> list[str]:
    """Return those that a request may name here."""

    def is_available(name: str) -> bool:
        try:
            check_available([name], mlflow_uri=mlflow_uri)
        except InvalidConfig:
            return False
        return True

    return [name for name in TRACKERS if is_available(name)]


def check_available(names: Sequence[str], *, mlflow_uri: str | None) -> None:
    """Raises: InvalidConfig naming the extra to install, or the setting that an administrator has to make."""
    for name in names:
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise InvalidConfig(
                f"tracker {name!r} needs a package that is not installed here: pip install 'terakoya[{name}]'"
            )
    if "mlflow" in names and mlflow_uri is None:
        raise InvalidConfig(
            "tracker 'mlflow' has no store to write to: the administrator names one by TERAKOYA_MLFLOW_TRACKING_URI, "
            "such as http://127.0.0.1:5000 or sqlite:////srv/mlflow.db"
        )
