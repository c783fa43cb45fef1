"""
What is looked after from the patch on, for as long as a fault may be live.

What must stay true: nothing is left unwatched. Who notices something ends the
run; so does a watcher that breaks, since from then on nobody would notice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from luff.beside import find_out_who_removed
from luff.errors import MeshError, NotFound, RunAborted, StoreError
from luff.heartbeat import heartbeat_lost
from luff.lever import check_lever, check_record
from luff.lifecycle import EXPIRY_MARGIN_S
from luff.tripwires import tripwires
from luff.underway import Run
from luff.withdraw import remaining

__all__ = ["watched"]

LOOK_EVERY_S = 2.0
"""How often the lever and the twins are looked at."""
ASK_TIME_EVERY_S = 30.0
"""How often the API server is asked for its time: this machine may have slept meanwhile."""


@asynccontextmanager
async def watched(run: Run) -> AsyncIterator[None]:
    """Watch the lever, the twins, the guard or the reaper, the time and the tripwires for the life of the body."""
    work = {
        "the lever and the twins": _watch_lever_and_twins(run),
        "the guard": _watch_guard(run),
        "the twins' time": _watch_time(run),
    }
    if run.options.needs_reaper:
        work["the reaper"] = _watch_reaper(run)
    for number, tripwire in enumerate(tripwires(run.experiment, run.world.clock, run.stop), 1):
        work[f"tripwire {number}"] = tripwire
    tasks = [_start(run, name, each) for name, each in work.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _start(run: Run, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            run.stop(RunAborted("bound", f"nobody watched {name} any more: {type(error).__name__}: {error}"))

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


async def _watch_lever_and_twins(run: Run) -> None:
    """Look after the lever and the twins. Twins that others took out are not put back."""
    live = run.live
    assert live.ref is not None
    assert live.injection is not None
    while True:
        await run.world.clock.sleep(LOOK_EVERY_S)
        try:
            await check_lever(run.world.mesh, live.ref.namespace)
            # A store that is away refuses what is new; it ends nothing that is live.
            with contextlib.suppress(StoreError):
                await check_record(run.world.levers, live.ref.namespace)
        except RunAborted as pulled:
            run.stop(pulled)
            return
        try:
            left = remaining(await run.world.mesh.read(live.ref), live.injection.run)
        except NotFound:
            left, run.situation.object_deleted = [], True
        except MeshError:
            continue
        if len(left) < len(live.injection.names):
            run.situation.fault_removed = True
            if not run.situation.object_deleted:
                find_out_who_removed(run)
            return


async def _watch_guard(run: Run) -> None:
    code = await run.world.watcher_died()
    run.stop(RunAborted("bound", f"the guard ended with {code}, so nobody could clean up after this process"))


async def _watch_reaper(run: Run) -> None:
    """Stop when nobody but us is there any more to clean up; see `luff.heartbeat`."""
    assert run.live.ref is not None
    lost = await heartbeat_lost(run.world.mesh, run.live.ref.namespace, clock=run.world.clock)
    run.stop(RunAborted("bound", lost.message, next_step=lost.next_step))


async def _watch_time(run: Run) -> None:
    """Stop before the twins are old enough for anybody to remove them, by the clock that their age is read from."""
    assert run.live.injection is not None
    clock, until_s = run.world.clock, run.live.injection.expires_s - EXPIRY_MARGIN_S
    # Until the server has answered, the time is the earliest that it can be.
    asked_s, server_s = clock.monotonic_s(), float(run.live.injection.created_s)
    while True:
        try:
            server_s, asked_s = await run.world.mesh.server_time_s(), clock.monotonic_s()
        except MeshError:
            server_s, asked_s = server_s + clock.monotonic_s() - asked_s, clock.monotonic_s()
        if server_s >= until_s:
            break
        await clock.sleep(min(until_s - server_s, ASK_TIME_EVERY_S))
    run.stop(RunAborted("bound", "restore.ttl is over", next_step="raise restore.ttl, or shorten the traffic"))
