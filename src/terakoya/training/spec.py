"""What a training process is told: the resolved request and where its model and data are. It goes through
``spec.json``; knows neither the database nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terakoya.domain.models import ModelArtifact
from terakoya.models.wire import artifact_from_json, artifact_to_json
from terakoya.training.defaults import ResolvedTraining
from terakoya.training.retention import ChainPlace


@dataclass(frozen=True, slots=True)
class RunSpec:
    name: str
    """Of the model that comes out."""
    request: dict[str, Any]
    resolved: ResolvedTraining
    model: ModelArtifact
    dataset_id: str
    dataset_name: str
    dataset_sha256: str
    rows_path: Path
    evaluation_cache: Path
    threads: int
    """0 takes every core."""
    mlflow_uri: str | None = None
    measurements: Path | None = None
    """Where what was measured of this machine is kept, if it is."""
    token_cache: Path | None = None
    """Where tokenised rows are kept from one run to the next; without it they are made in memory."""
    token_cache_bytes: int = 0
    """What is kept there when no run needs it."""
    chain: ChainPlace | None = None
    """Where in which chain of tasks the run stands."""
    chain_base: ModelArtifact | None = None
    """The model the chain began with, where its models are whole ones; None for adapters, whose base it is."""

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {
            "resolved": self.resolved.to_json(),
            "model": artifact_to_json(self.model),
            "rows_path": str(self.rows_path),
            "evaluation_cache": str(self.evaluation_cache),
            "token_cache": None if self.token_cache is None else str(self.token_cache),
            "measurements": None if self.measurements is None else str(self.measurements),
            "chain": self.chain and self.chain.to_json(),
            "chain_base": self.chain_base and artifact_to_json(self.chain_base),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RunSpec:
        """Read back; what the supervisor added beside is ignored."""
        own = {name: fields[name] for name in cls.__slots__ if name in fields}
        chain, tokens = fields.get("chain"), fields.get("token_cache")
        chain, chain_base = fields.get("chain"), fields.get("chain_base")
        return cls(
            **own
            | {
                "resolved": ResolvedTraining.from_json(fields["resolved"]),
                "model": artifact_from_json(fields["model"]),
                "rows_path": Path(fields["rows_path"]),
                "evaluation_cache": Path(fields["evaluation_cache"]),
                "token_cache": None if tokens is None else Path(tokens),
                "measurements": None if fields["measurements"] is None else Path(fields["measurements"]),
                "chain": chain and ChainPlace.from_json(chain),
                "chain_base": chain_base and artifact_from_json(chain_base),
            }
        )
