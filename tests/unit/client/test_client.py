from __future__ import annotations

import subprocess
import sys

import pytest

from terakoya import Client
from terakoya.exceptions import InvalidConfig, InvalidDataset, Unavailable, UnreadableDocument


def test_importing_the_package_loads_no_http_client() -> None:
    code = "import sys, terakoya; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    code = "from terakoya import Clint"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: cannot import name 'Clint'" in answer.stderr


def test_no_server_is_a_clear_error() -> None:
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(Unavailable, match="terakoya serve"):
            client.models.list()
        assert not client.is_ready()


@pytest.mark.parametrize("address", ["127.0.0.1:8050", "ftp://host", "", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfig, match="must look like"):
        Client(address)


def test_a_missing_file_is_told_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(InvalidDataset, match=r"nowhere\.jsonl"):
        client.datasets.add("nowhere.jsonl")


def test_a_missing_document_is_told_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(UnreadableDocument, match=r"nowhere\.pdf"):
        client.documents.add("nowhere.pdf")
