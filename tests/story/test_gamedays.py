"""A game day as its user has it: a file, `luff serve`, and the minute that comes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.story.conftest import ENDLESS, EXPERIMENT, Api, Shell, until

GAME_DAY = """\
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {{name: core}}
spec: {{experiments: [{experiment}]}}
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {{name: soon}}
spec: {{schedule: {{cron: "* * * * *", window: 5m, overlap: forbid}}, suites: [core]}}
"""
OVER = {"passed", "failed", "error", "aborted", "lost"}

pytestmark = pytest.mark.slow


def definitions(shell: Shell, experiment: str, **how: str) -> Path:
    """Write a folder with a game day for every minute, and return it."""
    folder = shell.folder / "definitions"
    folder.mkdir()
    text = EXPERIMENT.format(name=experiment, **how) + GAME_DAY.format(experiment=experiment)
    (folder / "soon.yaml").write_text(text)
    return folder


def served(shell: Shell, folder: Path) -> tuple[subprocess.Popen[str], httpx.Client, str]:
    """Start a server; return it, who asks it, and what it said until it answered."""
    process = shell.start("serve", "--lab", "--definitions", folder, "--listen", "127.0.0.1:0")
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "game day" in line:
            break
    found = re.search(r"http://\S+", said)
    assert found, said
    return process, httpx.Client(base_url=found[0], trust_env=False, timeout=30), said


def occurrences(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/v1/occurrences").raise_for_status().json()["items"]
    return found


def test_a_game_day_is_held_when_its_minute_comes(shell: Shell) -> None:
    folder = definitions(shell, "quick", rate="20/s", duration="20s", at_least="90%")
    process, client, said = served(shell, folder)
    with client:
        first = until(lambda: [each for each in occurrences(client) if each["state"] in OVER], within_s=150)[-1]
        process.terminate()
        done = shell.finish(process)

    assert "1 game day, the next at" in said
    assert done.code == 143, done
    [run] = first["runs"]
    outcome = json.loads(shell.luff("runs", "show", run, "-o", "json").out)
    assert outcome["actor"] == "game day soon"
    assert outcome["phase"] == "clean"
    assert first["state"] == ("passed" if outcome["verdict"] == "passed" else "failed"), first
    assert shell.twins("ratings") == []


def test_what_a_killed_server_held_is_restored_and_lost_with_a_reason(shell: Shell, api: Api) -> None:
    folder = definitions(shell, "endless", **ENDLESS)
    process, client, _ = served(shell, folder)
    with client:
        until(api.twins, within_s=120)
        [running] = [each for each in occurrences(client) if each["state"] == "running"]
    # Its guard would restore at once; a machine that goes down takes both.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGSTOP)
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.kill()
    shell.finish(process)
    assert shell.twins("ratings")

    again, client, said = served(shell, folder)
    with client:
        [row] = [each for each in occurrences(client) if each["id"] == running["id"]]
        again.terminate()
        done = shell.finish(again)

    assert "restored what 1 earlier run(s) had left" in said
    assert (row["state"], row["reason"]) == ("lost", "server_died")
    assert "died" in row["said"]
    assert len(row["runs"]) == 1
    assert done.code == 143, done
    assert shell.twins("ratings") == []
