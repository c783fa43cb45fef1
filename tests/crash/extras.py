"""What no schedule says: long outages, refusals that last, a dead run's Lease, a cancelled run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

import pytest

from luff.errors import NoGuard, RestoreNotVerified, StoreError
from luff.guard import Guard
from luff.inject import Hands, injected
from luff.lifecycle import Phase
from luff.lock import locked
from luff.mesh import Ref
from luff.names import ours
from luff.patches import clone
from luff.reaper import Reaper
from luff.testing import Cluster, Killed, MemoryJournal, NoWatcher, SimClock, SimMesh, Trouble, virtual_time
from luff.withdraw import NAMELESS, withdraw
from tests.crash.world import REF, SECOND_RUN, TTL_S, planner
from tests.crash.writers import BASE, RUN

__all__ = ["EXTRAS"]

OUTAGE_S = 3600.0
REFUSED_S = 120.0


def _cluster() -> tuple[Cluster, SimMesh]:
    cluster = Cluster()
    cluster.add(BASE)
    return cluster, SimMesh(cluster)


async def _put_in(mesh: SimMesh, run: str = RUN) -> None:
    injection = await planner(mesh, run)()
    await mesh.patch(REF, injection.operations)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _twins(cluster: Cluster) -> list[str]:
    return [route["name"] for route in cluster.objects[REF]["spec"]["http"] if ours(route)]


def a_withdrawal_waits_out_an_api_that_is_away_for_an_hour() -> None:
    cluster, mesh = _cluster()

    async def story() -> float:
        await _put_in(mesh)
        mesh.trouble = lambda _verb, _ref: Trouble.LOST_BEFORE if _now_s() < OUTAGE_S else Trouble.NONE
        done = await withdraw(mesh, REF, run=RUN, clock=SimClock())
        assert done.removed
        return _now_s()

    with virtual_time() as run:
        took_s = run(story())
    assert OUTAGE_S <= took_s < OUTAGE_S + 20, took_s
    assert cluster.objects[REF]["spec"] == BASE["spec"]


def a_withdrawal_with_patience_says_when_it_is_over_and_how_to_go_on() -> None:
    _, mesh = _cluster()

    async def story() -> None:
        await _put_in(mesh)
        mesh.trouble = lambda _verb, _ref: Trouble.ERROR
        with pytest.raises(RestoreNotVerified) as raised:
            await withdraw(mesh, REF, run=RUN, clock=SimClock(), patience_s=30)
        assert raised.value.next_step == f"run `luff restore {RUN} -n shop --context simulated`"
        assert 30 <= _now_s() < 40

    with virtual_time() as run:
        run(story())


def a_refused_removal_is_disarmed_and_removed_once_that_is_allowed() -> None:
    cluster, mesh = _cluster()

    async def story() -> None:
        await _put_in(mesh)
        mesh.trouble = _refuse_removing(cluster, until_s=REFUSED_S)
        restoring = asyncio.ensure_future(withdraw(mesh, REF, run=RUN, clock=SimClock()))
        await asyncio.sleep(REFUSED_S / 2)
        assert _twins(cluster), "refused so far"
        assert not any("fault" in route for route in cluster.objects[REF]["spec"]["http"])
        done = await restoring
        assert done.removed
        assert _now_s() < REFUSED_S + 10

    with virtual_time() as run:
        run(story())
    assert cluster.objects[REF]["spec"] == BASE["spec"]


def _refuse_removing(cluster: Cluster, *, until_s: float) -> Callable[[str, Ref], Trouble]:
    """Refuse every second write, which is the removal, as a policy would that insists on a number of routes."""
    turn = iter(range(10**6))

    def trouble(verb: str, _ref: Ref) -> Trouble:
        refuses = verb in ("patch", "replace") and _now_s() < until_s and next(turn) % 2 == 0
        return Trouble.REJECTED if refuses and _twins(cluster) else Trouble.NONE

    return trouble


def the_reaper_takes_a_run_for_dead_when_its_lease_stands_still() -> None:
    cluster, mesh = _cluster()

    async def story() -> None:
        reaper, clock = Reaper(SimMesh(cluster), SimClock()), SimClock()
        async with locked(mesh, REF, run=RUN, holder="tester", clock=clock, stop=_no_stop):
            await _put_in(mesh)
            for _ in range(12):
                sweep = await reaper.sweep()
                assert not sweep.removed, sweep
                await asyncio.sleep(5)
            mesh.kill()
            began_s = _now_s()
            while _twins(cluster) and _now_s() - began_s < REFUSED_S:
                await asyncio.sleep(5)
                await reaper.sweep()
            assert _now_s() - began_s <= 26, _now_s() - began_s  # 15 s of silence, seen at most two rounds late

    with virtual_time() as run, pytest.raises(Killed):
        run(story())
    assert not _twins(cluster)


def _no_stop(_reason: object) -> None:
    return


def the_reaper_removes_what_is_expired_at_its_first_look() -> None:
    cluster, mesh = _cluster()

    async def story() -> None:
        async with locked(SimMesh(cluster), REF, run=RUN, holder="tester", clock=SimClock(), stop=_no_stop):
            await _put_in(mesh)
            await asyncio.sleep(TTL_S + 2)
            sweep = await Reaper(SimMesh(cluster), SimClock()).sweep()
            assert len(sweep.removed) == 1, sweep

    with virtual_time() as run:
        run(story())


def what_tells_no_run_is_removed_without_touching_runs() -> None:
    cluster, mesh = _cluster()

    async def story() -> None:
        await _put_in(mesh)
        nameless = clone(cluster.objects[REF]["spec"]["http"][0])
        nameless["name"] = "luff.what"
        cluster.edit(REF, lambda object_: object_["spec"]["http"].insert(0, nameless))
        done = await withdraw(mesh, REF, run=NAMELESS, clock=SimClock())
        assert done.removed == ("luff.what",)

    with virtual_time() as run:
        run(story())
    assert {name.split(".")[2] for name in _twins(cluster)} == {RUN}


def one_run_is_restored_without_touching_another() -> None:
    cluster, mesh = _cluster()

    async def story() -> None:
        await _put_in(mesh)
        await _put_in(mesh, SECOND_RUN)
        await withdraw(mesh, REF, run=RUN, clock=SimClock())

    with virtual_time() as run:
        run(story())
    assert {name.split(".")[2] for name in _twins(cluster)} == {SECOND_RUN}


def a_cancelled_run_still_restores() -> None:
    cluster, mesh = _cluster()
    journal = MemoryJournal()

    async def body() -> None:
        async with injected(planner(mesh, RUN), Hands(mesh, journal, NoWatcher(), SimClock())):
            await asyncio.sleep(3600)

    async def story() -> None:
        task = asyncio.ensure_future(body())
        await asyncio.sleep(1)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
        await asyncio.wait([task])
        assert task.cancelled()

    with virtual_time() as run:
        run(story())
    assert cluster.objects[REF]["spec"] == BASE["spec"]
    assert journal.phases[RUN][-1] is Phase.CLEAN


class _Stuck(MemoryJournal):
    """This is a database that answers nothing once it is armed."""

    async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
        await asyncio.sleep(OUTAGE_S)


class _Restored(MemoryJournal):
    """This is a database that was put back from a backup: it does not know of the run."""

    async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
        raise ValueError(f"no run {run}")


def a_journal_that_is_stuck_or_wrong_keeps_no_restore_waiting() -> None:
    for journal in (_Stuck(), _Restored(), MemoryJournal()):
        cluster, mesh = _cluster()

        async def story(journal: MemoryJournal, mesh: SimMesh) -> float:
            async with injected(planner(mesh, RUN), Hands(mesh, journal, NoWatcher(), SimClock())):
                journal.broken = True
                left_s = _now_s()
            return _now_s() - left_s

        with virtual_time() as run:
            took_s = run(story(journal, mesh))
        assert took_s < 5, took_s
        assert cluster.objects[REF]["spec"] == BASE["spec"]


class _Pipes:
    """This is a guard's process that has said *lines* and nothing more."""

    def __init__(self, *lines: dict[str, object]) -> None:
        self.stdin = self
        self.stdout = asyncio.StreamReader()
        for line in lines:
            self.stdout.feed_data(json.dumps(line).encode() + b"\n")

    def write(self, _line: bytes) -> None:
        """Take the line, and let nobody answer it."""

    async def drain(self) -> None:
        """Have taken it."""


