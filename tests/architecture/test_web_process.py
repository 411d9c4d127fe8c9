from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")


def test_the_web_process_imports_nothing_that_trains() -> None:
    code = f"import sys, json, terakoya.web.app; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(answer.stdout) == []
