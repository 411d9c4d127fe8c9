"""Which model an adapter was made for, by its own word, and whether the model it is to be put on can be that one. These
are names; shapes are compared when it is opened. Knows nothing of weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.exceptions import InvalidConfig
from terakoya.models.artifacts import read_json
from terakoya.models.sources import STARTERS, HubSource, resolve_source

_CONFIG, _FIELD = "adapter_config.json", "base_model_name_or_path"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def declared_base(folder: Path) -> str | None:
    """Return what the adapter in the folder says it was made for; None if it says nothing, or is no adapter.

    Raises: UnsafeArtifact if its configuration cannot be read.
    """
    path = folder / _CONFIG
    config = read_json(path) if path.is_file() and not path.is_symlink() else None
    declared = config.get(_FIELD) if isinstance(config, dict) else None
    return declared[:400] if isinstance(declared, str) and declared else None


def named_model(declared: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    """Return the newest whole model whose id or origin is the declared one."""
    return next((model for model in models if model.can_be_tuned and _is_it(declared, model)), None)


def check_base(declared: str, base: ModelInfo, models: Sequence[ModelInfo] = ()) -> str | None:
    """Return what is to be said where names cannot tell whether the adapter was made for the base; None if it was.

    ``models``: of the registry, by which an id is shown as a name.
    Raises: InvalidConfig if it was made for another model.
    """
    if _is_it(declared, base):
        return None
    known = next((model for model in models if model.id == declared), None)
    origin = _origin(base)
    if origin is not None and declared.lower() == origin.lower():
        return (
            f"the adapter was made for {declared!r}; {base.name!r} was made of that, but its weights differ a little "
            "(they were stored in fewer bits), and so may the answers"
        )
    is_another = known is not None or (
        _HUB_NAME.fullmatch(declared) and (origin is not None or base.kind is not ModelKind.BASE)
    )
    if is_another:
        made_for = declared if known is None else known.name
        raise InvalidConfig(
            f"the adapter was made for {made_for!r}, not for {base.name!r} ({base.source}); pull {made_for!r} and name "
            "that as the base"
        )
    return (
        f"the adapter says that it was made for {declared!r}, which cannot be compared with {base.name!r}: their "
        "shapes fit, whether the weights are the same is not known"
    )


def _is_it(declared: str, model: ModelInfo) -> bool:
    if declared == model.id:
        return True
    source = _hub_source(model)
    return source is not None and declared.lower() == source.repository.lower()


def _origin(model: ModelInfo) -> str | None:
    """Return the hub's name of the weights that the model was made of, where that is known."""
    if (source := _hub_source(model)) is not None:
        return source.repository
    starter = next((starter for starter in STARTERS.values() if starter.text == model.source), None)
    return starter.upstream if starter is not None else None


def _hub_source(model: ModelInfo) -> HubSource | None:
    if model.kind is not ModelKind.BASE or not model.source.startswith("hf:"):
        return None
    source = resolve_source(model.source)
    return source if isinstance(source, HubSource) else None
