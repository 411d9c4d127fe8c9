"""What routes ask for: the parts that ``bootstrap`` joined, by annotated aliases. Routes see nothing else of the
application's state.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from terakoya.bootstrap import Container
from terakoya.config import Settings
from terakoya.data.service import DatasetService
from terakoya.models.service import ModelService
from terakoya.rag.app import RAGApplication
from terakoya.rag.archive_service import ArchiveService
from terakoya.rag.evaluation.service import EvaluationService
from terakoya.rag.service import DocumentService
from terakoya.tasks.service import TaskService
from terakoya.training.chain_service import ChainService
from terakoya.training.plan_service import PlanService
from terakoya.training.service import TrainingService
from terakoya.training.slider import SliderService


def get_container(connection: HTTPConnection) -> Container:
    return cast(Container, connection.app.state.container)


ContainerDep = Annotated[Container, Depends(get_container)]


def get_settings(container: ContainerDep) -> Settings:
    return container.settings


def get_tasks(container: ContainerDep) -> TaskService:
    return container.tasks


def get_training(container: ContainerDep) -> TrainingService:
    return container.training


def get_chains(container: ContainerDep) -> ChainService:
    return container.chains


def get_plans(container: ContainerDep) -> PlanService:
    return container.plans


def get_slider(container: ContainerDep) -> SliderService:
    return container.slider


def get_datasets(container: ContainerDep) -> DatasetService:
    return container.datasets


def get_models(container: ContainerDep) -> ModelService:
    return container.models


def get_documents(container: ContainerDep) -> DocumentService:
    return container.documents


def get_archives(container: ContainerDep) -> ArchiveService:
    return container.archives


def get_rag_app(container: ContainerDep) -> RAGApplication:
    return container.rag


def get_evaluations(container: ContainerDep) -> EvaluationService:
    return container.evaluations


SettingsDep = Annotated[Settings, Depends(get_settings)]
Tasks = Annotated[TaskService, Depends(get_tasks)]
Training = Annotated[TrainingService, Depends(get_training)]
Chains = Annotated[ChainService, Depends(get_chains)]
Plans = Annotated[PlanService, Depends(get_plans)]
Slider = Annotated[SliderService, Depends(get_slider)]
Datasets = Annotated[DatasetService, Depends(get_datasets)]
Models = Annotated[ModelService, Depends(get_models)]
Documents = Annotated[DocumentService, Depends(get_documents)]
Evaluations = Annotated[EvaluationService, Depends(get_evaluations)]
Archives = Annotated[ArchiveService, Depends(get_archives)]
RAG = Annotated[RAGApplication, Depends(get_rag_app)]


After = Annotated[int, Query(ge=0, le=2**53, description="the last seq already seen")]
Limit = Annotated[int, Query(ge=1, le=1000)]
