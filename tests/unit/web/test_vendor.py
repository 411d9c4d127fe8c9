from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

VENDOR = Path(__file__).parents[3] / "src" / "terakoya" / "web" / "static" / "vendor"


def test_vendored_files_are_those_of_their_packages() -> None:
    """HASHES.json holds the SHA-256 of each file as it is in the published npm package."""
    recorded = json.loads((VENDOR / "HASHES.json").read_text("utf-8"))
    known = {
        f"{name}/{path}": digest for name, package in recorded.items() for path, digest in package["files"].items()
    }
    present = {
        path.relative_to(VENDOR).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "HASHES.json"
    }
    assert present == known


def test_each_vendored_package_has_its_version_and_licence() -> None:
    recorded = json.loads((VENDOR / "HASHES.json").read_text("utf-8"))
    for name, package in recorded.items():
        assert package["version"]
        assert (VENDOR / name / "LICENSE").read_text("utf-8").strip()
