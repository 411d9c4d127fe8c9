"""Settings -> Container: the one place that joins ports and implementations. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from terakoya.config import Settings
from terakoya.data.import_child import ChildImporter
from terakoya.data.service import DatasetService
from terakoya.domain.document_ports import VectorStore
from terakoya.domain.tasks import TaskKind, TaskLimits
from terakoya.models.client import ModelServerClient
from terakoya.models.embedder import RegisteredEmbedder
from terakoya.models.endpoints import read_endpoints
from terakoya.models.external import ExternalClient
from terakoya.models.hub import HubAccess
from terakoya.models.routing import RoutedClient
from terakoya.models.service import ModelService
from terakoya.rag.app import RAGApplication
from terakoya.rag.archive_service import ArchiveService
from terakoya.rag.evaluation.evaluator import Evaluator
from terakoya.rag.evaluation.service import EvaluationService
from terakoya.rag.indexing.archives import ArchiveLimits
from terakoya.rag.indexing.index_keeper import IndexKeeper
from terakoya.rag.indexing.indexer import Indexer, ParseLimits
from terakoya.rag.indexing.parse_child import ParseChildren
from terakoya.rag.retrieval.retriever import Retriever
from terakoya.rag.service import DocumentService
from terakoya.storage.database import open_database
from terakoya.storage.dataset_repository import SqlDatasetRepository
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.evaluation_repository import SqlEvaluationRepository
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.garbage import collect_garbage
from terakoya.storage.json_text import to_json
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.probe_repository import SqlProbeRepository
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.storage.trace_repository import SqlTraceRepository
from terakoya.storage.vector_store.edge import EdgeVectorStore
from terakoya.tasks.devices import training_devices
from terakoya.tasks.service import TaskService
from terakoya.tasks.supervisor import Supervisor
from terakoya.training.chain_service import ChainService
from terakoya.training.plan_service import PlanService
from terakoya.training.service import TrainingService
from terakoya.training.slider import SliderService

PULL_SLOTS = 1
"""Pulls at once: they share one network link and one disk."""
REBUILD_SLOTS = 1
EVALUATION_SLOTS = 1
"""Evaluations at once: two would slow each other's answers."""
EXPORT_SLOTS = 1
"""Exports at once: each holds a model twice."""
INTERPOLATE_SLOTS = 1
"""Sliders at once: full weights are held three times."""


@dataclass(frozen=True, slots=True)
class Container:
    settings: Settings
    data_dir: DataDir
    engine: Engine
    event_log: FileEventLog
    tasks: TaskService
    supervisor: Supervisor
    datasets: DatasetService
    models: ModelService
    model_client: ModelServerClient
    external: ExternalClient
    embedder: RegisteredEmbedder
    training: TrainingService
    chains: ChainService
    plans: PlanService
    slider: SliderService
    documents: DocumentService
    index_keeper: IndexKeeper
    archives: ArchiveService
    parse_children: ParseChildren
    rag: RAGApplication
    evaluations: EvaluationService


