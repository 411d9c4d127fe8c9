"""The loader of models that answer elsewhere: there is nothing to open, and it says so in place of a missing file."""

from __future__ import annotations

from typing import NoReturn

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig
from terakoya.models.base_loader import BaseModelLoader


class ExternalModelLoader(BaseModelLoader):
    def load(self, artifact: ModelArtifact, *, dtype: str = "float32", device: str = "cpu") -> NoReturn:
        raise InvalidConfig(
            f"{artifact.info.name!r} is an endpoint elsewhere, without weights here: it can be asked, not opened"
        )