def a_guards_word_about_another_run_lets_nothing_be_sent() -> None:
    _, mesh = _cluster()

    async def story() -> None:
        guard = Guard(cast("asyncio.subprocess.Process", _Pipes({"watching": SECOND_RUN})))
        async with injected(planner(mesh, RUN), Hands(mesh, MemoryJournal(), guard, SimClock())):
            raise AssertionError("it went on")

    with virtual_time() as run, pytest.raises(NoGuard):
        run(story())
    assert not any(verb == "patch" for verb, _ in mesh.calls)


def nothing_is_injected_when_the_journal_cannot_be_written() -> None:
    cluster, mesh = _cluster()

    async def story() -> None:
        async with injected(planner(mesh, RUN), Hands(mesh, MemoryJournal(broken=True), NoWatcher(), SimClock())):
            raise AssertionError("it went on")

    with virtual_time() as run, pytest.raises(StoreError):
        run(story())
    assert not any(verb == "patch" for verb, _ in mesh.calls)
    assert not _twins(cluster)


EXTRAS: tuple[Callable[[], None], ...] = (
    a_withdrawal_waits_out_an_api_that_is_away_for_an_hour,
    a_withdrawal_with_patience_says_when_it_is_over_and_how_to_go_on,
    a_refused_removal_is_disarmed_and_removed_once_that_is_allowed,
    the_reaper_takes_a_run_for_dead_when_its_lease_stands_still,
    the_reaper_removes_what_is_expired_at_its_first_look,
    what_tells_no_run_is_removed_without_touching_runs,
    one_run_is_restored_without_touching_another,
    a_cancelled_run_still_restores,
    a_journal_that_is_stuck_or_wrong_keeps_no_restore_waiting,
    nothing_is_injected_when_the_journal_cannot_be_written,
    a_guards_word_about_another_run_lets_nothing_be_sent,
)
