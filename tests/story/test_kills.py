"""
Real processes, killed with -9 at random moments of real runs: nothing is left, and nobody's edit is lost.

Half of the runs have a bad network between them and the API when they die. Somebody
else writes to the same object all the time.

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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.lab.state import LOCK, STATE
from luff.reaper import ORPHAN_AFTER_S
from tests.misbehaving_proxy import MisbehavingProxy, Toxic, kubeconfig_through
from tests.story.conftest import EXPERIMENT, Api, Shell, until

Told = Callable[[str, object], None]
Process = subprocess.Popen[str]

KILLS = int(os.environ.get("LUFF_TEST_KILLS", "6"))
ORPHANS = int(os.environ.get("LUFF_TEST_ORPHANS", "1"))
"""Kills of run and guard together; each takes as long as a Lease lives."""
SEED = 20261123
CLEAN_WITHIN_S = 5.0
"""With a guard, as issue and docs promise; the machine that runs this test may be busy with others."""
RUN_S = 8.0
"""A run is in each of its phases within this time: starting, warm-up, live, the end."""
LOCKED_S = 4.0
"""From the Lease on it takes about half of this until the twins are in."""
LIVE_S = 2.0
LIVE_TRIES = 5
REAPER_EVERY_S = 2.0
REAPED_WITHIN_S = ORPHAN_AFTER_S + REAPER_EVERY_S + 5.0
"""Without a guard: a run counts as dead when its Lease has stood still for 15 s, which a reaper sees at its rounds."""
GIVE_UP_S = 90.0
QUIET_S = 0.3
WRITES_EVERY_S = 0.3
GOOD = "none"
TOXICS = {
    "latency": Toxic("latency", seconds=0.3),
    "reset": Toxic("reset", way="request"),
    "cut": Toxic("cut", after_bytes=300),
    "half closed": Toxic("half_close", after_bytes=60),
    "black hole": Toxic("black_hole"),
    "reply lost": Toxic("reply_lost"),
    "refused": Toxic("refuse"),
}
"""What the network between luff and the API may be like when luff is killed, by the name it has in the proof."""
BEFORE_S = 0.5
AFTER_S = 2.0
"""So long at most a toxic is in force before and after the kill."""


@dataclass(frozen=True)
class Storm:
    """This is a bad network around one kill: which toxic, and how long before and after it."""

    toxic: str = GOOD
    before_s: float = 0.0
    after_s: float = 0.0

    @classmethod
    def drawn(cls, rng: random.Random, number: int) -> Storm:
        """
        Return that of the kill *number*: every second one has one.

        Where the run is live it is never one that only new connections meet: its guard has one already.
        """
        if number % 2 == 0:
            return cls()
        toxics = sorted(TOXICS.keys() - ({"refused"} if number % 3 == 2 else set()))
        return cls(rng.choice(toxics), rng.uniform(0.0, BEFORE_S), rng.uniform(0.2, AFTER_S))


@dataclass(frozen=True)
class Killed:
    """
    This is one kill: when it came, through which *toxic*, and whether a twin was in the mesh by then.

    *clean_s* is how long it took until none was, from when the API could be
    reached; *edits* is how many others had made by then.
    """

    after_s: float
    toxic: str
    was_live: bool
    clean_s: float
    edits: int = 0
    edits_lost: int = 0


@dataclass
class Kills:
    """
    This kills runs on *ratings*, whose way to the API leads through *proxy*, while somebody else writes to it.

    *through* is the folder of a lab that is the real one in all but that way.
    """

    shell: Shell
    api: Api
    proxy: MisbehavingProxy
    through: Path
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))
    done: list[Killed] = field(default_factory=list)

    def start(self, experiment: Path) -> Process:
        """Start a run behind the proxy."""
        return self.shell.start("run", "--lab", experiment, LUFF_LAB_DIR=str(self.through))

    def repeat(self, how_many: int, kill: Callable[[int], Killed]) -> list[float]:
        """Call *kill* so often, hold each to the object as it was with all edits in it; returns the times to clean, sorted."""
        before = self.api.spec()
        for number in range(how_many):
            try:
                with self._somebody_writes() as theirs:
                    killed = kill(number)
                now = self.api.spec()
            finally:
                # The next kill, or the next test, is not to meet what this one wrote.
                self.api.patch({"op": "replace", "path": "/spec", "value": before})
                self.api.forget_leases()
            left = [str(route.get("name")) for route in now["http"]]
            lost = [name for name in theirs if name not in left]
            self.done.append(replace(killed, edits=len(theirs), edits_lost=len(lost)))
            kept = [route for route in now["http"] if route.get("name") not in theirs]
            assert {**now, "http": kept} == before, self.done[-1]
            assert not lost, self.done[-1]
        return sorted(each.clean_s for each in self.done if each.was_live or each.clean_s)

    def kill(self, experiment: Path, number: int) -> Killed:
        """Kill one run and leave its guard."""
        storm = Storm.drawn(self.rng, number)
        began_s = time.monotonic()
        running = self.start(experiment)
        at_s = self._moment(running, number)
        _wait(running, at_s - storm.before_s)
        self._misbehave(storm)
        _wait(running, at_s)
        was_live = self.is_live()
        running.kill()
        killed_s = time.monotonic()
        running.wait()
        time.sleep(storm.after_s)
        self.proxy.set(None)
        well_s = killed_s if storm.toxic == GOOD else time.monotonic()
        return Killed(killed_s - began_s, storm.toxic, was_live, self._until_clean(well_s))

    def orphan(self, experiment: Path) -> Killed:
        """Kill a live run together with its guard, as the loss of a machine or a container does."""
        began_s = time.monotonic()
        running = self._live_run(experiment)
        time.sleep(self.rng.uniform(0.0, LIVE_S))
        [guard] = self._guards()
        # First stopped, so that it cannot act between the two kills.
        os.kill(guard, signal.SIGSTOP)
        was_live = self.is_live()
        running.kill()
        os.kill(guard, signal.SIGKILL)
        killed_s = time.monotonic()
        running.wait()
        return Killed(killed_s - began_s, GOOD, was_live, self._until_clean(killed_s))

    def _live_run(self, experiment: Path) -> Process:
        """Return a run that is live. On a busy machine one may lose every race with who writes, and says so."""
        for _ in range(LIVE_TRIES):
            running = self.start(experiment)
            while not self.is_live() and running.poll() is None:
                time.sleep(0.01)
            if running.poll() is None:
                return running
            ended = self.shell.finish(running)
            assert "was changed by somebody else meanwhile" in ended.out + ended.err, ended
        raise AssertionError(f"{LIVE_TRIES} runs did not come to be live")

    def is_live(self) -> bool:
        """Return whether a twin is in the mesh; kubectl would take longer than a guard does."""
        return bool(self.api.twins())

    def _moment(self, running: Process, number: int) -> float:
        """Return when to kill: a third of them anywhere, a third around the inject, a third from then on until it is over."""
        if number % 3 == 0:
            return time.monotonic() + self.rng.uniform(0.3, RUN_S)
        sign, within_s = (self.api.leases, LOCKED_S) if number % 3 == 1 else (self.is_live, LIVE_S)
        until(lambda: sign() or running.poll() is not None)
        return time.monotonic() + self.rng.uniform(0.0, within_s)

    def _misbehave(self, storm: Storm) -> None:
        if storm.toxic == GOOD:
            return
        self.proxy.set(TOXICS[storm.toxic])
        if TOXICS[storm.toxic].kind == "refuse":
            # It is about new connections: those that are open would never meet it.
            self.proxy.drop()

    def _until_clean(self, well_s: float) -> float:
        """Return how many seconds after *well_s*, when the API could be reached, no twin was left, for good."""
        clean_s = well_s
        while (live := self.is_live()) or self._guards():
            if live:
                clean_s = time.monotonic()
            assert time.monotonic() - well_s < GIVE_UP_S, "it is not cleaned up"
            time.sleep(0.01)
        # A request of the dead process may still be on its way: it must not arrive after all was clean.
        quiet_s = time.monotonic() + QUIET_S
        while time.monotonic() < quiet_s:
            assert not self.is_live(), "it came back"
            time.sleep(0.02)
        return clean_s - well_s

    def _guards(self) -> list[int]:
        """Return the process ids of the guards of runs of this test."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                said = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"luff.guard" in said and str(self.through).encode() in said:
                found.append(int(entry.name))
        return found

    @contextmanager
    def _somebody_writes(self) -> Iterator[list[str]]:
        """Put one more route on top now and then, beside the body; yields the names of those that were accepted."""
        ended, names = threading.Event(), list[str]()
        client = self.api.client

        def write() -> None:
            # A client is for one thread.
            with httpx.Client(base_url=client.base_url, headers=client.headers, trust_env=False) as own:
                while not ended.wait(WRITES_EVERY_S):
                    name = f"theirs-{len(names)}"
                    Api(own).patch({"op": "add", "path": "/spec/http/0", "value": _their_route(name)})
                    names.append(name)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield names
        finally:
            ended.set()
            writer.join()


