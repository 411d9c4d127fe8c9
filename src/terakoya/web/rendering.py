"""Turns a template and values into a page in the reader's language. Knows nothing of what the pages show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from terakoya import __version__
from terakoya.api.schemas.errors import ErrorEnvelope
from terakoya.i18n import LANGUAGES, Catalogue, choose_language, load_catalogue
from terakoya.web.figures import (
    bytes_text,
    change_text,
    count_text,
    first_line,
    headline,
    heat,
    parameters_text,
    part_name,
    rise_text,
    score_text,
    sparkline,
    strategy_name,
    verdict_code,
)

HERE = Path(__file__).parent
STATIC = HERE / "static"
ICONS = STATIC / "vendor" / "bootstrap-icons" / "icons"
LANGUAGE_COOKIE = "terakoya_language"
NOT_PAGES = ("/api/", "/v1/", "/rag/", "/ws/", "/static/", "/healthz", "/readyz", "/metrics", "/openapi.json")


@cache
def icon(name: str) -> Markup:
    """Return a vendored icon as inline SVG, hidden from screen readers: text says what it means."""
    svg = (ICONS / f"{name}.svg").read_text(encoding="utf-8")
    return Markup(svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))  # noqa: S704 - our own file


@cache
def templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        icon=icon,
        version=__version__,
        languages=LANGUAGES,
        strategy_name=strategy_name,
        part_name=part_name,
        headline=headline,
        sparkline=sparkline,
        heat=heat,
        score_text=score_text,
        change_text=change_text,
        rise_text=rise_text,
        verdict_code=verdict_code,
    )
    environment.filters.update(bytes=bytes_text, count=count_text, parameters=parameters_text, first_line=first_line)
    return environment


def render(
    request: Request,
    template: str,
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    catalogue = catalogue_for(request)
    text = (
        templates()
        .get_template(template)
        .render(
            _=catalogue.gettext,
            language=catalogue.language,
            path=request.url.path,
            messages_json=_data_block(catalogue.for_scripts()),
            signed_in_by_key=bool(request.app.state.access.keys),
            **values,
        )
    )
    return HTMLResponse(
        text,
        status_code=status,
        headers={"cache-control": "no-store", "vary": "cookie, accept-language", **(headers or {})},
    )


def render_error(request: Request, status: int, envelope: ErrorEnvelope, headers: Mapping[str, str]) -> HTMLResponse:
    return render(request, "error.html", status=status, headers=headers, envelope=envelope, error_status=int(status))


def catalogue_for(request: Request) -> Catalogue:
    language = choose_language(
        chosen=request.cookies.get(LANGUAGE_COOKIE),
        accepted=request.headers.get("accept-language", ""),
        default=request.app.state.language,
    )
    return load_catalogue(language)


def wants_page(request: Request) -> bool:
    """Whether a person navigated here, so that an error is better shown as a page."""
    return (
        request.method == "GET"
        and not request.url.path.startswith(NOT_PAGES)
        and "text/html" in request.headers.get("accept", "")
    )


def _data_block(values: Mapping[str, str]) -> Markup:
    """JSON for a ``<script type="application/json">``: data, which nothing in it can end."""
    text = json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")
    return Markup(text)  # noqa: S704 - escaped above
