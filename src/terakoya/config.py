"""Settings from TERAKOYA_* variables. Read at the edges (entry points, bootstrap) and nowhere else:
components are given plain values.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 2**30
MAX_HOURS = 8760.0
MIN_NO_PROGRESS_MINUTES, MAX_NO_PROGRESS_MINUTES = 0.5, 1440.0
MAX_RESTARTS = 100
Device = Annotated[str, Field(pattern=r"^(cpu|cuda:[\w-]{1,80})$")]


def default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "terakoya"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TERAKOYA_", extra="ignore", frozen=True, populate_by_name=True)

    host: str = "127.0.0.1"
    """Address to bind. Anything but loopback needs ``api_keys``."""
    port: int = Field(default=8050, ge=0, le=65535)
    """0 takes a free port."""
    data_dir: Path = Field(default_factory=default_data_dir)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Comma-separated. With none, only loopback is served and no key is asked."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names besides localhost and the bound address under which the server may be called."""
    language: Literal["auto", "en", "ja"] = "auto"
    """Of pages and command line; auto follows the browser or LANG."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    upload_limit_bytes: int = Field(default=8 * GIB, ge=1)
    training_slots: int = Field(default=1, ge=1, le=64)
    """Training tasks that run at once on each device; others queue."""
    training_devices: Annotated[tuple[Device, ...], NoDecode] = ()
    """Comma-separated: cpu, cuda:0, ... Without any, every GPU that is found, else the CPU."""
    training_max_hours: float | None = Field(default=None, gt=0, le=MAX_HOURS)
    """No run may work for longer, nor ask to; without it a run may ask for any limit, and has none if it does not."""
    training_no_progress_minutes: float = Field(default=30.0, ge=MIN_NO_PROGRESS_MINUTES, le=MAX_NO_PROGRESS_MINUTES)
    """A training process that gives no sign of life for so long is killed, which counts as a death."""
    training_max_restarts: int = Field(default=5, ge=0, le=MAX_RESTARTS)
    """So often in a row a training process that died is started again from its newest checkpoint."""
    restart_pause_seconds: float = Field(default=5.0, ge=0, le=300)
    """Before the first restart in a row; each further one waits twice as long, up to five minutes."""
    training_threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of a training process; 0 takes every core."""
    token_cache_bytes: int = Field(default=8 * GIB, ge=0)
    """What tokenised training rows may take on disk when no run needs them; those used longest ago go first."""
    mlflow_tracking_uri: str | None = Field(default=None, min_length=1, max_length=2000)
    """The MLflow store that runs which ask for the tracker "mlflow" write to; without it they are refused."""
    cancel_grace_seconds: float = Field(default=30.0, ge=0)
    """From the cancel request to SIGTERM: time for the step boundary and a checkpoint."""
    terminate_grace_seconds: float = Field(default=10.0, ge=0)
    """From SIGTERM to SIGKILL."""
    import_dir: Path | None = None
    """Where the administrator puts model folders that may be pulled as ``folder:<name>``; without it none may."""
    endpoints: Path | None = None
    """A TOML file that names OpenAI-compatible endpoints which answer as models here."""
    hf_endpoint: str = Field(
        default="https://huggingface.co",
        max_length=2000,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        validation_alias=AliasChoices("TERAKOYA_HF_ENDPOINT", "HF_ENDPOINT"),
    )
    """The model hub that ``hf:`` names are looked up at: Hugging Face, or a mirror with its API."""
    hf_token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("TERAKOYA_HF_TOKEN", "HF_TOKEN"))
    """Sent to that hub's own address and nowhere else."""
    hf_hub_offline: bool = Field(
        default=False, validation_alias=AliasChoices("TERAKOYA_HF_HUB_OFFLINE", "HF_HUB_OFFLINE")
    )
    """Nothing is fetched from the hub."""
    model_threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of the model server; 0 takes every core but one: llama.cpp slows down ninefold when it must share its
    last."""
    model_cache_bytes: int = Field(default=6 * GIB, ge=0)
    """Byte budget of loaded models in the model server."""
    model_server_idle_seconds: float = Field(default=600.0, gt=0)
    """The model server is stopped after so long without a request."""
    generation_timeout_seconds: float = Field(default=120.0, gt=0)
    document_limit_bytes: int = Field(default=200_000_000, ge=1)
    archive_limit_bytes: int = Field(default=2 * GIB, ge=1)
    """An archive of documents, and all that it unpacks to."""
    embedder: str = Field(default="multilingual-e5-small-q4", min_length=1, max_length=100)
    """The registered model that new collections are pinned to."""
    qdrant_url: str | None = Field(default=None, max_length=2000)
    """A Qdrant server that keeps the search indexes; without it they are in the data folder, in this process."""
    qdrant_api_key: SecretStr | None = None
    ingest_slots: int = Field(default=2, ge=1, le=64)
    """Documents that are indexed at once; others queue."""
    parse_timeout_seconds: float = Field(default=120.0, gt=0)
    """A parser that takes longer is killed and its document failed."""
    parse_memory_bytes: int = Field(default=GIB, ge=2**26)
    """What a parser, or an import of training data, may take besides what its process needs anyway."""
    import_timeout_seconds: float = Field(default=3600.0, gt=0)
    """An import of training data that takes longer is killed and refused."""

    @field_validator("api_keys", "allowed_hosts", "training_devices", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("hf_endpoint", "hf_hub_offline", mode="before")
    @classmethod
    def _default_if_empty(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[str(info.field_name)].default if value == "" else value

    @field_validator("hf_endpoint")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("hf_token")
    @classmethod
    def _none_if_empty(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value() else None

    @field_validator("data_dir", "import_dir", "endpoints")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().resolve()
