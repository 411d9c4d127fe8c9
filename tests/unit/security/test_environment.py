from __future__ import annotations

from pathlib import Path

from terakoya.security.environment import child_environment

OURS = {
    "PATH": "/bin",
    "LC_ALL": "ja_JP.UTF-8",
    "OMP_NUM_THREADS": "2",
    "PYTHONPATH": "src",
    "TERAKOYA_API_KEYS": "secret",
    "HF_TOKEN": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "PIP_INDEX_URL": "https://user:secret@index",
}


def test_a_child_sees_an_allow_list_of_our_environment() -> None:
    theirs = child_environment(OURS)
    assert set(theirs) == {"PATH", "LC_ALL", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONPATH", "PYTHONUNBUFFERED"}
    assert theirs["PYTHONPATH"] == str(Path.cwd() / "src")


def test_a_child_may_be_given_names_that_others_are_not() -> None:
    assert child_environment(OURS, more_prefixes=("PIP_",))["PIP_INDEX_URL"] == OURS["PIP_INDEX_URL"]


def test_a_wait_policy_that_was_set_on_purpose_is_kept() -> None:
    assert child_environment({"OMP_WAIT_POLICY": "active"})["OMP_WAIT_POLICY"] == "active"
