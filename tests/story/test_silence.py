"""An API server that takes connections and never answers: who waits is told so, until when, and what to do meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.story.conftest import EXPERIMENT, LUFF, environment_in


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """Return a kubeconfig whose server accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(_document(f"http://127.0.0.1:{listening.getsockname()[1]}")))
        yield path


def _document(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "prod",
    }


COMMANDS = {
    "status": (["status"], 5),
    "plan": (["plan", "e.yaml"], 5),
    "run": (["run", "e.yaml", "--yes"], 5),
    "lever status": (["lever", "status", "-n", "bookinfo"], 5),
    "lever off": (["lever", "off", "-n", "bookinfo"], 5),
    "lever on": (["lever", "on", "--why", "checkout is down", "-n", "bookinfo"], None),
    "reaper once": (["reaper", "--once"], 7),
    "reaper": (["reaper"], None),
    "restore": (["restore"], None),
    "stop": (["stop", "--all"], None),
}
"""Each command, and what it ends with; ``None`` goes on for minutes, or for ever."""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), COMMANDS.values(), ids=COMMANDS)
def test_a_server_that_never_answers_is_told_while_it_is_waited_for(
    silent: Path, tmp_path: Path, command: list[str], code: int | None
) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT.format(name="e", rate="20/s", duration="20s", at_least="90%"))
    process = subprocess.Popen(
        [LUFF, *command, "--kubeconfig", str(silent), "--context", "prod"],
        cwd=tmp_path,
        env={**environment_in(tmp_path), "LUFF_STORE": f"sqlite:///{tmp_path}/luff.db"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(3)]
        # The first line comes while the first call is still under way: at its end there is an error as well.
        was_waiting = process.poll() is None
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
        _, rest = process.communicate(timeout=60)

    assert was_waiting
    assert "no answer from the API server prod at http://127.0.0.1:" in told[0]
    assert ("asking until it answers" if command == ["reaper"] else "at the latest") in told[0]
    assert f"kubectl --kubeconfig {silent} --context prod get --raw /readyz" in told[1]
    assert "edit virtualservices" in told[2]
    assert "no answer from the API server" not in rest, "once is enough"
    if code is not None:
        assert process.returncode == code, rest


def _left(tmp_path: Path, *arguments: str) -> int:
    """Return what luff ends with when nobody reads what it says."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [LUFF, *arguments],
            cwd=tmp_path,
            env=environment_in(tmp_path),
            stdout=writer,
            stderr=writer,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode


def test_an_error_that_nobody_reads_keeps_its_exit_code(tmp_path: Path) -> None:
    assert _left(tmp_path, "restore", "") == 2
    assert _left(tmp_path, "restore", "--kubeconfig", "/nowhere") == 5


@pytest.mark.slow
def test_a_reaper_whose_readers_have_left_looks_all_the_same(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_document("http://127.0.0.1:9")))

    assert _left(tmp_path, "reaper", "--once", "--kubeconfig", str(kubeconfig), "--context", "prod") == 7
