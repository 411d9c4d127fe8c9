"""Sends documents to the server and tells what became of each: only what has changed, with one bar over many files,
and a summary. Knows nothing of commands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terakoya.cli.document_files import FilesToAdd, FileToAdd, sha256_of
from terakoya.cli.output import console, json_wanted, remark, say
from terakoya.cli.texts import _, explain, shared
from terakoya.exceptions import AppException, StorageFull, Unauthorized, Unavailable

if TYPE_CHECKING:
    from terakoya.client.client import Client

ASKED_AT_ONCE = 500
MANY = 4
"""From so many files on, one bar stands for all of them."""
_BAD = frozenset({"failed", "refused", "cancelled"})
Result = dict[str, Any]


class Adding:
    """What becomes of each file, in ``results``."""

    def __init__(self, client: Client, *, collection: str) -> None:
        self.results: list[Result] = []
        self._client = client
        self._collection = collection
        self._many = False

    @property
    def has_failed(self) -> bool:
        return any(one["status"] in _BAD for one in self.results)

    @property
    def accepted(self) -> list[Result]:
        return [one for one in self.results if one["status"] == "queued"]

    def send(self, found: FilesToAdd, *, title: str | None, replaces: str | None) -> None:
        """Raises: what would happen to every other file too."""
        self._many = len(found.files) >= MANY
        changed = self._changed(found.files)
        with _bar(_("Sending"), len(changed), shown=self._many) as advance:
            for file in changed:
                self._send(file, title=title, replaces=replaces)
                advance()
        for archive in found.archives:
            self._send_archive(archive)
        for path, kind in found.refused.items():
            reason = _("links are not followed") if kind == "link" else _("an archive in the folder; add it by itself")
            self._refused(path, reason, "unreadable_document")

    def wait(self) -> None:
        """Stay until each is ready or has failed."""
        waiting = self.accepted
        with _bar(_("Indexing"), len(waiting), shown=len(waiting) >= MANY) as advance:
            for one in waiting:
                one |= self._end_of(one, alone=len(waiting) < MANY)
                advance()

    def summary(self, passed_over: int) -> dict[str, int]:
        counts = Counter(one["outcome"] if one["status"] not in _BAD else one["status"] for one in self.results)
        return {
            **{name: counts[name] for name in ("added", "replaced", "unchanged", "failed", "refused")},
            "other_type": counts["other_type"] + passed_over,
        }

    def _changed(self, files: Sequence[FileToAdd]) -> list[FileToAdd]:
        """Return what has to be sent; note the others."""
        of_folders = [file for file in files if file.source is not None]
        held: dict[Path, str] = {}
        for start in range(0, len(of_folders), ASKED_AT_ONCE):
            some = of_folders[start : start + ASKED_AT_ONCE]
            asked = [(str(file.source), sha256_of(file.path)) for file in some]
            ids = self._client.documents.unchanged(asked, collection=self._collection)
            held |= {file.path: found for file, found in zip(some, ids, strict=True) if found is not None}
        for file in of_folders:
            if file.path in held:
                self._note(file.path, "unchanged", document_id=held[file.path], status="unchanged")
        return [file for file in files if file.path not in held]

    def _send(self, file: FileToAdd, *, title: str | None, replaces: str | None) -> None:
        if not self._many:
            remark(_("Sending %(name)s ...", name=file.path.name))
        try:
            accepted = self._client.documents.add(
                file.path, collection=self._collection, title=title, source=file.source, replaces=replaces
            )
        except (Unavailable, Unauthorized, StorageFull):
            raise
        except AppException as error:
            if error.status == 404:
                raise
            self._refused(str(file.path), error, error.code)
            return
        if accepted["duplicate"]:
            outcome = "unchanged"
            remark(_("%(name)s is there already.", name=file.path.name))
        else:
            outcome = "replaced" if accepted.get("replaces") else "added"
        self._note(file.path, outcome, **accepted)

    def _send_archive(self, path: Path) -> None:
        remark(_("Sending %(name)s ...", name=path.name))
        try:
            entries = self._client.documents.add_archive(path, collection=self._collection)
        except (Unavailable, Unauthorized, StorageFull):
            raise
        except AppException as error:
            if error.status == 404:
                raise
            self._refused(str(path), error, error.code)
            return
        for entry in entries:
            inside = f"{path}/{entry['path']}"
            if entry["status"] == "refused":
                self._refused(inside, entry["error"], entry["error_code"])
            elif entry["status"] == "other_type":
                self._note(inside, "other_type", status="other_type")
            else:
                status = "unchanged" if entry["status"] == "unchanged" else "queued"
                ids = {name: entry[name] for name in ("document_id", "task_id")}
                self._note(inside, entry["status"], status=status, **ids)

    def _note(self, path: Path | str, outcome: str, *, status: str = "queued", **facts: Any) -> None:
        self.results.append({"file": str(path), "status": status, "outcome": outcome} | facts)

    def _refused(self, path: str, error: object, code: str) -> None:
        remark(_("%(name)s: %(error)s", name=Path(path).name, error=explain("error", code, error)))
        self._note(path, "refused", status="refused", error=str(error), error_code=code)

    def _end_of(self, accepted: Result, *, alone: bool) -> Result:
        """Show a document until its task has ended, then what became of it."""
        from terakoya.cli.progress import show_events

        document = self._client.documents.get(accepted["document_id"])
        if document["status"] in ("queued", "indexing") and document["task_id"]:
            events = self._client.watch(document["task_id"])
            if json_wanted() or not alone:
                for _event in events:
                    pass
            else:
                remark(document["filename"])
                show_events(events)
            document = self._client.documents.get(document["id"])
        if not json_wanted() and (alone or document["status"] != "ready"):
            _say_result(document)
        return {name: document[name] for name in ("status", "title", "passages", "error", "error_code")}


def say_summary(counts: dict[str, int]) -> None:
    """Print one line of what became of many files."""
    words = {
        "added": _("%(n)s added", n=f"{counts['added']:,}"),
        "replaced": _("%(n)s replaced by new versions", n=f"{counts['replaced']:,}"),
        "unchanged": _("%(n)s unchanged", n=f"{counts['unchanged']:,}"),
        "failed": _("%(n)s failed", n=f"{counts['failed']:,}"),
        "refused": _("%(n)s refused", n=f"{counts['refused']:,}"),
        "other_type": _("%(n)s of other types passed over", n=f"{counts['other_type']:,}"),
    }
    said = [words[name] for name, count in counts.items() if count]
    say(_(", ").join(said))


@contextmanager
def _bar(name: str, total: int, *, shown: bool) -> Iterator[Any]:
    """Yield what advances a bar by one; on a terminal only."""
    if not shown or not total or json_wanted() or not console(stderr=True).is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as progress:
        line = progress.add_task(name, total=total)
        yield lambda: progress.advance(line)


def _say_result(document: dict[str, Any]) -> None:
    if document["status"] == "ready":
        say(_("%(title)s: %(passages)s passages, id %(id)s", **document))
    else:
        reason = explain("error", document["error_code"] or "", document["error"] or status_word(document["status"]))
        say(_("%(name)s: %(error)s", name=document["filename"], error=reason))
    for notice in document["notices"]:
        remark(f"  {notice}")


def status_word(status: str) -> str:
    """Return the word for a document's status; those it shares with tasks are in the pages' catalogue."""
    own = {"indexing": _("indexing"), "ready": _("ready"), "replaced": _("replaced")}
    return own.get(status) or shared(f"state.{status}")
