"""The pages: each gathers what its template shows. What changes while one looks is fetched by the page's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from terakoya.api.dependencies import Chains, ContainerDep, Datasets, Models, SettingsDep, Training
from terakoya.api.machine import model_server_view, system_view
from terakoya.api.schemas.models import lineage
from terakoya.domain.models import STAGES, ModelInfo
from terakoya.models.export_formats import DEFAULT_FORMAT, ExportFormat
from terakoya.models.sources import STARTERS
from terakoya.rag.indexing.archives import ARCHIVE_SUFFIXES
from terakoya.rag.indexing.parsers import known_suffixes, parsers
from terakoya.training.adapters import ADAPTERS
from terakoya.training.chain_service import costs_of
from terakoya.training.chain_views import ChainView
from terakoya.training.methods import STRATEGIES
from terakoya.training.objectives.methods import OBJECTIVES
from terakoya.training.trackers import available_trackers
from terakoya.web.figures import bytes_text
from terakoya.web.rendering import STATIC, render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def show_home() -> RedirectResponse:
    return RedirectResponse("/train", status_code=307)


@router.get("/train")
def show_train(request: Request, models: Models, datasets: Datasets, chains: Chains) -> HTMLResponse:
    return render(
        request,
        "train.html",
        models=talkers(models.list()),
        datasets=datasets.list(),
        strategies=list(STRATEGIES),
        objectives=list(OBJECTIVES),
        adapter_kinds=list(ADAPTERS),
        chained=chained_models(chains.list(), models.list()),
        trackers=available_trackers(mlflow_uri=request.app.state.container.settings.mlflow_tracking_uri),
        starter=next(iter(STARTERS)),
        upload_limit=request.app.state.container.settings.upload_limit_bytes,
    )


@router.get("/train/{task_id}")
def show_run(request: Request, task_id: str, training: Training) -> HTMLResponse:
    return render(request, "run.html", run=training.get(task_id))


@router.get("/runs")
def show_runs(request: Request, container: ContainerDep) -> HTMLResponse:
    models = {model.id: model.name for model in container.models.list()}
    datasets = {dataset.id: dataset.name for dataset in container.datasets.list()}
    return render(request, "runs.html", runs=container.training.list(), names=models | datasets)


@router.get("/datasets")
def show_datasets(request: Request, datasets: Datasets, settings: SettingsDep) -> HTMLResponse:
    return render(request, "datasets.html", datasets=datasets.list(), upload_limit=settings.upload_limit_bytes)


@router.get("/models")
def show_models(request: Request, models: Models) -> HTMLResponse:
    known = models.list()
    names = {model.name for model in known} | {model.source for model in known}
    missing = [starter for starter in STARTERS if starter not in names]
    return render(
        request,
        "models.html",
        tree=lineage_tree(known),
        missing_starters=missing,
        bases=[model for model in known if model.can_be_tuned],
        known={model.id: model for model in known},
        lineage_of=lineage_of,
        stages=STAGES,
        export_formats=list(ExportFormat),
        default_format=DEFAULT_FORMAT,
    )


@router.get("/chains")
def show_chains(request: Request, chains: Chains) -> HTMLResponse:
    return render(request, "chains.html", chains=chains.list())


@router.get("/chains/{chain}")
def show_chain(request: Request, chain: str, chains: Chains) -> HTMLResponse:
    """With the matrix of each model that nothing has gone on from."""
    view = chains.get(chain)
    heads = [link.model for link in view.links if link.model and not link.children]
    return render(
        request,
        "chain.html",
        chain=view,
        heads=heads,
        names={link.link: link.model.name for link in view.links if link.model},
        costs=costs_of(view.links),
        matrices=[matrix for head in heads if (matrix := chains.matrix_or_none(view.id, head.id)) is not None],
    )


@router.get("/try")
def show_try(request: Request, models: Models) -> HTMLResponse:
    known = talkers(models.list())
    return render(request, "try.html", models=known, pair=suggested_pair(known))


@router.get("/documents")
def show_documents(request: Request, models: Models, settings: SettingsDep) -> HTMLResponse:
    known = {name for model in models.list() for name in (model.id, model.name)}
    return render(
        request,
        "documents.html",
        embedder=settings.embedder,
        embedder_missing=settings.embedder not in known,
        upload_limit=settings.document_limit_bytes,
        archive_limit=settings.archive_limit_bytes,
        suffixes=",".join(known_suffixes()),
        archives=",".join(ARCHIVE_SUFFIXES),
    )


@router.get("/ask")
def show_ask(request: Request, models: Models) -> HTMLResponse:
    return render(request, "ask.html", models=writers(models.list()), types=list(parsers))


@router.get("/evaluate")
def show_evaluate(request: Request, models: Models) -> HTMLResponse:
    return render(request, "evaluate.html", models=writers(models.list()))


@router.get("/chat")
def show_chat(request: Request, models: Models) -> HTMLResponse:
    return render(request, "chat.html", models=talkers(models.list()))


@router.get("/system")
async def show_system(request: Request, container: ContainerDep) -> HTMLResponse:
    settings = container.settings
    facts = {
        "address": settings.host,
        "keys": len(settings.api_keys),
        "limit": bytes_text(settings.upload_limit_bytes),
    }
    system = await run_sync(system_view, settings, await model_server_view(container.model_client))
    return render(request, "system.html", system=system, facts=facts)


@router.get("/docs")
def show_docs(request: Request) -> HTMLResponse:
    return render(request, "docs.html")


@router.get("/favicon.ico")
def get_favicon() -> FileResponse:
    return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml")


@dataclass(frozen=True)
class LineageNode:
    model: ModelInfo
    children: list[LineageNode] = field(default_factory=list)


def lineage_tree(models: Sequence[ModelInfo]) -> list[LineageNode]:
    """Return the models as trees, each under the one it was built on; the order of ``models`` is kept."""
    nodes = {model.id: LineageNode(model) for model in models}
    roots: list[LineageNode] = []
    for node in nodes.values():
        parent = nodes.get(node.model.parent_id or "")
        (parent.children if parent is not None else roots).append(node)
    return roots


def lineage_of(info: ModelInfo, known: Mapping[str, ModelInfo]) -> list[ModelInfo]:
    """Return the models from the one it all began with down to this one."""
    return [known[id] for id in lineage(info, known) if id in known]


@dataclass(frozen=True)
class ChainedModel:
    """A model that a next task may go on from."""

    model: ModelInfo
    base_id: str
    """The whole model that its chain stays with."""
    number: int
    children: list[str]
    """Names of those that have gone on from it already."""


def chained_models(chains: Sequence[ChainView], models: Sequence[ModelInfo]) -> list[ChainedModel]:
    """Return what runs may go on from, newest first; those with nothing after them come before the others."""
    known = {model.id: model for model in models}
    found = []
    for view in chains:
        links = {link.link: link for link in view.links}
        for link in view.links:
            model = known.get(link.model.id) if link.model else None
            if model is not None:
                after = [links[name] for name in link.children]
                children = [each.model.name if each.model else each.link for each in after]
                base_id = model.id if view.space == "full" else (model.parent_id or "")
                found.append(ChainedModel(model, base_id, link.number, children))
    return sorted(found, key=lambda each: (not each.children, each.model.id), reverse=True)


def talkers(models: Sequence[ModelInfo]) -> list[ModelInfo]:
    """Return the models that can answer."""
    return [model for model in models if model.can_answer]


def writers(models: Sequence[ModelInfo]) -> list[ModelInfo]:
    """Return the models that can write answers from documents: prompts are measured first, which needs a tokenizer."""
    return [model for model in talkers(models) if model.has_files]


def suggested_pair(models: Sequence[ModelInfo]) -> tuple[str, str] | None:
    """Return the ids of the newest tuned model and of what it started from: the comparison most wanted."""
    known: Mapping[str, ModelInfo] = {model.id: model for model in models}
    for model in models:
        if model.parent_id in known:
            return str(model.parent_id), model.id
    return None
