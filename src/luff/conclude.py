"""
The end of a run, however it came to it: see the routes back, tell everybody, and make the outcome.

What was learnt and where the routes are stay two things, and a mistake of ours
in either keeps none of the rest from being done.
"""

from __future__ import annotations

import asyncio
import shlex
import traceback

from luff.announce import FAULT_REMOVED, RESTORE_FAILED
from luff.beside import finish_aside, give_ownership_back, write_event
from luff.endings import ended_early
from luff.errors import InternalError, LuffError, RestoreNotVerified, UsageError
from luff.lever import pull
from luff.lifecycle import Phase
from luff.mesh import Mesh, command_on, named
from luff.outcome import Outcome
from luff.samples import Samples
from luff.settle import Settled, await_gone
from luff.underway import Run
from luff.verdicts import Judgement, judge

__all__ = ["conclude", "see_it_gone"]


async def conclude(run: Run, story: asyncio.Task[None]) -> tuple[Outcome, Samples]:
    """
    Let the story come to its end, see where the routes are, and make the outcome.

    A mistake of ours in any of these is part of the outcome, and keeps none of the others from being done.
    """
    error = await _end_of(story, run)
    if isinstance(error, UsageError) and run.live.injection is None:
        # Nothing was touched, and nothing was learnt: the command line or the environment has to change.
        raise error
    for step in (see_it_gone, _stop_everything, finish_aside):
        try:
            await step(run)
        except Exception as mistake:  # the outermost place of a run: what it has found out must not be lost
            error = error or _mistake(run, mistake)
    return _outcome(run, error), run.record.samples


async def _end_of(story: asyncio.Task[None], run: Run) -> LuffError | None:
    """Return what ended the story before its time, ``None`` when nothing did. Why it was stopped comes before what that led to."""
    await asyncio.wait([story])
    raised = None if story.cancelled() else story.exception()
    if raised is not None and not isinstance(raised, Exception):
        raise raised
    if raised is run.live.stranded:
        raised = None
    if raised is not None and not isinstance(raised, LuffError):
        raised = _mistake(run, raised)
    return run.stop.reason or raised


def _mistake(run: Run, error: Exception) -> InternalError:
    """Keep the trace of a mistake of luff's own, and return it as what ended the run."""
    kept = run.world.keep_traceback(run.redacted("".join(traceback.format_exception(error))))
    said = run.redacted(f"{type(error).__name__}: {error}")
    run.step("mistake", f"{said}; the traceback is in {kept}")
    return InternalError(
        f"luff made a mistake: {said}; the traceback is in {kept}",
        next_step=f"report it with the traceback; `{command_on(run.world.mesh, 'status', namespace=None)}` shows whether anything is injected",
    )


async def see_it_gone(run: Run) -> None:
    """See, once, that the proxies have let go of the twins too, however the run ended; note in *run* when they have not."""
    live = run.live
    if live.stranded is not None and run.record.gone is None:
        write_event(run, RESTORE_FAILED, f": {live.stranded.message}; {live.stranded.next_step}")
    if live.withdrawal is None or live.injection is None or run.record.gone is not None:
        return
    if all(entry.phase != Phase.CLEAN for entry in run.record.timeline):
        # A stop may have come while the proxies were looked at, and this be the second time.
        run.step(str(Phase.CLEAN), "the object reads back without anything of ours")
        if live.withdrawal.removed or live.object_ is not None:
            write_event(run, FAULT_REMOVED, ": no twin is left in the object, as read back")
        give_ownership_back(run)
    try:
        run.record.gone = await await_gone(run.plane, live.injection, clock=run.world.clock)
    except Exception as error:  # the routes are back: not being able to look loses nothing of what was learnt
        run.record.gone = Settled("unobserved", 0, 0.0)
        said = run.redacted(f"{type(error).__name__}: {error}")
        run.step(str(Phase.CLEAN), f"the proxies could not be looked at: {said}")
    if run.record.gone.state == "stale":
        run.stale = RestoreNotVerified(
            f"{live.ref} is clean in the API, but {', '.join(run.record.gone.where)} still run the fault",
            next_step=_look_at_proxies(run.world.mesh),
        )
        write_event(run, RESTORE_FAILED, f": {run.stale.message}; {run.stale.next_step}")


def _look_at_proxies(mesh: Mesh) -> str:
    """Return what to do about proxies that keep what the API has no more."""
    nothing = "`luff status` reads the API, where nothing is left"
    if mesh.kind == "lab":
        return f"run `luff lab status` to see which proxy refuses its configuration, and why; {nothing}"
    command = shlex.join(["istioctl", "proxy-status", *named(mesh)])
    return f"run `{command}` to see which proxies istiod does not reach, and restart their pods; {nothing}"


async def _stop_everything(run: Run) -> None:
    """Pull the lever where a fault may still be live: nothing more is to be injected before somebody has looked."""
    if run.unrestored is None:
        return
    assert run.live.ref is not None
    namespace = run.live.ref.namespace
    why = f"a restore is not verified: {run.unrestored.message}"
    world, who = run.world, f"run {run.record.run}"
    done = await pull(world.mesh, world.levers, namespace, who=who, why=why, clock=world.clock)
    if done.cluster_error is not None:
        pulling = command_on(world.mesh, "lever", "on", "--why", "a restore is not verified", namespace=namespace)
        run.step("lever", f"NOT pulled for {namespace}: {done.cluster_error.message}; `{pulling}`")
    if done.store_error is not None:
        run.step("lever", f"NOT pulled for {namespace} in the store: {done.store_error.message}")
    halves = [("the cluster", done.holds), ("the store", world.levers is not None and done.store_error is None)]
    if pulled := " and in ".join(half for half, is_on in halves if is_on):
        off = command_on(world.mesh, "lever", "off", namespace=namespace)
        run.step("lever", f"pulled for {namespace} in {pulled}: `{off}` once you have looked")


def _outcome(run: Run, error: LuffError | None) -> Outcome:
    ended_s = run.world.clock.now_s()
    try:
        return run.record.outcome(_judgement(run, error), ended_s=ended_s)
    except Exception as mistake:  # as in `_conclude`: where the routes are has to be said all the same
        judgement = ended_early(error or _mistake(run, mistake), run.situation, unrestored=run.unrestored)
        return run.record.outcome(judgement, ended_s=ended_s, measured=False)


def _judgement(run: Run, error: LuffError | None) -> Judgement:
    """Say what was learnt. An early end says why; everything else is for the rules of `luff.checks`."""
    early = error is not None or run.unrestored is not None or run.situation.control_unhealthy is not None
    if early or run.live.injection is None or run.plan is None or run.source is None:
        return ended_early(error, run.situation, unrestored=run.unrestored)
    return judge(
        run.plan.checks,
        run.record.samples,
        run.source.evidence,
        experiment=run.experiment,
        situation=run.situation,
        generator=run.record.generator,
    )
