"""`luff stop`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import click

from luff.cli import tell
from luff.cli.options import MeshOptions, Voice, consent, mesh_options, option, voice_options
from luff.cli.restore import check_run, who_am_i
from luff.errors import LuffError, MeshError, NothingSelected, RestoreNotVerified, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luff.clock import Clock
    from luff.mesh import Mesh, Ref
    from luff.restore import Injected

__all__ = ["stop", "stop_everything"]

ASK_FIRST_S = 20.0
"""How long a live run is given to stop and restore by itself before its routes are taken out from here."""
LOOK_EVERY_S = 0.5
LATE_S = 3.0
"""How long after a lever was pulled a run that asked just before may still inject."""
LOOKS_MOST = 20


@click.command()
@click.argument("run", required=False)
@consent("--all", "everything", is_flag=True, help="Every run.")
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
    stopped = await _stop_runs(api, run, where, clock=SystemClock(), voice=voice)
    if not stopped and run is not None:
        raise NothingSelected(f"no run {run} is in the mesh", next_step="`luff status` lists what is")
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
    quiet = False
    for _ in range(LOOKS_MOST):
        found = await _stop_runs(api, None, namespaces, clock=clock, voice=voice)
        if quiet and not found:
            return
        quiet = not found
        await clock.sleep(LATE_S)
    raise RestoreNotVerified(
        "something keeps being injected, by a luff that does not ask the lever",
        next_step="see `luff status`, and take its role away",
    )


async def _stop_runs(
    api: Mesh, run: str | None, namespaces: Sequence[str] | None, *, clock: Clock, voice: Voice
) -> int:
    """Ask live runs to stop, wait for them a while, restore what is left; returns how many there were."""
    from luff.restore import ask_to_stop, find_patiently, held_by_runs, put_back
    from luff.withdraw import PATIENCE_S, restore_command

    def is_meant(each: str | None) -> bool:
        return run is None or (each or "").startswith(run)

    async def mine() -> list[Injected]:
        found, _ = await find_patiently(api, namespaces, clock=clock)
        return [each for each in found if is_meant(each.run)]

    async def holding() -> list[tuple[Ref, str]]:
        # Best effort, and so not where the answer to this is what counts.
        try:
            return [each for each in await held_by_runs(api, namespaces) if is_meant(each[1])]
        except MeshError:
            return []

    held = await holding()
    for ref, its_run in held:
        if await ask_to_stop(api, ref, who=who_am_i()) and voice.level >= 0:
            tell(f"asked run {its_run} on {ref} to stop", err=True)
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
        commands = dict.fromkeys(f"`{restore_command(api, each.ref, each.run)}`" for each in left)
        said = "; ".join(dict.fromkeys(error.message for error in left.values() if isinstance(error, LuffError)))
        raise RestoreNotVerified(f"a fault may still be live: {said}", next_step=f"run {' and '.join(commands)}")
    return len({*(each.run for each in there), *(each for _, each in held)})
