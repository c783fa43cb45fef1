"""`luff stop`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from luff.cli import tell
from luff.cli.options import MeshOptions, MustAct, Voice, by_hand, mesh_options, option, voice_options
from luff.cli.restore import check_run, who_am_i
from luff.errors import LuffError, MeshError, NothingSelected, RestoreNotVerified, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luff.clock import Clock
    from luff.mesh import Mesh
    from luff.restore import Held, Injected

__all__ = ["Stopped", "stop", "stop_everything", "stop_runs"]

ASK_FIRST_S = 20.0
"""How long a live run is given to stop and restore by itself before its routes are taken out from here."""
LOOK_EVERY_S = 0.5
LATE_S = 3.0
"""How long after a lever was pulled a run that asked just before may still inject."""
LOOKS_MOST = 20


@click.command(cls=MustAct)
@click.argument("run", required=False)
@by_hand("--all", "everything", is_flag=True, help="Every run.")
@option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
@mesh_options
@voice_options
def stop(run: str | None, everything: bool, output: str, mesh: MeshOptions, voice: Voice) -> int:
    """Stop RUN, wherever it runs, and see that its routes are restored."""
    from luff.cli.mesh_choice import ambient_mesh
    from luff.cli.signals import to_the_end
    from luff.cli.silence import tell_silence
    from luff.mesh.kubernetes import KubernetesMesh  # the client costs half a second
    from luff.withdraw import PATIENCE_S

    check_run(run)
    if (run is None) == (not everything):
        raise UsageError("name one RUN, or say --all", next_step="`luff status` lists them")
    connection = ambient_mesh(mesh).connection
    api = KubernetesMesh.connect(connection, on_silence=tell_silence(connection, patience_s=PATIENCE_S))
    try:
        return asyncio.run(to_the_end(_stop(api, run, namespace=mesh.namespace, output=output, voice=voice)))
    finally:
        api.close()


async def _stop(api: Mesh, run: str | None, *, namespace: str | None, output: str, voice: Voice) -> int:
    from luff.clock import SystemClock

    where = None if namespace is None else [namespace]
    done = await stop_runs(api, run, where, clock=SystemClock(), voice=voice)
    stopped = len(done.runs)
    if not stopped and run is not None:
        raise NothingSelected(f"no run {run} is in the mesh", next_step="`luff status` lists what is")
    done.check_ended(api, where)
    if output == "json":
        tell(json.dumps({"stopped": stopped, "restored": True}))
    elif stopped:
        # It may have come to its own end just before it could hear of this.
        tell("ended; every route is back")
    else:
        tell("nothing is injected", err=True)
    return 0


async def stop_everything(api: Mesh, namespaces: Sequence[str] | None, *, clock: Clock, voice: Voice) -> None:
    """
    End every run in *namespaces* (everywhere when ``None``) and restore what each has.

    Comes back only when two looks, a while apart, have found nothing: a run
    that asked whether it may just before it was forbidden injects a moment
    later, and ends itself.
    """
    from luff.mesh import command_on

    quiet = False
    for _ in range(LOOKS_MOST):
        found = (await stop_runs(api, None, namespaces, clock=clock, voice=voice)).runs
        if quiet and not found:
            return
        quiet = not found
        await clock.sleep(LATE_S)
    seeing = command_on(api, "status", namespace=namespaces[0] if namespaces else None)
    raise RestoreNotVerified(
        "something keeps being injected, by a luff that does not ask the lever",
        next_step=f"see `{seeing}`, and take its role away",
    )


@dataclass(frozen=True, slots=True)
class Stopped:
    """These are the *runs* that there were, and those that go on: *deaf* were asked to end, *unasked* could not be."""

    runs: frozenset[str | None]
    deaf: tuple[Held, ...]
    unasked: tuple[Held, ...]

    def check_ended(self, api: Mesh, namespaces: Sequence[str] | None) -> None:
        """Raise `LuffError` when a run goes on: it has nothing in the mesh now, and may inject yet."""
        from luff.mesh import command_on

        said = [
            f"run {each.run} on {each.ref} was asked to end, and {each.holder} still holds it" for each in self.deaf
        ]
        said += [
            f"run {each.run} on {each.ref}, held by {each.holder}, could not be asked to end" for each in self.unasked
        ]
        if said:
            lever = command_on(api, "lever", "on", "--why", "...", namespace=namespaces[0] if namespaces else None)
            raise LuffError("; ".join(said), next_step=f"end its process, or forbid every run with `{lever}`")


async def stop_runs(
    api: Mesh, run: str | None, namespaces: Sequence[str] | None, *, clock: Clock, voice: Voice
) -> Stopped:
    """Ask live runs to stop, wait for them a while, restore what is left; returns which there were."""
    from luff.restore import ask_to_stop, find_patiently, held_by_runs, how_to_put_back, put_back
    from luff.withdraw import PATIENCE_S

    words = ["stop", run or "--all"]

    def is_meant(each: str | None) -> bool:
        return run is None or (each or "").startswith(run)

    async def mine() -> list[Injected]:
        found, _ = await find_patiently(api, namespaces, clock=clock, asked=words)
        return [each for each in found if is_meant(each.run)]

    async def holding() -> list[Held]:
        # Best effort, and so not where the answer to this is what counts.
        try:
            return [each for each in await held_by_runs(api, namespaces) if is_meant(each.run)]
        except MeshError:
            return []

    held = await holding()
    asked = [each for each in held if await ask_to_stop(api, each.ref, who=who_am_i())]
    for each in asked if voice.level >= 0 else []:
        tell(f"asked run {each.run} on {each.ref} to stop", err=True)
    until_s = clock.monotonic_s() + ASK_FIRST_S
    waiting = held
    while waiting and clock.monotonic_s() < until_s:
        await clock.sleep(LOOK_EVERY_S)
        waiting = [each for each in await holding() if each in held]
    there = await mine()
    results = await put_back(api, there, clock=clock, patience_s=PATIENCE_S)
    left = {each: result for each, result in zip(there, results, strict=True) if isinstance(result, BaseException)}
    for error in left.values():
        if not isinstance(error, LuffError):
            raise error
    if left:
        said = "; ".join(dict.fromkeys(error.message for error in left.values() if isinstance(error, LuffError)))
        raise RestoreNotVerified(f"a fault may still be live: {said}", next_step=how_to_put_back(api, left))
    # A run whose routes were taken out from here ends by itself.
    on = [each for each in waiting if each.run not in {its.run for its in there}]
    return Stopped(
        frozenset({*(each.run for each in there), *(each.run for each in held)}),
        deaf=tuple(each for each in on if each in asked),
        unasked=tuple(each for each in on if each not in asked),
    )
