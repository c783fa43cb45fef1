"""Where a run says that it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from luff.cli import world

CI = (
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "GITHUB_REF_NAME",
    "CI_COMMIT_REF_NAME",
    "CI_JOB_URL",
    "GITHUB_RUN_ID",
    "TRACEPARENT",
)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start in an empty folder, without a CI system's words."""
    world._git.cache_clear()
    monkeypatch.chdir(tmp_path)
    for name in CI:
        monkeypatch.delenv(name, raising=False)


def test_git_is_asked_where_ci_says_nothing(tmp_path: Path) -> None:
    for command in (
        ["git", "init", "-q", "-b", "trunk"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)

    context = world.context_from_environment()

    assert context.branch == "trunk"
    assert len(context.commit or "") == 40


def test_no_repository_is_no_commit() -> None:
    assert world.context_from_environment().commit is None


def test_ci_has_the_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SHA", "abc")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example")
    monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")

    context = world.context_from_environment()

    assert context.commit == "abc"
    assert context.ci_url == "https://github.example/o/r/actions/runs/7"


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_run_names_the_trace_that_it_is_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-01")

    assert world.context_from_environment().trace_id == TRACE


@pytest.mark.parametrize(
    ("traceparent", "trace"),
    [
        (f"00-{TRACE}-{PARENT}-00", TRACE),
        (f"cc-{TRACE}-{PARENT}-01-what-will-be", TRACE),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}-01\n", None),
        (f"00-{TRACE[:-1]}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-1", None),
        ("", None),
    ],
)
def test_only_what_w3c_calls_a_traceparent_names_a_trace(traceparent: str, trace: str | None) -> None:
    assert world.trace_id_of(traceparent) == trace
