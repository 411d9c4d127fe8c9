"""Reads the settings for a command; a bad variable becomes an error that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terakoya.exceptions import InvalidConfig

if TYPE_CHECKING:
    from terakoya.config import Settings


def read_settings(**overrides: Any) -> Settings:
    """Return the settings of the environment; ``overrides`` that are not None win. Raises: InvalidConfig."""
    from pydantic import ValidationError

    from terakoya.config import Settings

    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            variable = name if name.isupper() else f"TERAKOYA_{name.upper()}"
            where = f"--{name.replace('_', '-')}" if name in given else variable
            shown = "" if name == "api_keys" else f"={problem['input']!r}"
            problems.append(f"{where}{shown}: {problem['msg']}")
        raise InvalidConfig("; ".join(problems)) from None
