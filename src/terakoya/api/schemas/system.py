"""What the server is and runs on."""

from __future__ import annotations

from pydantic import BaseModel


class Status(BaseModel):
    status: str


class Cpu(BaseModel):
    model: str
    cores: int
    """Cores this process may use."""
    instructions: list[str]
    """Vector instructions that speed training up, of those the machine has."""


class Memory(BaseModel):
    total_bytes: int
    available_bytes: int


class Disk(BaseModel):
    total_bytes: int
    free_bytes: int


class Gpu(BaseModel):
    name: str
    memory_total_bytes: int
    memory_used_bytes: int


class Protection(BaseModel):
    active: bool
    detail: str


class OpenModel(BaseModel):
    id: str
    engine: str
    """Which opened it, and how its weights are stored."""
    size_bytes: int
    adapters: int


class OpeningModel(BaseModel):
    name: str
    done: int
    total: int


class ModelServer(BaseModel):
    running: bool
    problem: str | None = None
    """Why nothing is known of what is open, if it does not say."""
    models: list[OpenModel]
    opening: list[OpeningModel]
    """Models whose files are being made for an engine, with the tensors done and in all."""


class SystemView(BaseModel):
    version: str
    python: str
    platform: str
    data_dir: str
    cpu: Cpu
    memory: Memory
    disk: Disk
    gpu: list[Gpu]
    engines: dict[str, Protection]
    """What answers for models, with whether this machine has it."""
    model_server: ModelServer
    protections: dict[str, Protection]
    """Each with whether this machine and these settings have it."""
