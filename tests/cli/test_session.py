"""Where `run` and `gate` say that something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from luff.cli import cli
from luff.cli.results import all_written
from luff.cli.run import run_options
from luff.cli.running import Done
from luff.cli.session import prepare
from luff.errors import LuffError, NothingSelected
from luff.gate import INCONCLUSIVE, spec_sha256
from luff.outcome import MeshIdentity, Outcome
from luff.parse import parse_documents
from luff.store import Store
from tests.cli.test_mesh_choice import policy
from tests.factories import LAB, aborted, passed, run_id, validate

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


def keep_pass(store: str, file: str, mesh: MeshIdentity) -> Outcome:
    """Put into *store* that the experiment in *file* passed just now on *mesh*."""
    [late] = parse_documents([(file, TEXT)]).experiments
    now = datetime.now(UTC).isoformat()
    made = passed(run=run_id(mesh), experiment="late", mesh=mesh, started_at=now, ended_at=now)
    made = made.model_copy(update={"spec_sha256": spec_sha256(late)})
    with Store.open(store) as opened:
        opened.record(made)
    return made


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


@pytest.mark.parametrize("code", [7, 130, 143, 1, 4, 5, 3, 6, 0])
def test_a_report_that_cannot_be_written_is_the_end_of_what_is_less_severe_alone(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        raise LuffError("report.html could not be written: No space left on device")

    if code in (3, 6, 0):
        with pytest.raises(LuffError, match="could not be written"):
            all_written(write, code=code)
    else:
        assert not all_written(write, code=code)
        assert capsys.readouterr().err == "luff: report.html could not be written: No space left on device\n"


def test_a_gate_prints_its_report_for_a_program_and_speaks_to_people_beside_it(tmp_path: Path, kubeconfig: str) -> None:
    file, also = tmp_path / "late.yaml", tmp_path / "report.json"
    file.write_text(TEXT)
    store = f"sqlite:///{tmp_path / 'luff.db'}"
    kept = keep_pass(store, str(file), MeshIdentity(kind="cluster", name="staging"))
    given = ["gate", str(file), "--from-history", "--store", store, "--kubeconfig", kubeconfig, "-o", "json"]

    done = CliRunner(env={"GITHUB_STEP_SUMMARY": ""}).invoke(cli, [*given, "--json", str(also), "--github"])
    quiet = CliRunner().invoke(cli, given, env={"LUFF_QUIET": "1"})
    nothing = CliRunner().invoke(cli, [*given, "-k", "soon"])

    validate(json.loads(done.stdout))
    assert json.loads(done.stdout) == json.loads(also.read_text())
    assert json.loads(done.stdout)["outcomes"][0]["run"] == kept.run
    assert "GATE go" in done.stderr
    assert "PASSED" in done.stderr
    assert json.loads(quiet.stdout) == json.loads(done.stdout)
    assert "PASSED" not in quiet.stderr
    assert isinstance(nothing.exception, NothingSelected)
    assert json.loads(nothing.stdout)["exit_code"] == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_report_for_a_program_that_could_not_be_printed_is_no_success_and_the_files_are_there(
    tmp_path: Path, kubeconfig: str
) -> None:
    file, also = tmp_path / "late.yaml", tmp_path / "report.json"
    file.write_text(TEXT)
    store = f"sqlite:///{tmp_path / 'luff.db'}"
    keep_pass(store, str(file), MeshIdentity(kind="cluster", name="staging"))
    luff = Path(sys.executable).parent / "luff"
    given = ["gate", str(file), "--from-history", "--store", store, "--kubeconfig", kubeconfig, "-o", "json"]

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [luff, *given, "--json", str(also)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 5, done.stderr
    assert "not all could be written to stdout: No space left on device" in done.stderr
    assert json.loads(also.read_text())["decision"] == "go"


def test_a_gate_from_history_goes_by_the_named_cluster_alone(tmp_path: Path, kubeconfig: str) -> None:
    file = tmp_path / "late.yaml"
    file.write_text(TEXT)
    store = f"sqlite:///{tmp_path / 'luff.db'}"
    for mesh in (LAB, MeshIdentity(kind="cluster", name="staging")):
        keep_pass(store, str(file), mesh)

    def decided(*arguments: str) -> Any:
        given = ["gate", str(file), "--from-history", "--store", store, "--kubeconfig", kubeconfig, *arguments]
        return cli.main(given, standalone_mode=False)

    assert decided("--context", "staging") == 0
    assert decided("--context", "prod") == INCONCLUSIVE
    assert decided("--policy", str(policy(tmp_path, "[prod]"))) == INCONCLUSIVE
    assert decided() == 0  # the current context is staging
    assert decided("--lab") == 0