def build_container(settings: Settings) -> Container:
    """Open the data folder, whose lock the caller holds, and join the parts.

    Raises: AppException if the folder's database is of a newer version.
    """
    data_dir = DataDir(settings.data_dir).create()
    engine = open_database(data_dir)
    collect_garbage(engine, data_dir)

    task_rows = SqlTaskRepository(engine, data_dir)
    model_rows = SqlModelRepository(engine, data_dir)
    dataset_rows = SqlDatasetRepository(engine, data_dir)
    document_rows = SqlDocumentRepository(engine, data_dir)
    event_log = FileEventLog(data_dir)
    tasks = TaskService(task_rows, event_log, data_dir)

    model_client = ModelServerClient(
        socket_path=data_dir.model_server_socket,
        log_path=data_dir.logs / "model-server.log",
        cache_bytes=settings.model_cache_bytes,
        threads=settings.model_threads,
        files=data_dir.engine_files,
        leases=data_dir.memory_leases,
        idle_seconds=settings.model_server_idle_seconds,
        timeout_seconds=settings.generation_timeout_seconds,
    )
    endpoints = read_endpoints(settings.endpoints, os.environ)
    model_rows.list_external([endpoint.listed for endpoint in endpoints])
    external = ExternalClient(endpoints)
    models = ModelService(
        repository=model_rows,
        tasks=tasks,
        client=RoutedClient(model_client, external),
        import_dir=settings.import_dir,
        hub=_hub_access(settings),
        downloads=data_dir.downloads,
    )
    datasets = DatasetService(
        dataset_rows,
        data_dir.uploads,
        new_id=new_id,
        importer=ChildImporter(
            timeout_seconds=settings.import_timeout_seconds, memory_bytes=settings.parse_memory_bytes
        ),
        limit_bytes=settings.upload_limit_bytes,
    )
    training = TrainingService(
        queue=tasks,
        tasks=task_rows,
        models=model_rows,
        datasets=dataset_rows,
        folders=data_dir,
        threads=settings.training_threads,
        mlflow_uri=settings.mlflow_tracking_uri,
        token_cache_bytes=settings.token_cache_bytes,
        limits=TaskLimits(
            settings.training_max_hours, settings.training_no_progress_minutes, settings.training_max_restarts
        ),
    )
    chains = ChainService(
        folders=data_dir, models=model_rows, tasks=task_rows, datasets=dataset_rows, training=training
    )
    plans = PlanService(
        training, model_rows, cache=data_dir.cache, data_dir=data_dir.root, threads=settings.training_threads
    )
    slider = SliderService(models=model_rows, datasets=dataset_rows, queue=tasks, threads=settings.training_threads)
    embedder = RegisteredEmbedder(model_rows, model_client)
    vectors = _vector_store(settings, data_dir)
    index_keeper = IndexKeeper(document_rows, vectors)
    documents = DocumentService(
        documents=document_rows,
        queue=tasks,
        tasks=task_rows,
        models=model_rows,
        keeper=index_keeper,
        embedder=settings.embedder,
    )
    parse_children = ParseChildren(data_dir.uploads)
    archives = ArchiveService(
        documents,
        parse_children,
        work_dir=data_dir.uploads,
        limits=ArchiveLimits(settings.archive_limit_bytes, settings.document_limit_bytes),
        timeout_seconds=settings.parse_timeout_seconds,
        memory_bytes=settings.parse_memory_bytes,
    )
    indexer = Indexer(
        documents=document_rows,
        embedder=embedder,
        models=model_rows,
        keeper=index_keeper,
        parse=parse_children.parse,
        limits=ParseLimits(settings.parse_timeout_seconds, settings.parse_memory_bytes),
    )
    retriever = Retriever(
        store=vectors, documents=document_rows, embedder=embedder, is_incomplete=index_keeper.is_incomplete
    )
    probes = SqlProbeRepository(engine)
    rag = RAGApplication(
        documents=document_rows,
        retriever=retriever,
        embedder=embedder,
        models=model_rows,
        chat=model_client,
        traces=SqlTraceRepository(engine),
        probes=probes,
        new_id=new_id,
    )
    evaluation_rows = SqlEvaluationRepository(engine)
    evaluations = EvaluationService(
        documents=document_rows, evaluations=evaluation_rows, models=model_rows, queue=tasks
    )
    evaluator = Evaluator(
        documents=document_rows,
        evaluations=evaluation_rows,
        retriever=retriever,
        embedder=embedder,
        models=model_rows,
        chat=model_client,
        probes=probes,
        register=lambda name, rows: _registered(datasets, data_dir, name, rows),
    )
    supervisor = Supervisor(
        task_rows,
        event_log,
        data_dir,
        planners={
            TaskKind.TRAINING: training.plan,
            TaskKind.PULL: models.plan_pull,
            TaskKind.EXPORT: models.plan_export,
            TaskKind.INTERPOLATE: slider.plan,
        },
        works={
            TaskKind.INGEST: indexer.ingest,
            TaskKind.REBUILD: indexer.rebuild,
            TaskKind.EVALUATION: evaluator.evaluate,
        },
        slots={
            TaskKind.TRAINING: settings.training_slots,
            TaskKind.PULL: PULL_SLOTS,
            TaskKind.EXPORT: EXPORT_SLOTS,
            TaskKind.INTERPOLATE: INTERPOLATE_SLOTS,
            TaskKind.INGEST: settings.ingest_slots,
            TaskKind.REBUILD: REBUILD_SLOTS,
            TaskKind.EVALUATION: EVALUATION_SLOTS,
        },
        devices={TaskKind.TRAINING: training_devices(settings.training_devices, os.environ)},
        cancel_grace_seconds=settings.cancel_grace_seconds,
        terminate_grace_seconds=settings.terminate_grace_seconds,
        restart_pause_seconds=settings.restart_pause_seconds,
    )
    tasks.on_change(supervisor.wake)

    if not dataset_rows.list_datasets() and not task_rows.list_tasks(limit=1):
        datasets.install_sample()  # a new folder; later the sample may have been deleted on purpose
    return Container(
        settings=settings,
        data_dir=data_dir,
        engine=engine,
        event_log=event_log,
        tasks=tasks,
        supervisor=supervisor,
        datasets=datasets,
        models=models,
        model_client=model_client,
        external=external,
        embedder=embedder,
        training=training,
        chains=chains,
        plans=plans,
        slider=slider,
        documents=documents,
        index_keeper=index_keeper,
        archives=archives,
        parse_children=parse_children,
        rag=rag,
        evaluations=evaluations,
    )


def _hub_access(settings: Settings) -> HubAccess:
    token = settings.hf_token
    return HubAccess(
        endpoint=settings.hf_endpoint,
        token=None if token is None else token.get_secret_value(),
        is_offline=settings.hf_hub_offline,
    )


def _registered(datasets: DatasetService, data_dir: DataDir, name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Make a data set of rows, checked as an upload is, and return its id. Raises: Conflict if the name is taken."""
    path = data_dir.uploads / new_id("rows")
    try:
        path.write_bytes(b"".join(to_json(row) + b"\n" for row in rows))
        return datasets.import_file(path, name=name, original_filename=f"{name}.jsonl").id
    finally:
        path.unlink(missing_ok=True)


def _vector_store(settings: Settings, data_dir: DataDir) -> VectorStore:
    if settings.qdrant_url is None:
        return EdgeVectorStore(data_dir.index)
    from qdrant_client import AsyncQdrantClient

    from terakoya.storage.vector_store.server import ServerVectorStore

    key = settings.qdrant_api_key
    client = AsyncQdrantClient(
        url=settings.qdrant_url,
        api_key=None if key is None else key.get_secret_value(),
        check_compatibility=False,  # it would ask the server here, which may be starting too
    )
    return ServerVectorStore(client)
