"""The Modelfile: what Ollama would write by its template must be what the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from jinja2 import Environment

from terakoya.domain.datasets import Message
from terakoya.exceptions import InvalidConfig
from terakoya.models.ollama import modelfile, turn_parts

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if opens %}<|im_start|>assistant\n{% endif %}"
)
COUNTING = "{% for m in messages %}{{ loop.index }}{{ m['content'] }}{% endfor %}{% if opens %}>{% endif %}"


def renderer(template: str) -> Callable[[Sequence[Message], bool], str]:
    compiled = Environment(autoescape=False).from_string(template)

    def render(messages: Sequence[Message], opens: bool) -> str:
        return compiled.render(messages=[{"role": m.role, "content": m.content} for m in messages], opens=opens)

    return render


def test_the_parts_rebuild_what_the_template_writes() -> None:
    render = renderer(CHATML)
    parts = turn_parts(render)
    asked = [Message("user", "寺子屋?"), Message("assistant", "yes"), Message("user", "why")]
    for messages in (asked, [Message("system", "Short."), *asked]):
        assert parts.render(messages) == render(messages, True)


def test_the_modelfile_names_weights_template_and_stop() -> None:
    text = modelfile(turn_parts(renderer(CHATML)), file="model.gguf", stops=["<|im_end|>"], license="MIT")
    assert text.startswith("FROM ./model.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n' in text.replace("else ", "")
    assert "{{-" not in text  # it would eat the line ends that belong to the turns
    assert text.count("{{ end }}") == 3


def test_a_template_that_does_more_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="does more"):
        turn_parts(renderer(COUNTING))
