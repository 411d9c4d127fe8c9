"""``terakoya serve``: the web process. Owns the order of starting: settings, data folder, port, application."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from terakoya.cli.output import say
from terakoya.cli.settings import read_settings
from terakoya.cli.texts import _


def serve(
    host: Annotated[str | None, typer.Option(help=_("Address to listen on; other than loopback needs a key."))] = None,
    port: Annotated[int | None, typer.Option(help=_("Port; 0 takes a free one. [default: 8050]"))] = None,
    data_dir: Annotated[Path | None, typer.Option(help=_("Folder for database, models and data."))] = None,
    exit_on_eof: Annotated[bool, typer.Option("--exit-on-eof", hidden=True)] = False,
) -> None:
    """Start the server and stay in the foreground until it is stopped."""
    from terakoya.cli.web_server import WebServer, address_of, bind
    from terakoya.security.keys import check_bind
    from terakoya.storage.files import DataDir
    from terakoya.utils.logger import configure_logging

    settings = read_settings(host=host, port=port, data_dir=data_dir)
    check_bind(settings.host, has_keys=bool(settings.api_keys))
    configure_logging(level=settings.log_level)
    if settings.log_level == "info":
        for library in ("alembic", "uvicorn"):  # they tell at length that all goes as it should
            logging.getLogger(library).setLevel(logging.WARNING)
    with DataDir(settings.data_dir).create().lock() as lock, bind(settings.host, settings.port) as bound:
        # Imported once nothing stands in the way: a taken port is told at once.
        from terakoya.bootstrap import build_container
        from terakoya.web.app import create_app

        url = address_of(bound, settings.host)

        def announce() -> None:
            lock.announce(url)
            say(_("Terakoya is ready at %(url)s (stop with Ctrl-C)", url=url))

        server = WebServer(create_app(build_container(settings)), on_ready=announce)
        if not server.serve_until_stopped(bound, exit_on_eof=exit_on_eof):
            raise typer.Exit(1)