def _their_route(name: str) -> dict[str, Any]:
    match = [{"uri": {"exact": f"/{name}"}}]
    return {"name": name, "match": match, "route": [{"destination": {"host": "details"}}]}


def _wait(running: Process, until_s: float) -> None:
    while time.monotonic() < until_s and running.poll() is None:
        time.sleep(0.002)


@pytest.fixture
def kills(shell: Shell, api: Api) -> Iterator[Kills]:
    """Return what kills; the way of its runs leads through a proxy of its own."""
    lab = Path(shell.environment["LUFF_LAB_DIR"])
    through = shell.folder / "through"
    through.mkdir()
    (through / LOCK).symlink_to(lab / LOCK)
    with MisbehavingProxy() as proxy:
        port = proxy.start(("127.0.0.1", int(api.client.base_url.port or 80)))
        kubeconfig = kubeconfig_through(port, lab / "kubeconfig", through / "kubeconfig")
        state = json.loads((lab / STATE).read_text())
        (through / STATE).write_text(json.dumps({**state, "kubeconfig": str(kubeconfig)}))
        yield Kills(shell, api, proxy, through)


@pytest.mark.slow
@pytest.mark.timeout(max(300, KILLS * 20))
def test_nothing_is_left_after_a_kill_at_any_moment(
    shell: Shell, kills: Kills, capsys: pytest.CaptureFixture[str], record_property: Told
) -> None:
    experiment = shell.folder / "killed.yaml"
    experiment.write_text(EXPERIMENT.format(name="killed", rate="40/s", duration="20s", at_least="95%"))

    live = kills.repeat(KILLS, lambda number: kills.kill(experiment, number))

    with capsys.disabled():
        _tell("kills", kills.done, live)
    _record(record_property, "guard", live)
    assert kills.proxy.struck, "no toxic met anybody"
    assert sum(each.edits for each in kills.done), "nobody else wrote"
    assert all(seconds < CLEAN_WITHIN_S for seconds in live), live


