"""``terakoya documents``: what the server answers from. Files go up one after the other and are indexed by the server,
some at a time; each is shown until it is ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terakoya.cli.output import (
    JsonOption,
    YesOption,
    json_wanted,
    print_info,
    print_json,
    print_table,
    remark,
    say,
    size_text,
)
from terakoya.cli.texts import _, explain, shared
from terakoya.exceptions import AppException, InvalidConfig, StorageFull, Unauthorized, Unavailable, UnreadableDocument

if TYPE_CHECKING:
    from terakoya.client.client import Client

FAILED = 1
app = typer.Typer(help=_("Documents to ask."), no_args_is_help=True, rich_markup_mode=None)
DocumentArgument = Annotated[str, typer.Argument(help=_("Id of the document."), show_default=False)]
CollectionOption = Annotated[str, typer.Option(help=_("Name or id of the collection."))]


@app.command(
    "add",
    help=_("Add files (PDF, Word, PowerPoint, Excel, CSV, JSON, HTML, Markdown, text), or all of them in a folder."),
)
def add(
    paths: Annotated[list[Path], typer.Argument(help=_("Files and folders."), show_default=False)],
    collection: CollectionOption = "default",
    title: Annotated[str | None, typer.Option(help=_("Title of a single file; by default its own."))] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help=_("Stay until they can be asked."))] = True,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    files = list(_files(paths))
    if title is not None and len(files) != 1:
        raise InvalidConfig(f"--title is of one file; got {len(files)} files")
    with connect() as connection:
        client = connection.client
        sent = [_sent(client, path, collection=collection, title=title) for path in files]
        accepted = [one for one in sent if "document_id" in one]
        if wait:
            for one in accepted:
                one |= _ready(client, one)
        elif accepted and connection.is_temporary:
            remark(_("The server of this command stops now; the next one goes on with these documents."))
    if json_wanted():
        print_json({"documents": sent})
    if any(one["status"] in ("failed", "refused") for one in sent):
        raise typer.Exit(FAILED)


@app.command("list", help=_("List documents."))
def list_documents(
    collection: Annotated[str | None, typer.Option(help=_("Only those of this collection."))] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        documents = connection.client.documents.list(collection=collection)
    if json_wanted():
        print_json({"documents": documents})
        return
    print_table(
        (_("id"), _("title"), _("collection"), _("status"), _("passages"), _("size")),
        [
            (
                document["id"],
                document["title"],
                document["collection"],
                _status(document["status"]),
                f"{document['passages']:,}",
                size_text(document["size_bytes"]),
            )
            for document in documents
        ],
        empty=_("There are no documents yet. Add some: terakoya documents add FILE"),
    )


@app.command("show", help=_("Show one document."))
def show(document: DocumentArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.documents.get(document)
    print_info(info)


@app.command("delete", help=_("Delete documents with all that was made of them."))
def delete(
    documents: Annotated[list[str], typer.Argument(help=_("Ids of documents."), show_default=False)],
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = [connection.client.documents.get(document) for document in documents]
        for info in found:
            if not yes:
                typer.confirm(_("Delete document %(title)s?", title=info["title"]), abort=True, err=True)
            connection.client.documents.delete(info["id"])
            remark(_("Deleted %(name)s.", name=info["title"]))
    if json_wanted():
        print_json({"deleted": [info["id"] for info in found]})


@app.command("rebuild", help=_("Make a collection's search index anew from the database."))
def rebuild(
    collection: Annotated[str, typer.Argument(help=_("Name or id of the collection."))] = "default",
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.follow import follow

    with connect() as connection:
        follow(connection, connection.client.collections.rebuild(collection))


@app.command("collections", help=_("List collections; make or delete one."))
def collections(
    create: Annotated[str | None, typer.Option(help=_("Make a collection of this name."))] = None,
    remove: Annotated[
        str | None, typer.Option("--delete", help=_("Delete this collection with every document in it."))
    ] = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        if create is not None:
            connection.client.collections.create(create)
        if remove is not None:
            info = connection.client.collections.get(remove)
            if not yes:
                question = _(
                    "Delete collection %(name)s with %(count)s documents?", name=info["name"], count=info["documents"]
                )
                typer.confirm(question, abort=True, err=True)
            connection.client.collections.delete(info["id"])
        found = connection.client.collections.list()
    if json_wanted():
        print_json({"collections": found})
        return
    print_table(
        (_("name"), _("documents"), _("passages"), _("id")),
        [(info["name"], f"{info['documents']:,}", f"{info['passages']:,}", info["id"]) for info in found],
        empty=_("There are no collections yet; the first document makes one."),
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files as they are named, and those of a folder that can be read, in order.

    Raises: UnreadableDocument if a path is not there, or a folder holds none.
    """
    from terakoya.rag.indexing.parsers import known_suffixes

    for path in paths:
        if path.is_file():
            yield path
            continue
        if not path.is_dir():
            raise UnreadableDocument(f"there is no file or folder {str(path)!r}")
        suffixes = known_suffixes()
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        if not found:
            raise UnreadableDocument(f"the folder {str(path)!r} holds no file of these types: {', '.join(suffixes)}")
        yield from found


def _sent(client: Client, path: Path, *, collection: str, title: str | None) -> dict[str, Any]:
    """Send one file; one that is not taken does not keep the others. Raises: what will happen to the others too."""
    remark(_("Sending %(name)s ...", name=path.name))
    try:
        accepted = client.documents.add(path, collection=collection, title=title)
    except (Unavailable, Unauthorized, StorageFull):
        raise
    except AppException as error:
        if error.status == 404:
            raise
        remark(_("%(name)s: %(error)s", name=path.name, error=explain("error", error.code, error)))
        return {"file": str(path), "status": "refused", "error": str(error), "error_code": error.code}
    if accepted["duplicate"]:
        remark(_("%(name)s is there already.", name=path.name))
    return {"file": str(path), "status": "queued"} | accepted


def _ready(client: Client, accepted: dict[str, Any]) -> dict[str, Any]:
    """Show a document until its task has ended, then what became of it."""
    from terakoya.cli.progress import show_events

    document = client.documents.get(accepted["document_id"])
    if document["status"] in ("queued", "indexing") and document["task_id"]:
        remark(document["filename"])
        events = client.watch(document["task_id"])
        if json_wanted():
            for _event in events:
                pass
        else:
            show_events(events)
        document = client.documents.get(document["id"])
    if not json_wanted():
        _say_result(document)
    return {name: document[name] for name in ("status", "title", "passages", "error", "error_code")}


def _say_result(document: dict[str, Any]) -> None:
    if document["status"] == "ready":
        say(_("%(title)s: %(passages)s passages, id %(id)s", **document))
    else:
        reason = explain("error", document["error_code"] or "", document["error"] or _status(document["status"]))
        say(_("%(name)s: %(error)s", name=document["filename"], error=reason))
    for notice in document["notices"]:
        remark(f"  {notice}")


def _status(status: str) -> str:
    """Return the word for a document's status; those it shares with tasks are in the pages' catalogue."""
    own = {"indexing": _("indexing"), "ready": _("ready")}
    return own.get(status) or shared(f"state.{status}")
