"""``terakoya chat``: a conversation with one model. On a terminal it goes on until the person ends it; with
``--prompt`` or a pipe it is one question and one answer.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terakoya.cli.output import JsonOption, json_wanted, print_error, print_json, remark, say
from terakoya.cli.texts import _
from terakoya.exceptions import AppException, InvalidConfig, ModelNotFound

if TYPE_CHECKING:
    from terakoya.client.client import Client

Turn = dict[str, Any]
MAX_PIPED_CHARACTERS = 32_000


def chat(
    model: Annotated[
        str | None,
        typer.Argument(help=_("Name or id of the model; by default the newest."), show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help=_("One question; its answer is printed."))
    ] = None,
    system: Annotated[str | None, typer.Option(help=_("Instruction before the conversation."))] = None,
    max_tokens: Annotated[int, typer.Option(help=_("Length of an answer at most."), min=1)] = 512,
    temperature: Annotated[float, typer.Option(help=_("0 always takes the likeliest word."), min=0.0)] = 0.0,
    seed: Annotated[int | None, typer.Option(help=_("Seed for temperatures above 0."), min=0)] = None,
    json_output: JsonOption = False,
) -> None:
    from terakoya.cli.connection import connect

    question = prompt if prompt is not None else _piped()
    if question is None and json_wanted():
        raise InvalidConfig("--json needs a question: give --prompt TEXT, or pipe it in")
    options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    messages: list[Turn] = [{"role": "system", "content": system}] if system else []
    with connect() as connection:
        name = _chosen(connection.client, model)
        if question is None:
            _talk(connection.client, name, messages, options)
        else:
            messages.append({"role": "user", "content": question})
            _answer_once(connection.client, name, messages, options)


def _piped() -> str | None:
    """Return what is piped in; None where a person sits at a terminal. Raises: InvalidConfig if it is too long."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    text = sys.stdin.read(MAX_PIPED_CHARACTERS + 1)
    if not text.strip() or len(text) > MAX_PIPED_CHARACTERS:
        raise InvalidConfig(
            f"a question has 1 to {MAX_PIPED_CHARACTERS} characters; the input has "
            f"{'none' if not text.strip() else 'more'}: give --prompt TEXT, or pipe a shorter text"
        )
    return text.rstrip("\n")


def _chosen(client: Client, model: str | None) -> str:
    """Return the name of the model asked for, else of the newest. Raises: ModelNotFound."""
    if model is not None:
        return str(client.models.get(model)["name"])
    for info in client.models.list():
        if info["kind"] != "embedder":
            return str(info["name"])
    raise ModelNotFound("there is no model yet; fetch one: terakoya models pull smollm2-135m-instruct-q4_1")


def _answer_once(client: Client, model: str, messages: list[Turn], options: dict[str, Any]) -> None:
    pieces = client.chat(model, messages, **options)
    if json_wanted():
        print_json({"model": model, "answer": "".join(pieces)})
    else:
        _write(pieces)


def _talk(client: Client, model: str, messages: list[Turn], options: dict[str, Any]) -> None:
    """Ask and answer until the input ends. Ctrl-C stops an answer; at the prompt it ends the conversation."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives the prompt its line editing
    remark(_("You talk with %(model)s. /new begins anew, /bye or Ctrl-D ends.", model=model))
    kept = len(messages)
    while (question := _read_line()) is not None:
        if question == "/new":
            del messages[kept:]
            remark(_("A new conversation."))
        elif question:
            _take_turn(client, model, messages, question, options)


def _take_turn(client: Client, model: str, messages: list[Turn], question: str, options: dict[str, Any]) -> None:
    """Ask; a question that failed is taken back, so that the next one is not asked behind it."""
    messages.append({"role": "user", "content": question})
    try:
        answer = _write(client.chat(model, messages, **options))
    except AppException as error:
        messages.pop()
        print_error(error)
    else:
        messages.append({"role": "assistant", "content": answer})


def _read_line() -> str | None:
    """Return the next question, "" for an empty line, None at the end."""
    try:
        line = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        say("")
        return None
    return None if line in ("/bye", "/exit", "/quit") else line


def _write(pieces: Generator[str, None, None]) -> str:
    """Print the pieces as they come and return the whole; Ctrl-C stops the answer and keeps what is there."""
    answer = ""
    with closing(pieces):
        try:
            for piece in pieces:
                answer += piece
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            print(" …", end="")
    say("")
    return answer