@pytest.mark.slow
@pytest.mark.timeout(max(300, ORPHANS * 60))
def test_a_reaper_cleans_up_after_a_kill_that_takes_the_guard_along(
    shell: Shell, endless: Path, kills: Kills, capsys: pytest.CaptureFixture[str], record_property: Told
) -> None:
    reaper = shell.start("reaper", "--lab", "--every", f"{REAPER_EVERY_S}s")

    # One that is live for sure when it is killed.
    live = kills.repeat(ORPHANS, lambda _: kills.orphan(endless))
    reaper.terminate()
    assert shell.finish(reaper).code == 0

    with capsys.disabled():
        _tell("orphans", kills.done, live)
    _record(record_property, "reaper", live)
    assert all(seconds < REAPED_WITHIN_S for seconds in live), live


def _record(record: Told, by: str, live: list[float]) -> None:
    record("cleaned_by", by)
    record("seed", SEED)
    record("seconds", live[-1] if live else 0.0)


def _tell(word: str, kills: list[Killed], live: list[float]) -> None:
    said = {
        word: len(kills),
        "live_when_killed": len(live),
        "through_a_bad_network": sum(each.toxic != GOOD for each in kills),
        "edits": sum(each.edits for each in kills),
        "edits_lost": sum(each.edits_lost for each in kills),
        "seconds_to_clean": {
            "median": round(statistics.median(live), 2) if live else None,
            "p95": round(live[int(0.95 * (len(live) - 1))], 2) if live else None,
            "most": round(live[-1], 2) if live else None,
        },
    }
    sys.stdout.write(f"\n{json.dumps(said)}\n")
    if folder := os.environ.get("LUFF_TEST_PROOF"):
        path = Path(folder) / f"{word}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**said, "all": [asdict(kill) for kill in kills]}, indent=2) + "\n")
