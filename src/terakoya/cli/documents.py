"""``terakoya documents``: what the server answers from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terakoya.cli.document_adding import status_word
from terakoya.cli.output import (
    JsonOption,
    YesOption,
    json_wanted,
    print_info,
    print_json,
    print_table,
    remark,
    size_text,
)
from terakoya.cli.texts import _
from terakoya.exceptions import InvalidConfig

FAILED = 1
app = typer.Typer(help=_("Documents to ask."), no_args_is_help=True, rich_markup_mode=None)
DocumentArgument = Annotated[str, typer.Argument(help=_("Id of the document."), show_default=False)]
CollectionOption = Annotated[str, typer.Option(help=_("Name or id of the collection."))]


@app.command(
    "add",
    help=_(
        "Add files (PDF, Word, PowerPoint, Excel, CSV, JSON, HTML, Markdown, text), all in a folder, or in an archive."
    ),
)
def add(
    paths: Annotated[
        list[Path], typer.Argument(help=_("Files, folders, and archives (.zip, .tar.gz)."), show_default=False)
    ],
    collection: CollectionOption = "default",
    title: Annotated[str | None, typer.Option(help=_("Title of a single file; by default its own."))] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help=_("Stay until they can be asked."))] = True,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.document_adding import Adding, say_summary
    from terakoya.cli.document_files import files_to_add

    found = files_to_add(paths)
    if title is not None and (len(found.files) != 1 or found.archives):
        raise InvalidConfig(f"--title is of one file; got {len(found.files) + len(found.archives)} files")
    with connect() as connection:
        adding = Adding(connection.client, collection=collection)
        adding.send(found, title=title, replaces=None)
        if wait:
            adding.wait()
        elif adding.accepted and connection.is_temporary:
            remark(_("The server of this command stops now; the next one goes on with these documents."))
    summary = adding.summary(found.passed_over)
    if json_wanted():
        print_json({"documents": adding.results, "summary": summary})
    elif len(adding.results) + found.passed_over > 1:
        say_summary(summary)
    if adding.has_failed:
        raise typer.Exit(FAILED)


@app.command("replace", help=_("Put a new version in a document's place; the former one stays listed."))
def replace(
    document: DocumentArgument,
    file: Annotated[Path, typer.Argument(help=_("The new version."), show_default=False)],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help=_("Stay until it can be asked."))] = True,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect
    from terakoya.cli.document_adding import Adding
    from terakoya.cli.document_files import FilesToAdd, FileToAdd

    with connect() as connection:
        adding = Adding(connection.client, collection="")
        adding.send(FilesToAdd([FileToAdd(file)]), title=None, replaces=document)
        if wait:
            adding.wait()
    if json_wanted():
        print_json(adding.results[0])
    if adding.has_failed:
        raise typer.Exit(FAILED)


@app.command("versions", help=_("List the versions of a document."))
def versions(document: DocumentArgument, json_output: JsonOption = False) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        found = connection.client.documents.versions(document)
    if json_wanted():
        print_json({"documents": found})
        return
    print_table(
        (_("version"), _("id"), _("status"), _("added"), _("file"), _("size")),
        [
            (
                info["version"],
                info["id"],
                status_word(info["status"]),
                info["created_at"][:16].replace("T", " "),
                info["filename"],
                size_text(info["size_bytes"]),
            )
            for info in found
        ],
        empty="",
    )


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
                status_word(document["status"]),
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


@app.command("tag", help=_("Set a document's tags, by which questions can choose documents."))
def tag(
    document: DocumentArgument,
    tags: Annotated[list[str] | None, typer.Argument(help=_("Tags; none takes them away."), show_default=False)] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    with connect() as connection:
        info = connection.client.documents.set_tags(document, tags or [])
    print_info(info)


@app.command("delete", help=_("Delete documents with all that was made of them."))
def delete(
    documents: Annotated[list[str], typer.Argument(help=_("Ids of documents."), show_default=False)],
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    receipts: list[dict[str, Any]] = []
    with connect() as connection:
        found = [connection.client.documents.get(document) for document in documents]
        for info in found:
            if not yes:
                typer.confirm(_("Delete document %(title)s?", title=info["title"]), abort=True, err=True)
            receipts.append(connection.client.documents.delete(info["id"]))
            remark(_("Deleted %(name)s.", name=info["title"]))
            remark(_receipt_text(receipts[-1]))
    if json_wanted():
        print_json({"deleted": [info["id"] for info in found], "receipts": receipts})


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


def _receipt_text(receipt: dict[str, Any]) -> str:
    vectors = "?" if receipt["vectors"] is None else f"{receipt['vectors']:,}"
    text = _(
        "  %(files)s files (%(size)s), %(characters)s characters of text, %(passages)s passages, %(vectors)s vectors",
        files=receipt["files"],
        size=size_text(receipt["file_bytes"]),
        characters=f"{receipt['characters']:,}",
        passages=f"{receipt['passages']:,}",
        vectors=vectors,
    )
    later = _("; the search index is cleared once it can be reached, no search finds any of it")
    return text if receipt["index_cleared"] else text + later
