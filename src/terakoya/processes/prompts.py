"""Entry point: writes conversations as tokens for the model server, by the same code as training. A chat template
comes with a model and is a program: the sandbox it runs in (Transformers' own) limits neither time nor memory. This
process holds nothing and can be killed.

Reads one JSON object a line, ``{"folder", "messages"}`` or ``{"folder", "text"}``; answers ``{"ids", "end_token_id"}``
or ``{"error", "code"}``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from terakoya.data.chat_template import ChatFormat, chat_format
from terakoya.domain.datasets import Message
from terakoya.exceptions import AppException, InvalidConfig, ModelLoadError
from terakoya.models.artifacts import check_folder

MEMORY_BYTES = 1 << 30
"""What a template and a tokenizer may use besides the process itself."""
TEMPLATE_REFUSALS = (TemplateError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


def main() -> None:
    import_transformers()
    _limit_memory()
    _say({"ready": True})
    for line in sys.stdin:
        _say(answer(json.loads(line)))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        written = _format_of(request["folder"])
        ids = _text(written, request["text"]) if "text" in request else _prompt(written, request["messages"])
        return {"ids": ids, "end_token_id": written.end_token_id}
    except AppException as error:
        return {"error": str(error)[:500], "code": error.code}


@functools.lru_cache(maxsize=4)
def _format_of(folder: str) -> ChatFormat:
    from transformers import AutoTokenizer

    check_folder(Path(folder))
    try:
        return chat_format(AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    except MemoryError as error:
        raise ModelLoadError(
            f"the model's tokenizer or chat template needs more than {MEMORY_BYTES >> 20} MiB"
        ) from error
    except (OSError, *TEMPLATE_REFUSALS) as error:
        raise ModelLoadError(f"the model's tokenizer cannot be opened: {type(error).__name__}: {error}") from error


def _prompt(written: ChatFormat, messages: list[dict[str, Any]]) -> list[int]:
    conversation = [Message(message["role"], message["content"]) for message in messages]
    try:
        return written.prompts([conversation])[0]
    except MemoryError as error:
        raise ModelLoadError(f"the model's chat template needs more than {MEMORY_BYTES >> 20} MiB") from error
    except TEMPLATE_REFUSALS as error:
        raise InvalidConfig(f"the model's chat template refuses these messages: {error}") from error


def _text(written: ChatFormat, text: str) -> list[int]:
    tokenizer: Any = getattr(written, "tokenizer")  # noqa: B009  both formats have one; their port does not say so
    ids: list[int] = tokenizer(text)["input_ids"]
    if not ids:
        raise InvalidConfig("the prompt is empty: it has no token to go on from")
    return ids


def import_transformers() -> None:
    # Hidden from it, since it would import torch for nothing: half the start-up time and two thirds of the memory.
    sys.modules["torch"] = None  # type: ignore[assignment]
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # it advises to install torch
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    importlib.import_module("transformers.models.auto.tokenization_auto")


def _limit_memory() -> None:
    """Linux alone says how large a process is and keeps it to a limit; elsewhere the time limit has to do."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
