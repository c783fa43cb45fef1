"""
Killed with -9 together with the only reader of its lab: the lab lives on until the guard has restored, and then ends.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.story.conftest import ENDLESS, EXPERIMENT, Shell, environment_in, until

LIVE = re.compile(r"\blive\b")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Shell]:
    """Return a shell on a machine without a lab; whatever is still there afterwards is ended."""
    shell = Shell(tmp_path, {**environment_in(tmp_path), "LUFF_STORE": f"sqlite:///{tmp_path}/luff.db"})
    yield shell
    for process in shell.started:
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    for pid in _left(tmp_path):
        os.kill(pid, signal.SIGKILL)


def _left(folder: Path) -> list[int]:
    """Return the processes that have *folder* on their command line, in their environment or as where they are."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            where = os.readlink(entry / "cwd")  # noqa: PTH115  # it may be gone
            ended = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            continue
        if not ended and (str(folder).encode() in said or where.startswith(str(folder))):
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_temporary_lab_outlives_a_killed_luff_until_its_routes_are_back(alone: Shell, command: str) -> None:
    (alone.folder / "endless.yaml").write_text(EXPERIMENT.format(name="endless", **ENDLESS))
    arguments = ["run", "--lab", "endless.yaml"] if command == "run" else ["demo", "--report-dir", "report"]
    running = alone.start(*arguments)
    assert running.stderr is not None
    said = ""
    while not LIVE.search(said.replace("is live", "")):
        line = running.stderr.readline()
        assert line, said
        said += line

    running.kill()

    until(lambda: not _left(alone.folder), within_s=30)
    log = (alone.folder / "state" / "luff" / "guard.log").read_text()
    assert re.search(r"luff guard: run [0-9a-f]{16}: its parent is gone; .* is clean, removed 1 route", log), log
    assert alone.luff("lab", "status").code == 5
