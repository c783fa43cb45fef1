"""
Bad days of real processes against a real lab: whatever happens, no twin is left and the exit code is right.

The numbers are those of the list of scenarios that `make prove` reports on.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.lock import LEASE_S
from tests.story.conftest import ENDLESS, EXPERIMENT, Api, Live, Shell, until

AWAY_S = float(os.environ.get("LUFF_TEST_AWAY", "6"))
"""Longer than the pauses of a restore, shorter than its patience; 60 s in `make prove`, which is longer than the Lease."""
STORM_TIMES = int(os.environ.get("LUFF_TEST_STORM", "4"))
"""How often a storm refuses; each refusal asks for a second of patience."""


def _until_it_says(running: subprocess.Popen[str], word: str) -> None:
    assert running.stderr is not None
    for line in running.stderr:
        if word in line:
            return
    raise AssertionError(f"it never said {word!r}")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_9_a_run_that_slept_longer_than_its_lease_finds_that_it_lost_it(shell: Shell, api: Api, live: Live) -> None:
    before = shell.virtual_service("ratings")["spec"]
    sleeper = live()
    [slept] = api.twins()
    os.kill(sleeper.pid, signal.SIGSTOP)
    reaper = shell.start("reaper", "--lab")
    until(lambda: slept not in api.twins(), within_s=LEASE_S + 30.0)
    reaper.terminate()
    assert shell.finish(reaper).code == 0
    # Somebody else takes the target over while the first is asleep; who sleeps in the middle of a write keeps its database.
    second = shell.folder / "second.yaml"
    second.write_text(EXPERIMENT.format(name="second", **ENDLESS))
    theirs = f"sqlite:///{shell.folder}/theirs.db"
    other = shell.start("run", "--lab", second, "--json", "second.json", LUFF_STORE=theirs)
    until(lambda: api.twins() or other.poll() is not None)
    assert other.poll() is None, shell.finish(other)
    [taken] = api.twins()

    os.kill(sleeper.pid, signal.SIGCONT)
    done = shell.finish(sleeper)

    assert taken != slept
    assert api.twins() == {taken}, "the one that woke up took the other's twins out"
    assert done.code in {3, 4}, done
    outcome = shell.outcome()
    assert outcome["reason"] in {"bound", "operator", "fault_removed"}
    assert outcome["phase"] == "clean"
    other.send_signal(signal.SIGTERM)
    assert shell.finish(other).code == 143
    assert shell.outcome("second.json")["restore"]["api"] == "verified"
    assert not api.twins()
    assert shell.virtual_service("ratings")["spec"] == before


STORMS = {
    "429": {"action": "status", "code": 429, "retry_after": 1, "times": STORM_TIMES},
    "503": {"action": "status", "code": 503, "times": 6},
    "closed": {"action": "close", "times": 6},
}


@pytest.mark.parametrize("storm", STORMS.values(), ids=STORMS)
def test_23_a_storm_at_the_inject_ends_the_run_and_leaves_nothing(
    shell: Shell, quick: Path, api: Api, storm: dict[str, Any]
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    api.misbehave(plural="virtualservices", verb="patch", dry_run=False, **storm)

    done = shell.luff("run", "--lab", quick, "--json", "out.json")

    assert done.code == 5, done
    outcome = shell.outcome()
    assert outcome["phase"] == "clean"
    assert outcome["reason"] == "mesh_unreachable"
    assert outcome["restore"]["api"] == "verified", "it may have been applied, so its absence is proven"
    assert api.behave() == 0
    assert shell.virtual_service("ratings")["spec"] == before
    assert not api.leases()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("storm", STORMS.values(), ids=STORMS)
def test_23_a_storm_at_the_restore_is_waited_out(shell: Shell, api: Api, live: Live, storm: dict[str, Any]) -> None:
    running = live()
    api.misbehave(plural="virtualservices", verb="patch", **storm)

    running.send_signal(signal.SIGTERM)
    done = shell.finish(running)

    assert done.code == 143, done
    assert api.behave() == 0
    assert not api.twins()
    assert shell.outcome()["restore"]["api"] == "verified"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_19_an_api_that_is_away_at_the_restore_is_waited_for(shell: Shell, api: Api, live: Live) -> None:
    running = live()
    api.misbehave(plural="*", verb="*", action="close", times=1_000_000)
    running.send_signal(signal.SIGTERM)

    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=AWAY_S)
    api.client.delete("/luff/misbehave")
    done = shell.finish(running)

    assert done.code == 143, done
    assert not api.twins()
    receipt = shell.outcome()["restore"]
    assert receipt["api"] == "verified"
    assert receipt["seconds"] >= AWAY_S - 1.0
    assert receipt["seconds"] < AWAY_S + 15.0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_18_an_api_that_is_away_at_the_inject_ends_the_run_and_leaves_nothing(
    shell: Shell, quick: Path, api: Api
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    running = shell.start("run", "--lab", quick, "--json", "out.json")
    until(api.leases)
    api.misbehave(plural="*", verb="*", action="close", times=1_000_000)

    time_up = time.monotonic() + AWAY_S
    until(lambda: time.monotonic() > time_up or running.poll() is not None, within_s=AWAY_S + 60.0)
    api.client.delete("/luff/misbehave")
    done = shell.finish(running)

    assert done.code in {4, 5}, done
    assert shell.outcome()["phase"] == "clean"
    assert not api.twins()
    assert shell.virtual_service("ratings")["spec"] == before


@pytest.mark.slow
def test_55_a_store_that_is_locked_in_mid_run_does_not_hold_the_routes(shell: Shell, api: Api, live: Live) -> None:
    running = live()
    with closing(sqlite3.connect(shell.folder / "luff.db", isolation_level=None)) as locker:
        until(lambda: _try_to_lock(locker))
        running.send_signal(signal.SIGTERM)
        until(lambda: not api.twins(), within_s=15.0)
        done = shell.finish(running, within_s=90.0)
        locker.execute("ROLLBACK")

    assert done.code == 143, done
    assert "not in history" in done.err
    assert shell.outcome()["restore"]["api"] == "verified"


def _try_to_lock(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True


def test_55_a_store_that_is_lost_in_mid_run_does_not_hold_the_routes(shell: Shell, api: Api, live: Live) -> None:
    running = live()
    # Not luff.db-shm: SQLite maps that into memory, and the kernel kills whoever reads what was cut off of it (SIGBUS).
    for name in ("luff.db", "luff.db-wal"):
        (shell.folder / name).write_bytes(b"this is no database any more" * 100)

    running.send_signal(signal.SIGTERM)
    done = shell.finish(running)

    assert done.code == 143, done
    assert not api.twins()
    assert shell.outcome()["restore"]["api"] == "verified"
    # The lab's other commands do without it.
    for path in shell.folder.glob("luff.db*"):
        path.unlink()


def test_12_a_full_disk_does_not_hold_the_routes(shell: Shell, api: Api, live: Live) -> None:
    running = live()
    # No file of this process may grow any more, which is what a full disk is to it.
    _, most = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (0, most))

    running.send_signal(signal.SIGTERM)
    done = shell.finish(running)

    assert done.code == 143, "a report that cannot be written does not hide the signal"
    assert "out.json could not be written" in done.err
    assert "internal error" not in done.err, done
    assert not api.twins()


def test_11_a_process_without_files_left_restores(shell: Shell, api: Api, live: Live) -> None:
    running = live()
    _until_it_says(running, " live ")
    _, most = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    # Whatever it has open stays; nothing more can be opened.
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (3, most))

    running.send_signal(signal.SIGTERM)
    until(lambda: not api.twins())
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (most, most))
    done = shell.finish(running)

    assert done.code == 143, done
    assert "internal error" not in done.err, done
    if "out.json could not be written" not in done.err:
        assert shell.outcome()["restore"]["api"] == "verified"


def test_28_a_token_that_is_rotated_in_mid_run_is_read_anew(shell: Shell, api: Api, live: Live) -> None:
    kubeconfig = Path(shell.environment["KUBECONFIG"])
    before = kubeconfig.read_text()
    old = api.client.headers["Authorization"].removeprefix("Bearer ")
    running = live()
    _rotate(api, "r0tated")
    try:
        beside = kubeconfig.with_name("kubeconfig.new")
        beside.write_text(before.replace(old, "r0tated"))
        beside.chmod(0o600)
        beside.replace(kubeconfig)
        running.send_signal(signal.SIGTERM)
        done = shell.finish(running)
    finally:
        kubeconfig.write_text(before)
        _rotate(api, old)

    assert done.code == 143, done
    assert not api.twins()
    assert shell.outcome()["restore"]["api"] == "verified"


def _rotate(api: Api, token: str) -> None:
    assert api.client.put("/luff/token", content=token).status_code == 204
    api.client.headers["Authorization"] = f"Bearer {token}"


def test_51_of_two_that_start_at_the_same_moment_exactly_one_runs(shell: Shell, quick: Path, api: Api) -> None:
    # So long that the second has started before the first is over, however busy the machine is.
    quick.write_text(EXPERIMENT.format(name="quick", rate="10/s", duration="30s", at_least="95%"))
    before = shell.virtual_service("ratings")["spec"]
    most, ended = 0, threading.Event()
    # A client is for one thread.
    watching = httpx.Client(base_url=api.client.base_url, headers=api.client.headers, trust_env=False)

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, len(Api(watching).twins()))

    with watching:
        watcher = threading.Thread(target=watch)
        watcher.start()
        both = [shell.start("run", "--lab", quick, "--json", f"{number}.json") for number in range(2)]
        done = [shell.finish(each) for each in both]
        ended.set()
        watcher.join()

    assert sorted(each.code for each in done) == [0, 5], done
    outcomes = [shell.outcome(f"{number}.json") for number in range(2)]
    [refused] = [outcome for outcome in outcomes if outcome["verdict"] == "error"]
    assert refused["reason"] in {"plan_refused:locked", "plan_refused:already_injected"}, refused
    assert refused["restore"] is None
    assert most == 1, "twins of both were there at once"
    assert shell.virtual_service("ratings")["spec"] == before
    assert not api.leases()


CONTROLLERS = {
    "Argo CD": (
        ("annotate", "argocd.argoproj.io/tracking-id=shop:networking.istio.io/VirtualService:bookinfo/ratings"),
        "argo_cd_may_revert",
        "skip-reconcile",
    ),
    "Flux": (("label", "kustomize.toolkit.fluxcd.io/name=shop"), "flux_may_revert", "flux suspend"),
}


@pytest.mark.parametrize(("mark", "rule", "advice"), CONTROLLERS.values(), ids=CONTROLLERS)
def test_44_a_controller_that_reverts_is_warned_of_and_ends_the_run(
    shell: Shell,
    api: Api,
    endless: Path,
    live: Live,
    mark: tuple[str, str],
    rule: str,
    advice: str,
) -> None:
    target = ("vs", "ratings", "-n", "bookinfo")
    verb, said = mark
    before = shell.kubectl(verb, *target, said)
    assert before.code == 0, before
    original = shell.virtual_service("ratings")["spec"]["http"]
    try:
        planned = shell.luff("plan", "--lab", endless)
        running = live()
        patch = json.dumps({"spec": {"http": original}})
        reverted = shell.kubectl("patch", *target, "--type=merge", "-p", patch)
        assert reverted.code == 0, reverted
        done = shell.finish(running)
    finally:
        shell.kubectl(verb, *target, said.partition("=")[0] + "-")

    assert rule in planned.out, planned
    assert advice in planned.out, planned
    assert done.code == 3, done
    outcome = shell.outcome()
    assert outcome["reason"] == "fault_removed"
    assert any(step["phase"] == "mind" and rule in step["note"] for step in outcome["timeline"])
    assert shell.virtual_service("ratings")["spec"]["http"] == original
