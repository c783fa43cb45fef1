"""`luff demo`, whole: every shipped experiment ends as its annotation says, and README shows what it really prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luff.cli.files import read_documents
from tests.story.conftest import Done, Shell, environment_in

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 170


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Done]:
    """Take the tour once."""
    folder = tmp_path_factory.mktemp("demo")
    shell = Shell(folder, environment_in(folder))
    return shell, shell.luff("demo", "--report-dir", "report", within_s=WITHIN_S)


@pytest.mark.timing
def test_every_shipped_experiment_ends_as_expected_and_every_route_is_back(toured: tuple[Shell, Done]) -> None:
    shell, done = toured
    shipped = read_documents([ROOT / "experiments" / "bookinfo"]).experiments

    assert done.code == 0, done
    assert f"{len(shipped)} of {len(shipped)} experiments ended as expected" in done.out
    rows = json.loads(shell.luff("runs", "list", "-o", "json").out)
    outcomes = [json.loads(shell.luff("runs", "show", row["run"], "-o", "json").out) for row in rows]
    said = {o["experiment"]: o["verdict"] + (f"({o['reason']})" if o["reason"] else "") for o in outcomes}
    assert said == {each.name: each.metadata.annotations["luff.dev/expected"] for each in shipped}
    assert all(o["restore"]["api"] == o["restore"]["data_plane"] == "verified" for o in outcomes)
    assert all(o["restore"]["object"] == "identical" for o in outcomes)


@pytest.mark.timing
def test_the_known_bug_is_explained_from_the_evidence(toured: tuple[Shell, Done]) -> None:
    _, done = toured

    assert re.search(r"productpage-v1 gave up on reviews after 3\.\d s × 2", done.out), done
    assert "while the inner call reviews-v2 → ratings was still waiting when it was cut" in done.out


@pytest.mark.timing
def test_the_report_is_one_page_that_needs_nothing_else(toured: tuple[Shell, Done]) -> None:
    shell, _ = toured
    page = (shell.folder / "report" / "luff-report.html").read_text()

    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "page-shows-reviews-when-ratings-is-slow" in page


@pytest.mark.timing
def test_nothing_is_left_running(toured: tuple[Shell, Done]) -> None:
    shell, _ = toured

    assert shell.luff("lab", "status").code == 5
    assert not [path for path in (shell.folder / "state" / "luff" / "labs").iterdir() if path.is_dir()]


@pytest.mark.timing
def test_readme_shows_what_the_tour_prints(toured: tuple[Shell, Done]) -> None:
    _, done = toured
    readme = (ROOT / "README.md").read_text()
    transcript = re.search(r"```console\n\$ make demo\n(.*?)```", readme, re.DOTALL)
    assert transcript is not None
    printed = {_shape(line) for line in done.out.splitlines()}

    shown = [line for line in transcript[1].splitlines() if line.strip() and line.strip() != "…"]

    assert len(shown) > 10
    for line in shown:
        assert _shape(line) in printed, f"README shows what the tour does not print: {line}"


def _shape(line: str) -> str:
    """Return *line* without what differs from run to run: figures, ids, folders."""
    line = re.sub(r"run [0-9a-f]{16}", "run ID", line)
    line = re.sub(r"lab lab-[0-9-]+", "lab LAB", line)
    line = re.sub(r"\S*/experiments/", "experiments/", line)
    line = re.sub(r"report: .*", "report: FILE", line)
    line = re.sub(r"\d+(\.\d+)? ?(ms|s)\b", "TIME", line)
    line = re.sub(r"\d+(\.\d+)?", "N", line)
    return re.sub(r"\s+", " ", line).strip()
