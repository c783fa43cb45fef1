"""An API server that takes connections and never answers: who waits is told so, until when, and what to do meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.story.conftest import EXPERIMENT, LUFF, environment_in


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """Return a kubeconfig whose server accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{listening.getsockname()[1]}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "prod",
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        yield path


COMMANDS = {
    "status": (["status"], False),
    "restore": (["restore"], True),
    "stop": (["stop", "--all"], True),
    "run": (["run", "e.yaml", "--yes"], False),
}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "goes_on"), COMMANDS.values(), ids=COMMANDS)
def test_a_server_that_never_answers_is_told_while_it_is_waited_for(
    silent: Path, tmp_path: Path, command: list[str], *, goes_on: bool
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
        if goes_on:
            os.killpg(process.pid, signal.SIGKILL)
        _, rest = process.communicate(timeout=60)

    assert was_waiting
    assert "no answer from the API server prod at http://127.0.0.1:" in told[0]
    assert "asking until about" in told[0]
    assert f"kubectl --kubeconfig {silent} --context prod get --raw /readyz" in told[1]
    assert "edit virtualservices" in told[2]
    assert "no answer from the API server" not in rest, "once is enough"
    if not goes_on:
        assert process.returncode == 5, rest
