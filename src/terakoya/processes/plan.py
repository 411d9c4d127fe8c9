"""Entry point: tokenises a data set for a plan, in a process that is limited in memory, killed on time and without
torch. A chat template comes with a model and is a program, so it runs here as it does in training, and nowhere in
the web process.

Reads one JSON object from standard input, ``{"spec", "seconds", "memory_bytes", "parent"}``; writes the facts, or
``{"error", "code"}``, to standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from typing import Any

from terakoya.exceptions import AppException, InvalidConfig, ModelLoadError
from terakoya.processes.prompts import TEMPLATE_REFUSALS, import_transformers
from terakoya.security.confinement import die_first, die_with_parent, limit_resources

_OPEN_FILES = 256
_RESULT_BYTES = 1 << 30
_GRACE_SECONDS = 30


def main() -> None:
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    die_first()
    die_with_parent(request["parent"])
    import_transformers()
    limit_resources(
        memory_bytes=request["memory_bytes"],
        cpu_seconds=int(request["seconds"]) + _GRACE_SECONDS,
        file_bytes=_RESULT_BYTES,
        open_files=_OPEN_FILES,
    )
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as result, contextlib.redirect_stdout(sys.stderr):
        json.dump(answer(request), result)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from terakoya.models.artifacts import check_folder
    from terakoya.training.plan_facts import gather_facts
    from terakoya.training.spec import RunSpec

    spec = RunSpec.from_json(request["spec"])
    folder = spec.model.root.path
    try:
        check_folder(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except AppException as error:
        return _error(error)
    except (OSError, MemoryError, *TEMPLATE_REFUSALS) as error:
        return _error(ModelLoadError(f"the model's tokenizer cannot be opened: {type(error).__name__}: {error}"))
    try:
        return gather_facts(spec, tokenizer, seconds=request["seconds"])
    except AppException as error:
        return _error(error)
    except MemoryError:
        return _error(ModelLoadError("the data set and the model's chat template need more memory than a plan may use"))
    except TEMPLATE_REFUSALS as error:
        traceback.print_exc()
        return _error(
            InvalidConfig(f"the model's chat template cannot write this data: {type(error).__name__}: {error}")
        )


def _error(error: AppException) -> dict[str, Any]:
    return {"error": str(error)[:2000], "code": error.code}


if __name__ == "__main__":
    main()
