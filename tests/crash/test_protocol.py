"""
The restore protocol, run for real on a simulated API server.

The code under test is the product's own: `inject`, `withdraw`, `restore`. A
schedule says what happens to each call, at which call the process is killed,
and what somebody else writes in between. Afterwards only a restorer with no
memory of the run is left. What must hold then:

- no name of ours is anywhere;
- nobody else's change is lost;
- nothing without the scope was ever routed differently;
- a run that reported clean never reappears.

Every single trouble at every call, and every kill at every call, with each
concurrent writer, is enumerated; pairs are drawn by seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from luff.errors import LuffError
from luff.inject import Hands, injected
from luff.lifecycle import Phase
from luff.mesh import Kind, Ref
from luff.model import Delay, Fault, Object, Target
from luff.restore import find_injected, put_back
from luff.routes import Injection, inject, ours, select
from luff.scope import Scope
from luff.testing import EPOCH_S, Cluster, Killed, MemoryJournal, NoWatcher, SimClock, SimMesh, Trouble, virtual_time
from luff.withdraw import withdraw

REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "inventory")
RUN = "0123456789abcdef"
TTL_S = 600
CALLS_MOST = 12
"""A run of the protocol without trouble makes fewer calls than this."""

BASE: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "inventory", "namespace": "shop"},
    "spec": {
        "hosts": ["inventory"],
        "unknownToUs": {"keep": [1, 2]},
        "http": [
            {
                "name": "canary",
                "match": [{"headers": {"x-canary": {"exact": "1"}}}],
                "route": [{"destination": {"host": "inventory", "subset": "v2"}}],
            },
            {"name": "default", "route": [{"destination": {"host": "inventory"}, "weight": 100}], "timeout": "5s"},
        ],
    },
}


def _weights(object_: Object) -> None:
    for route in object_["spec"]["http"]:
        if route.get("name") == "default":
            route["route"][0]["weight"] = 90


def _new_route(object_: Object) -> None:
    object_["spec"]["http"].insert(
        0, {"name": "hotfix", "match": [{"uri": {"exact": "/fix"}}], "route": [{"destination": {"host": "inventory"}}]}
    )


def _reorder(object_: Object) -> None:
    object_["spec"]["http"].reverse()


def _drop_route(object_: Object) -> None:
    object_["spec"]["http"] = [route for route in object_["spec"]["http"] if route.get("name") != "canary"]


def _gitops_revert(object_: Object) -> None:
    object_["spec"] = copy.deepcopy(BASE["spec"])


def _annotate(object_: Object) -> None:
    object_["metadata"].setdefault("annotations", {})["team"] = "shop"


WRITERS: dict[str, Callable[[Object], None] | None] = {
    "nobody": None,
    "weights": _weights,
    "new route": _new_route,
    "reorder": _reorder,
    "drop route": _drop_route,
    "gitops revert": _gitops_revert,
    "annotate": _annotate,
}


@dataclass(frozen=True)
class Schedule:
    """What happens: *troubles* by number of call, a kill before call *kill_at*, a *writer* before call *write_at*."""

    troubles: tuple[tuple[int, Trouble], ...] = ()
    kill_at: int | None = None
    writer: str = "nobody"
    write_at: int = 0


def _plan(cluster: Cluster) -> Injection:
    object_ = copy.deepcopy(cluster.objects[REF])
    target = Target(host="inventory")
    now_s = int(EPOCH_S + asyncio.get_running_loop().time())
    return inject(
        object_,
        select(object_, target, namespace="shop"),
        run=RUN,
        created_s=now_s,
        expires_s=now_s + TTL_S,
        scope=Scope("a" * 32, "b" * 32),
        fault=Fault(delay=Delay(duration_s=3.0)),
        target=target,
    )


def _play(schedule: Schedule) -> tuple[Cluster, MemoryJournal, Object | None]:
    """Run the protocol through *schedule* and then only a restorer; returns the world and what a stranger's edit left."""
    cluster = Cluster()
    cluster.add(BASE)
    journal = MemoryJournal()
    mesh = SimMesh(cluster)
    expected: list[Object] = []
    count = itertools.count()

    def trouble(_verb: str, _ref: Ref) -> Trouble:
        number = next(count)
        if number == schedule.write_at and (change := WRITERS[schedule.writer]) is not None:
            cluster.edit(REF, change)
        if number == schedule.kill_at:
            mesh.kill()
        return dict(schedule.troubles).get(number, Trouble.NONE)

    mesh.trouble = trouble
    journal.killed = lambda: mesh.dead
    clock = SimClock(killed=lambda: mesh.dead)

    async def plan() -> Injection:
        await mesh.read(REF)
        return _plan(cluster)

    async def victim() -> None:
        async with injected(plan, Hands(mesh, journal, NoWatcher(), clock), patience_s=60.0):
            await clock.sleep(0.05)

    async def story() -> None:
        with contextlib.suppress(LuffError, Killed):
            await victim()
        # What was on the wire arrives; then the time of the twins is over.
        await asyncio.sleep(TTL_S + 60)
        stranger = SimMesh(cluster)
        found, _ = await find_injected(stranger, None)
        for result in await put_back(stranger, found, clock=SimClock(), patience_s=120.0):
            assert not isinstance(result, BaseException), result

    with virtual_time() as run:
        run(story())
    change = WRITERS[schedule.writer]
    if change is not None:
        wanted = copy.deepcopy(BASE)
        change(wanted)
        expected.append(wanted)
    return cluster, journal, expected[0] if expected else None


