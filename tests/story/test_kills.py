"""
Real processes, killed with -9 at random moments of real runs: nothing is left, and nobody's edit is lost.

``LUFF_TEST_KILLS`` says how many (200 in `make prove`), ``LUFF_TEST_ORPHANS``
how many that take the guard along (20); ``LUFF_TEST_PROOF`` names a folder for
the distribution of the time to clean.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from luff.reaper import ORPHAN_AFTER_S
from tests.story.conftest import EXPERIMENT, Shell, until

Told = Callable[[str, object], None]

KILLS = int(os.environ.get("LUFF_TEST_KILLS", "6"))
ORPHANS = int(os.environ.get("LUFF_TEST_ORPHANS", "1"))
"""Kills of run and guard together; each takes as long as a Lease lives."""
SEED = 20261123
CLEAN_WITHIN_S = 5.0
"""With a guard, as issue and docs promise; the machine that runs this test may be busy with others."""
RUN_S = 5.0
"""A run is in each of its phases within this time: starting, warm-up, live, the end."""
LIVE_S = 2.0
REAPER_EVERY_S = 2.0
REAPED_WITHIN_S = ORPHAN_AFTER_S + REAPER_EVERY_S + 5.0
"""Without a guard: a run counts as dead when its Lease has stood still for 15 s, which a reaper sees at its rounds."""
GIVE_UP_S = 90.0


@dataclass(frozen=True)
class Killed:
    """This is one kill: when it came, whether a twin was in the mesh by then, and how long until none was."""

    after_s: float
    was_live: bool
    clean_s: float


@pytest.fixture
def watch(shell: Shell) -> Iterator[Callable[[], bool]]:
    """Return a function that says at once whether a twin is in the mesh; kubectl would take longer than a guard does."""
    kubeconfig = yaml.safe_load(Path(shell.environment["KUBECONFIG"]).read_text())
    user, cluster = kubeconfig["users"][0]["user"], kubeconfig["clusters"][0]["cluster"]
    headers = {"Authorization": f"Bearer {user['token']}"}
    with httpx.Client(base_url=cluster["server"], headers=headers, trust_env=False) as client:

        def is_live() -> bool:
            found = client.get("/apis/networking.istio.io/v1/namespaces/bookinfo/virtualservices/ratings")
            assert found.status_code == 200, found.text
            return any(str(route.get("name", "")).startswith("luff.1.") for route in found.json()["spec"]["http"])

        yield is_live


def _annotate(shell: Shell, value: int) -> None:
    done = shell.kubectl("annotate", "vs", "ratings", "-n", "bookinfo", "--overwrite", f"story/edit={value}")
    assert done.code == 0, done


def _kill_once(shell: Shell, experiment: Path, watch: Callable[[], bool], rng: random.Random, number: int) -> Killed:
    began_s = time.monotonic()
    running = shell.start("run", "--lab", experiment)
    # Somebody writes while it runs; what they wrote must be there afterwards.
    _annotate(shell, number)
    if number % 2:
        # Half of them anywhere; the others around the moments that matter, from the inject to after the withdrawal.
        until(lambda: watch() or running.poll() is not None)
        at_s = time.monotonic() + rng.uniform(0.0, LIVE_S)
    else:
        at_s = began_s + rng.uniform(0.3, RUN_S)
    while time.monotonic() < at_s and running.poll() is None:
        time.sleep(0.002)
    was_live = watch()
    running.kill()
    killed_s = time.monotonic()
    running.wait()
    return Killed(killed_s - began_s, was_live, _until_clean(watch, killed_s))


def _until_clean(watch: Callable[[], bool], killed_s: float) -> float:
    """Return how many seconds after *killed_s* no twin was left, for good."""
    clean_s = killed_s
    while watch():
        clean_s = time.monotonic()
        assert clean_s - killed_s < GIVE_UP_S, "it is not cleaned up"
        time.sleep(0.01)
    # A request of the dead process may still be on its way: it must not arrive after all was clean.
    quiet_s = time.monotonic() + 0.3
    while time.monotonic() < quiet_s:
        assert not watch(), "it came back"
        time.sleep(0.02)
    return clean_s - killed_s


def _guard_of(parent: subprocess.Popen[str]) -> int:
    """Return the process id of the guard of *parent*."""
    for path in Path(f"/proc/{parent.pid}/task").glob("*/children"):
        for child in path.read_text().split():
            if b"luff.guard" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("it has no guard")


def _orphan_once(shell: Shell, experiment: Path, watch: Callable[[], bool], rng: random.Random, number: int) -> Killed:
    """Kill a live run together with its guard, as the loss of a machine or a container does."""
    began_s = time.monotonic()
    running = shell.start("run", "--lab", experiment)
    _annotate(shell, number)
    until(lambda: watch() or running.poll() is not None)
    time.sleep(rng.uniform(0.0, LIVE_S))
    guard = _guard_of(running)
    # First stopped, so that it cannot act between the two kills.
    os.kill(guard, signal.SIGSTOP)
    was_live = watch()
    running.kill()
    os.kill(guard, signal.SIGKILL)
    killed_s = time.monotonic()
    running.wait()
    return Killed(killed_s - began_s, was_live, _until_clean(watch, killed_s))


@pytest.mark.slow
@pytest.mark.timeout(max(300, KILLS * 15))
def test_nothing_is_left_after_a_kill_at_any_moment(
    shell: Shell, watch: Callable[[], bool], capsys: pytest.CaptureFixture[str], record_property: Told
) -> None:
    experiment = shell.folder / "killed.yaml"
    experiment.write_text(EXPERIMENT.format(name="killed", rate="40/s", duration="20s", at_least="95%"))

    live = _kill_them(shell, experiment, watch, KILLS, _kill_once, capsys, record_property, "kills")

    record_property("cleaned_by", "guard")
    assert all(seconds < CLEAN_WITHIN_S for seconds in live), live


@pytest.mark.slow
@pytest.mark.timeout(max(300, ORPHANS * 60))
def test_a_reaper_cleans_up_after_a_kill_that_takes_the_guard_along(
    shell: Shell, endless: Path, watch: Callable[[], bool], capsys: pytest.CaptureFixture[str], record_property: Told
) -> None:
    reaper = shell.start("reaper", "--lab", "--every", str(REAPER_EVERY_S))

    # One that is live for sure when it is killed.
    live = _kill_them(shell, endless, watch, ORPHANS, _orphan_once, capsys, record_property, "orphans")
    reaper.terminate()
    assert shell.finish(reaper).code == 0

    record_property("cleaned_by", "reaper")
    assert all(seconds < REAPED_WITHIN_S for seconds in live), live


def _kill_them(
    shell: Shell,
    experiment: Path,
    watch: Callable[[], bool],
    how_many: int,
    kill: Callable[[Shell, Path, Callable[[], bool], random.Random, int], Killed],
    capsys: pytest.CaptureFixture[str],
    record: Told,
    word: str,
) -> list[float]:
    """Kill *how_many* runs, hold each to the object as it was with the edit in it; returns the times to clean, sorted."""
    before = shell.virtual_service("ratings")["spec"]
    rng = random.Random(SEED)
    kills = []
    for number in range(how_many):
        kills.append(kill(shell, experiment, watch, rng, number))
        now = shell.virtual_service("ratings")
        assert now["spec"] == before, kills[-1]
        assert now["metadata"]["annotations"]["story/edit"] == str(number), "an edit was lost"
    shell.kubectl("annotate", "vs", "ratings", "-n", "bookinfo", "story/edit-")
    live = sorted(each.clean_s for each in kills if each.was_live or each.clean_s)
    _tell(kills, live, capsys, word)
    record("seed", SEED)
    record("seconds", live[-1] if live else 0.0)
    return live


def _tell(kills: list[Killed], live: list[float], capsys: pytest.CaptureFixture[str], word: str) -> None:
    said = {
        word: len(kills),
        "live_when_killed": len(live),
        "edits_lost": 0,
        "seconds_to_clean": {
            "median": round(statistics.median(live), 2) if live else None,
            "p95": round(live[int(0.95 * (len(live) - 1))], 2) if live else None,
            "most": round(live[-1], 2) if live else None,
        },
    }
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps(said)}\n")
    if folder := os.environ.get("LUFF_TEST_PROOF"):
        path = Path(folder) / f"{word}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**said, "all": [asdict(kill) for kill in kills]}, indent=2) + "\n")
