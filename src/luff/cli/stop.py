"""`luff stop`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from luff.cli.options import MeshOptions, Voice, consent, mesh_options, voice_options
from luff.cli.restore import who_am_i
from luff.errors import LuffError, NothingSelected, RestoreNotVerified, UsageError

if TYPE_CHECKING:
    from luff.mesh import Mesh
    from luff.restore import Injected

__all__ = ["stop"]

ASK_FIRST_S = 20.0
"""How long a live run is given to stop and restore by itself before its routes are taken out from here."""
LOOK_EVERY_S = 0.5


@click.command()
@click.argument("run", required=False)
@consent("--all", "everything", is_flag=True, help="Every run.")
@mesh_options
@voice_options
def stop(run: str | None, everything: bool, mesh: MeshOptions, voice: Voice) -> int:
    """Stop RUN, wherever it runs, and see that its routes are restored."""
    from luff.cli.mesh_choice import ambient_mesh
    from luff.mesh.kubernetes import KubernetesMesh  # the client costs half a second

    if (run is None) == (not everything):
        raise UsageError("name one RUN, or say --all", next_step="`luff status` lists them")
    api = KubernetesMesh.connect(ambient_mesh(mesh).connection)
    try:
        return asyncio.run(_stop(api, run, namespace=mesh.namespace, voice=voice))
    finally:
        api.close()


async def _stop(api: Mesh, run: str | None, *, namespace: str | None, voice: Voice) -> int:
    from luff.clock import SystemClock
    from luff.restore import ask_to_stop, find_injected, put_back
    from luff.withdraw import PATIENCE_S

    clock = SystemClock()
    namespaces = None if namespace is None else [namespace]

    async def mine() -> list[Injected]:
        found, _ = await find_injected(api, namespaces)
        return [each for each in found if run is None or (each.run or "").startswith(run)]

    there = await mine()
    if not there:
        if run is None:
            click.echo("nothing is injected", err=True)
            return 0
        raise NothingSelected(f"no run {run} is in the mesh", next_step="`luff status` lists what is")
    for each in there:
        if each.state == "live" and await ask_to_stop(api, each.ref, who=who_am_i()) and voice.level >= 0:
            click.echo(f"asked run {each.run} ({each.holder}) to stop", err=True)
    until_s = clock.monotonic_s() + ASK_FIRST_S
    while any(each.state == "live" for each in there) and clock.monotonic_s() < until_s:
        await clock.sleep(LOOK_EVERY_S)
        there = await mine()
    results = await put_back(api, there, clock=clock, patience_s=PATIENCE_S)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, LuffError):
            raise error
    if errors:
        raise RestoreNotVerified(f"a fault may still be live: {errors[0]}", next_step="run `luff restore --all`")
    click.echo("stopped; every route is back")
    return 0