def _check(schedule: Schedule) -> None:
    cluster, journal, expected = _play(schedule)
    now = cluster.objects[REF]
    assert not [route for route in now["spec"]["http"] if ours(route)], schedule
    assert "luff.dev/fence" not in (now["metadata"].get("annotations") or {}) or schedule.kill_at is not None, schedule
    assert now["spec"]["unknownToUs"] == {"keep": [1, 2]}, schedule
    wrote = expected is not None and schedule.write_at < len(cluster.history[REF]) + CALLS_MOST
    if wrote and expected is not None and _was_written(cluster):
        assert _by_name(now) == _by_name(expected), schedule
    elif expected is None:
        assert now["spec"] == BASE["spec"], schedule
    _check_clean_stays_clean(cluster, journal, schedule)


def _was_written(cluster: Cluster) -> bool:
    return any(state is not None and _by_name(state) != _by_name(BASE) for state in cluster.history[REF])


def _by_name(object_: Object) -> dict[str, Object]:
    """Compare routes by name: where a stranger's reorder meets our removal, order among theirs is theirs."""
    return {route["name"]: route for route in object_["spec"]["http"] if not ours(route)}


def _check_clean_stays_clean(cluster: Cluster, journal: MemoryJournal, schedule: Schedule) -> None:
    if journal.phases.get(RUN, [Phase.PLANNED])[-1] is not Phase.CLEAN:
        return
    states = [
        any(ours(route) for route in state["spec"]["http"]) for state in cluster.history[REF] if state is not None
    ]
    gone = [index for index, there in enumerate(states) if there]
    if gone:
        last = gone[-1]
        assert not any(states[last + 1 :]), schedule


def _single_troubles() -> Iterator[Schedule]:
    for number, trouble in itertools.product(range(CALLS_MOST), Trouble):
        yield Schedule(troubles=((number, trouble),))


def _kills() -> Iterator[Schedule]:
    for kill_at, (writer, write_at) in itertools.product(
        range(CALLS_MOST), itertools.product(WRITERS, range(0, CALLS_MOST, 2))
    ):
        yield Schedule(kill_at=kill_at, writer=writer, write_at=write_at)


def _drawn(seed: int, size: int) -> Iterator[Schedule]:
    rng = random.Random(seed)
    for _ in range(size):
        troubles = tuple((rng.randrange(CALLS_MOST), rng.choice(list(Trouble))) for _ in range(rng.randint(1, 3)))
        kill_at = rng.choice([None, rng.randrange(CALLS_MOST)])
        yield Schedule(troubles, kill_at, rng.choice(list(WRITERS)), rng.randrange(CALLS_MOST))


def test_every_single_trouble_at_every_call_ends_clean() -> None:
    for schedule in _single_troubles():
        _check(schedule)


def test_every_kill_with_every_writer_ends_clean() -> None:
    for schedule in _kills():
        _check(schedule)


def test_drawn_schedules_of_several_troubles_end_clean() -> None:
    for schedule in _drawn(seed=20261123, size=1500):
        _check(schedule)


def test_a_patch_that_arrives_after_the_restore_meets_the_fence() -> None:
    """The case that nobody writes a unit test for: the restore reads a clean object while the patch is on the wire."""
    late = next(
        number
        for number in range(CALLS_MOST)
        if _verbs(Schedule(troubles=((number, Trouble.LATE),)))[number] == "patch"
    )
    schedule = Schedule(troubles=((late, Trouble.LATE),))

    cluster, journal, _ = _play(schedule)

    assert journal.phases[RUN][-1] is Phase.CLEAN
    assert all(
        not any(ours(route) for route in state["spec"]["http"]) for state in cluster.history[REF] if state is not None
    )


def _verbs(schedule: Schedule) -> list[str]:
    cluster = Cluster()
    cluster.add(BASE)
    mesh = SimMesh(cluster)

    async def story() -> None:
        async with injected(_planner(mesh, cluster), Hands(mesh, MemoryJournal(), NoWatcher(), SimClock())):
            pass

    with virtual_time() as run:
        run(story())
    return [verb for verb, _ in mesh.calls] + ["none"] * CALLS_MOST


def _planner(mesh: SimMesh, cluster: Cluster) -> Callable[[], asyncio.Future[Injection]]:
    async def plan() -> Injection:
        await mesh.read(REF)
        return _plan(cluster)

    return plan  # type: ignore[return-value]  # a coroutine function is what `injected` awaits


def test_a_cancelled_run_still_restores() -> None:
    cluster = Cluster()
    cluster.add(BASE)
    mesh = SimMesh(cluster)
    journal = MemoryJournal()

    async def body() -> None:
        async with injected(_planner(mesh, cluster), Hands(mesh, journal, NoWatcher(), SimClock())):
            await asyncio.sleep(3600)

    async def story() -> None:
        task = asyncio.ensure_future(body())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with virtual_time() as run:
        run(story())

    assert cluster.objects[REF]["spec"] == BASE["spec"]
    assert journal.phases[RUN][-1] is Phase.CLEAN


def test_withdrawing_by_name_waits_out_an_api_that_is_away() -> None:
    cluster = Cluster()
    cluster.add(BASE)
    mesh = SimMesh(cluster)

    async def story() -> float:
        injection = _plan(cluster)
        await mesh.patch(REF, injection.operations)
        began_s = asyncio.get_running_loop().time()
        mesh.trouble = lambda _verb, _ref: (
            Trouble.LOST_BEFORE if asyncio.get_running_loop().time() < began_s + 300 else Trouble.NONE
        )
        done = await withdraw(mesh, REF, run=RUN, clock=SimClock())
        assert set(done.removed) == set(injection.names)
        return asyncio.get_running_loop().time() - began_s

    with virtual_time() as run:
        took_s = run(story())

    assert 300 <= took_s < 330
    assert cluster.objects[REF]["spec"] == BASE["spec"]
