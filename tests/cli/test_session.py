"""Where `run` and `gate` say that something is wrong."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from luff.cli.run import run_options
from luff.cli.running import Done
from luff.cli.session import prepare
from tests.factories import aborted

TEXT = """\
# why

apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata:
  labels: {a: b}
  name: late
spec:
  target: stock
  fault: {delay: 3s}
  traffic: GET http://front.shop/
"""


def test_what_no_expectation_is_to_blame_for_is_annotated_where_the_experiment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    file = tmp_path / "late.yaml"
    file.write_text(TEXT)

    @click.command()
    @run_options
    def command(flags: object) -> None:
        session = prepare(flags)  # type: ignore[arg-type]  # click knows no types
        done = Done([aborted(experiment="late", checks=[])])
        session.finish(session.decide(done), done)

    command.main([str(file), "--github", "-q"], standalone_mode=False)

    assert "late.yaml,line=7,title=late: aborted" in capsys.readouterr().out.replace("%3A", ":")
