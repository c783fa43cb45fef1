"""Where a run says that it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from luff.cli import world

CI = ("GITHUB_SHA", "CI_COMMIT_SHA", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "CI_JOB_URL", "GITHUB_RUN_ID")


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
