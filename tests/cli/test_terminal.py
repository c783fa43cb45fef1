"""What a terminal is for: questions and moving lines, and neither of them in a CI job that has one."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest

from luff.cli.mesh_choice import chosen_mesh
from luff.cli.options import MeshOptions, Voice
from luff.cli.progress import TerminalProgress, progress_for
from luff.errors import UsageError
from luff.parse import Documents

NOTHING = Documents(experiments=(), suites=(), game_days=(), policies=(), workloads=(), manifests=())
CI_JOBS = ["true", "1", "woodpecker"]
PEOPLE = ["", "0", "false", "False"]


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, *, typed: str = "") -> Iterator[None]:
    """Put this process on a terminal at which somebody has *typed* something."""
    main, second = pty.openpty()
    os.write(main, typed.encode())
    with (
        os.fdopen(second, "r", closefd=False) as stdin,
        os.fdopen(second, "w", closefd=False) as stderr,
        monkeypatch.context() as here,
    ):
        here.setattr(sys, "stdin", stdin)
        here.setattr(sys, "stderr", stderr)
        here.setenv("TERM", "xterm-256color")
        yield
    os.close(main)
    os.close(second)


def choose(kubeconfig: str) -> None:
    with chosen_mesh(MeshOptions(False, None, kubeconfig, None), NOTHING):
        pass


@pytest.mark.parametrize("value", CI_JOBS)
def test_a_ci_job_that_has_a_terminal_is_refused_and_not_asked(
    kubeconfig: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CI", value)

    with (
        terminal(monkeypatch, typed="y\n"),
        pytest.raises(UsageError, match="no cluster was named") as caught,
    ):
        choose(kubeconfig)

    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", PEOPLE)
def test_a_person_at_a_terminal_is_asked(kubeconfig: str, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CI", value)

    with terminal(monkeypatch, typed="n\n"), pytest.raises(click.Abort):
        choose(kubeconfig)


@pytest.mark.parametrize(("value", "moves"), [*((ci, False) for ci in CI_JOBS), *((ci, True) for ci in PEOPLE)])
def test_nothing_moves_on_the_terminal_of_a_ci_job(monkeypatch: pytest.MonkeyPatch, value: str, moves: bool) -> None:
    monkeypatch.setenv("CI", value)

    with terminal(monkeypatch):
        progress = progress_for(Voice(0, None), "books")

    assert isinstance(progress, TerminalProgress) is moves


def test_nothing_moves_where_colours_are_forced_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert not isinstance(progress_for(Voice(0, None), "books"), TerminalProgress)
