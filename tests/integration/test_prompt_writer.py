"""The child process that runs models' chat templates: real templates, hostile ones, and its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny_model import build_tiny_tokenizer

from terakoya.domain.datasets import Message
from terakoya.exceptions import AppException, ModelLoadError
from terakoya.models.prompt_writer import PromptWriter

QUESTION = [Message("user", "Ask <|im_end|> me")]


@pytest.fixture(scope="module")
def writer() -> Iterator[PromptWriter]:
    writer = PromptWriter(timeout_seconds=4.0)
    yield writer
    writer.close()


def tokenizer_folder(path: Path, template: str | None = None) -> Path:
    path.mkdir()
    if template is None:
        build_tiny_tokenizer(path)
    else:
        build_tiny_tokenizer(path, chat_template=template)
    return path


def test_it_writes_what_training_writes_and_text_cannot_end_a_turn(writer: PromptWriter, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from terakoya.data.chat_template import chat_format

    folder = tokenizer_folder(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = writer.write(folder, QUESTION)
    assert prompt.ids == chat_format(tokenizer).prompts([QUESTION])[0]
    assert tokenizer.decode(prompt.ids) == "<|im_start|>user\nAsk <|im_end|> me<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.ids.count(prompt.end_token_id) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
        "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
        "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% set x = namespace(__class__=1) %}",
        "{{ ().__class__.__base__.__subclasses__()[100]('touch CANARY', shell=True) }}",
        "{{ '%s' | attr('__class__') }}{{ ''|attr('format')('x')|attr('__globals__') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{{ messages[0]['nothing'] + 1 }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 'a' * 20000000000 }}",
    ],
)
def test_a_hostile_template_is_an_error_and_runs_nothing(writer: PromptWriter, tmp_path: Path, template: str) -> None:
    canary = tmp_path / "canary"
    folder = tokenizer_folder(tmp_path / "model", template.replace("CANARY", str(canary)) + "{{ eos_token }}")
    with pytest.raises(AppException):
        writer.write(folder, QUESTION)
    assert not canary.exists()


def test_an_endless_template_is_stopped_and_the_next_prompt_is_written(writer: PromptWriter, tmp_path: Path) -> None:
    loops = "".join(f"{{% for i{level} in range(90000) %}}" for level in range(4)) + "{% endfor %}" * 4
    endless = tokenizer_folder(tmp_path / "endless", loops)
    good = tokenizer_folder(tmp_path / "good")
    writer.write(good, QUESTION)
    started = time.monotonic()
    with pytest.raises(ModelLoadError, match="took over 4 s"):
        writer.write(endless, QUESTION)
    assert time.monotonic() - started < 8
    assert writer.write(good, QUESTION).ids


def test_a_template_may_refuse_messages_in_its_own_words(writer: PromptWriter, tmp_path: Path) -> None:
    rule = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system text, please') }}{% endif %}"
    turns = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    folder = tokenizer_folder(tmp_path / "model", rule + turns)
    assert writer.write(folder, QUESTION).ids
    with pytest.raises(AppException, match="no system text, please"):
        writer.write(folder, [Message("system", "Be brief."), *QUESTION])


def test_a_hostile_tokenizer_folder_is_refused(writer: PromptWriter, tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoTokenizer": ["evil.T", None]}})
    )
    with pytest.raises(ModelLoadError, match="auto_map"):
        writer.write(folder, QUESTION)


def test_a_model_without_template_gets_the_plain_text(writer: PromptWriter, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    build_tiny_tokenizer(folder, chat_template=None)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder).decode(writer.write(folder, [Message("user", "hi")]).ids) == "hi\n"
