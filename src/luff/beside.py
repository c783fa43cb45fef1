"""
What is done beside a run, and neither delays nor fails it: Events on the object, and giving field ownership back.

That something came to nothing is a line of the timeline.
"""

from __future__ import annotations

import asyncio

from luff.announce import Announcement, announce, reaped
from luff.errors import MeshError
from luff.underway import Run
from luff.units import show_duration
from luff.withdraw import give_back

__all__ = ["find_out_who_removed", "finish_aside", "give_ownership_back", "write_event"]

EVENT_LOOKS = 3
EVENT_EVERY_S = 0.3
"""A reaper writes its Event after the removal."""
ASIDE_WITHIN_S = 2.0
"""How long the end of a run waits for what was done beside it."""


def write_event(run: Run, reason: str, said: str) -> None:
    """Write an Event of *reason* on the object, beside the run: who does what, then *said*."""
    assert run.plan is not None
    note = run.redacted(f"{_who_does_what(run)}{said}")
    announcement = Announcement(reason, note, run.world.clock.now_s())
    run.beside(f"event {reason}", announce(run.world.mesh, run.plan.virtual_service, announcement))


def _who_does_what(run: Run) -> str:
    fault = run.experiment.spec.fault
    parts = []
    if fault.delay is not None:
        parts.append(f"delay of {show_duration(fault.delay.duration_s)}")
    if fault.abort is not None:
        status = f"HTTP {fault.abort.http}" if fault.abort.http is not None else f"gRPC {fault.abort.grpc}"
        parts.append(f"abort with {status}")
    who = f"{run.options.actor} runs {run.experiment.name} (run {run.record.run})"
    return f"{who}: {' and '.join(parts)} for requests in its scope"


def give_ownership_back(run: Run) -> None:
    """Give back, beside the run, the ownership of fields that our patches took; nothing depends on it any more."""
    run.beside("ownership", _give_back(run))


async def _give_back(run: Run) -> None:
    done = run.live.withdrawal
    assert done is not None
    said = None if done.object_ is None else await give_back(run.world.mesh, done.ref, done.object_)
    if said is not None:
        run.record.step(run.world.clock.now_s(), "ownership", said)


def find_out_who_removed(run: Run) -> None:
    """Find out, beside the run, whether it was a reaper of luff who took the twins out: it says so in an Event."""
    run.beside("who took the twins out", _find_out_who_removed(run))


async def _find_out_who_removed(run: Run) -> None:
    assert run.live.ref is not None
    for _ in range(EVENT_LOOKS):
        try:
            run.situation.reaped = await reaped(run.world.mesh, run.live.ref, run.record.run)
        except MeshError:
            # Not for this role to read: then it stays open who it was.
            return
        if run.situation.reaped is not None:
            return
        await run.world.clock.sleep(EVENT_EVERY_S)


async def finish_aside(run: Run) -> None:
    """Wait a little for what is done beside the run, and say in the timeline what came to nothing."""
    if not run.aside:
        return
    tasks = [task for _, task in run.aside]
    await asyncio.wait(tasks, timeout=ASIDE_WITHIN_S)
    for task in tasks:
        task.cancel()
    for (what, _), error in zip(run.aside, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if error is None:
            continue
        late = isinstance(error, asyncio.CancelledError)
        why = f"not within {ASIDE_WITHIN_S:.0f} s" if late else f"{type(error).__name__}: {error}"
        run.record.step(run.world.clock.now_s(), what, run.redacted(f"not done: {why}"))
