"""A model's chat template as an Ollama Modelfile. Ollama's templates are another language: the parts around each
message are found by rendering marks, and the result is used only if it rebuilds what the model's own template writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from terakoya.domain.datasets import Message
from terakoya.exceptions import InvalidConfig

_MARKS = {"system": "⟦s⟧", "user": "⟦u⟧", "assistant": "⟦a⟧"}
Render = Callable[[Sequence[Message], bool], str]
"""Messages, and whether an answer is to begin -> text."""


@dataclass(frozen=True, slots=True)
class TurnParts:
    before: dict[str, str]
    """Role -> what stands before its text."""
    after: dict[str, str]
    opening: str
    """Before an answer."""
    without_system: str
    """Stands first where no system message does."""

    def render(self, messages: Sequence[Message]) -> str:
        start = "" if messages and messages[0].role == "system" else self.without_system
        turns = [self.before[part.role] + part.content + self.after[part.role] for part in messages]
        return start + "".join(turns) + self.opening


def turn_parts(render: Render) -> TurnParts:
    """Raises: InvalidConfig if the template does more than put the same text around each turn."""
    system, user = Message("system", _MARKS["system"]), Message("user", _MARKS["user"])
    answer = Message("assistant", _MARKS["assistant"])
    whole = render([system, user, answer, user], False)
    opened = render([system, user, answer, user], True)
    refused = InvalidConfig("the model's chat template does more than an Ollama template can be written for here")
    if not opened.startswith(whole) or any(whole.count(mark) < 1 for mark in _MARKS.values()):
        raise refused
    first, rest = whole.split(_MARKS["system"], 1)
    between_su, rest = rest.split(_MARKS["user"], 1)
    between_ua, rest = rest.split(_MARKS["assistant"], 1)
    between_au, last = rest.split(_MARKS["user"], 1)
    if not between_su.startswith(last):
        raise refused
    before_user = between_su[len(last) :]
    opening = opened[len(whole) :]
    parts = TurnParts(
        before={"system": first, "user": before_user, "assistant": between_ua[len(last) :]},
        after={"system": last, "user": last, "assistant": between_au.removesuffix(before_user)},
        opening=opening,
        without_system=render([user], False).split(_MARKS["user"], 1)[0].removesuffix(before_user),
    )
    for messages in ([system, user], [user], [user, answer, user], [system, user, answer, user]):
        if parts.render(messages) != render(messages, True):
            raise refused
    return parts


def modelfile(parts: TurnParts, *, file: str, stops: Sequence[str], license: str) -> str:
    """Return the text of a Modelfile beside the weights."""
    roles = "".join(
        f'{{{{ {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}'
        f"{parts.before[role]}{{{{ .Content }}}}{parts.after[role]}"
        for number, role in enumerate(_MARKS)
    )
    start = ""
    if parts.without_system:
        start = (
            f'{{{{ if or (not .Messages) (ne (index .Messages 0).Role "system") }}}}{parts.without_system}{{{{ end }}}}'
        )
    template = f"{start}{{{{ range .Messages }}}}{roles}{{{{ end }}}}{{{{ end }}}}{parts.opening}"
    lines = [f"FROM ./{file}", f'TEMPLATE """{template}"""', *(f'PARAMETER stop "{stop}"' for stop in stops)]
    return "\n".join([*lines, f'LICENSE """{license}"""', ""])
