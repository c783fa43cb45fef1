"""`luff lever`: the global stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from luff.cli.options import MeshOptions, Voice, mesh_options, option, voice_options
from luff.cli.restore import who_am_i
from luff.errors import LuffError, MeshError, UsageError

if TYPE_CHECKING:
    from luff.mesh import Mesh

__all__ = ["lever"]


@click.group()
def lever() -> None:
    """The global stop: end every run, restore everything, refuse new runs until it is off again."""


@lever.command()
@option("--why", metavar="TEXT", help="The reason, for everybody whose run is refused.")
@mesh_options
@voice_options
def on(why: str | None, mesh: MeshOptions, voice: Voice) -> int:
    """
    Stop every run, restore everything, and refuse new runs until `luff lever off`.

    With -n for that namespace, without it everywhere. It asks nothing: who
    pulls it is in a hurry.
    """
    if not (why or "").strip():
        raise UsageError("a lever needs a reason", next_step="add --why 'what happened'")
    return _with_mesh(mesh, lambda api: _on(api, str(why).strip(), namespace=mesh.namespace, voice=voice))


@lever.command()
@mesh_options
@voice_options
def off(mesh: MeshOptions, voice: Voice) -> int:
    """Let runs be started again. Nothing is started by it."""
    return _with_mesh(mesh, lambda api: _off(api, namespace=mesh.namespace, voice=voice))


@lever.command()
@option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
@mesh_options
@voice_options
def status(output: str, mesh: MeshOptions, voice: Voice) -> int:
    """Show who pulled which lever, when and why. Exits 0 when all are off, 1 when one is on, 5 when it cannot tell."""
    return _with_mesh(mesh, lambda api: _status(api, namespace=mesh.namespace, output=output, voice=voice))


def _with_mesh(mesh: MeshOptions, work: Callable[[Mesh], Awaitable[int]]) -> int:
    from luff.cli.mesh_choice import ambient_mesh
    from luff.mesh.kubernetes import KubernetesMesh  # the client costs half a second

    api = KubernetesMesh.connect(ambient_mesh(mesh).connection)

    async def done() -> int:
        return await work(api)

    try:
        return asyncio.run(done())
    finally:
        api.close()


async def _on(api: Mesh, why: str, *, namespace: str | None, voice: Voice) -> int:
    from luff.cli.stop import stop_everything
    from luff.clock import SystemClock
    from luff.lever import SYSTEM_NAMESPACE, pull_lever

    where = namespace or SYSTEM_NAMESPACE
    unpulled: MeshError | None = None
    try:
        click.echo(str(await pull_lever(api, where, who=who_am_i(), why=why, clock=SystemClock())))
    except MeshError as error:
        # New runs are not refused, then; those that there are must end all the same.
        unpulled = error
        click.echo(f"luff: the lever could NOT be set, so new runs are not refused: {error}", err=True)
    await stop_everything(api, None if namespace is None else [namespace], voice=voice)
    if unpulled is not None:
        raise LuffError(
            f"every route is back, but the lever in {where} is not set: {unpulled.message}",
            next_step=f"run `kubectl create namespace {where}; kubectl create configmap luff-lever -n {where}`",
        ) from unpulled
    click.echo("every run is stopped, every route is back")
    return 0


async def _off(api: Mesh, *, namespace: str | None, voice: Voice) -> int:
    from luff.lever import SYSTEM_NAMESPACE, put_lever_back, read_lever

    where = namespace or SYSTEM_NAMESPACE
    was_on = await put_lever_back(api, where)
    if voice.level >= 0:
        click.echo(f"the lever in {where} is off" if was_on else f"the lever in {where} was off already", err=True)
    still = await read_lever(api, where)
    if still is not None:
        click.echo(f"runs are still refused: {still}; next: luff lever off", err=True)
    return 0


async def _status(api: Mesh, *, namespace: str | None, output: str, voice: Voice) -> int:
    from luff.errors import MeshDenied
    from luff.lever import SYSTEM_NAMESPACE, levers
    from luff.mesh import Kind

    namespaces = {SYSTEM_NAMESPACE} | ({namespace} if namespace else set())
    if namespace is None:
        try:
            namespaces |= {str(each["metadata"]["name"]) for each in await api.list(Kind.NAMESPACE, None)}
        except MeshDenied:
            click.echo(
                "namespaces may not be listed, so only the lever for all of them is shown; name one with -n", err=True
            )
    pulled = await levers(api, sorted(namespaces))
    if output == "json":
        click.echo(json.dumps({"levers": [asdict(each) for each in pulled]}, indent=2))
    else:
        for each in pulled:
            click.echo(str(each))
        if not pulled and voice.level >= 0:
            click.echo("every lever is off", err=True)
    return 1 if pulled else 0
