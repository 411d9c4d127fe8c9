"""The ``terakoya`` command: puts the nouns together and turns errors into messages and exit statuses.

0 done, 1 failed, 2 wrong usage, 3 paused while it was watched, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import terakoya
from terakoya.cli import chains, datasets, documents, evaluate, models, runs, tasks
from terakoya.cli.ask import ask
from terakoya.cli.chat import chat
from terakoya.cli.compare import compare
from terakoya.cli.demo import demo
from terakoya.cli.doctor import doctor
from terakoya.cli.output import print_error, remark
from terakoya.cli.serve import serve
from terakoya.cli.texts import _
from terakoya.cli.train import train
from terakoya.cli.why import trace, why
from terakoya.exceptions import AppException

FAILED = 1
INTERRUPTED = 130

# Plain help: importing rich would cost more than everything else that --help does.
app = typer.Typer(
    name="terakoya",
    help=_("Teach a language model your team's work, and see what it learnt."),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve", help=_("Start the server and stay in the foreground until it is stopped."))(serve)
app.command("train", help=_("Tune a model on a dataset."))(train)
app.add_typer(runs.app, name="runs")
app.add_typer(tasks.app, name="tasks")
app.add_typer(models.app, name="models")
app.add_typer(chains.app, name="chains")
app.add_typer(datasets.app, name="datasets")
app.add_typer(documents.app, name="documents")
app.add_typer(evaluate.app, name="evaluate")
app.command("ask", help=_("Ask the documents; the answer has citations, or says that they do not hold it."))(ask)
app.command("why", help=_("Show where a document was lost on its way into an answer."))(why)
app.command("trace", help=_("Show what a question did: stages, seconds, ranks and scores."))(trace)
app.command("chat", help=_("Talk with a model: at the terminal, or one question by --prompt or a pipe."))(chat)
app.command("compare", help=_("Put one prompt to several models and show their answers."))(compare)
app.command("demo", help=_("Go the whole way once with samples: train, chat, index documents, ask them."))(demo)
app.command("doctor", help=_("Show what this machine offers and what stands in the way."))(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(terakoya.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help=_("Print the version."), callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the noun."""


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        app(standalone_mode=True)
    except AppException as error:
        print_error(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        remark(_("Interrupted."))
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
