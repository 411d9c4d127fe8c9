"""Puts the application together: routers, pages, the guard around them, and the life of the background work.
Knows no route by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from terakoya import __version__
from terakoya.api import (
    chains,
    datasets,
    models,
    openai,
    openai_completions,
    openai_embeddings,
    openai_rerank,
    rag_answers,
    rag_documents,
    rag_evaluation,
    system,
    tasks,
    training,
)
from terakoya.bootstrap import Container
from terakoya.config import Settings
from terakoya.security.guard import allowed_names
from terakoya.security.keys import KeyRing
from terakoya.web import errors, login, pages
from terakoya.web.middleware import Access, BodyCap, Guard, RequestHeaders
from terakoya.web.rendering import STATIC


class WebApp(FastAPI):
    """FastAPI with the guard outermost: even its own failures pass out through it, and nothing passes in around it."""

    def build_middleware_stack(self) -> ASGIApp:
        return RequestHeaders(Guard(BodyCap(super().build_middleware_stack()), self.state.access))


def create_app(container: Container) -> FastAPI:
    """Return the application; its lifespan runs the container's background work."""
    settings = container.settings
    app = WebApp(
        title="Terakoya",
        version=__version__,
        description="Teach a language model your team's work, keep what it knew, and ask your own documents.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.container = container
    app.state.language = settings.language
    app.state.access = access_for(settings)
    errors.install(app)
    for part in (
        *(training, chains, tasks, datasets, rag_documents, rag_answers, rag_evaluation, models),
        *(openai, openai_completions, openai_embeddings, openai_rerank, system, login, pages),
    ):
        app.include_router(part.router)
    app.mount("/static", RevalidatedFiles(directory=STATIC), name="static")
    return app


def access_for(settings: Settings) -> Access:
    return Access(
        names=allowed_names(settings.host, settings.allowed_hosts),
        keys=KeyRing(key.get_secret_value() for key in settings.api_keys),
    )


class RevalidatedFiles(StaticFiles):
    """Static files that browsers ask about again, so that an upgrade never mixes two versions."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    container: Container = app.state.container
    await asyncio.to_thread(container.documents.queue_forgotten)
    supervising = app.state.supervising = asyncio.create_task(container.supervisor.run())
    container.index_keeper.in_background(container.documents.reconcile(), name="reconcile documents")
    try:
        yield
    finally:
        await container.supervisor.stop()
        await supervising
        await container.parse_children.stop()
        await container.index_keeper.close()
        await container.model_client.stop()
