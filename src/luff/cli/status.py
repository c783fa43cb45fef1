"""`luff status`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import click

from luff.cli.options import MeshOptions, MustAct, Voice, mesh_options, voice_options

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["status"]

_STATES = {
    "newer": "made by a newer luff: use that version",
    "unknown": "may be live: its Lease could not be read",
}


@click.command(cls=MustAct)
@mesh_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Look everywhere; so it does without -n too.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
@voice_options
def status(mesh: MeshOptions, all_namespaces: bool, output: str, voice: Voice) -> int:
    """Show what is injected right now, whoever did it. Exits 0 when nothing is, 1 when something is or may be, 5 when it cannot tell."""
    from luff.cli.mesh_choice import ambient_mesh
    from luff.cli.silence import tell_silence
    from luff.mesh.kubernetes import KubernetesMesh, Limits  # the client costs half a second
    from luff.restore import find_injected, moment

    connection = ambient_mesh(mesh).connection
    api = KubernetesMesh.connect(connection, on_silence=tell_silence(connection, patience_s=Limits().answer_s))
    namespaces = None if all_namespaces or mesh.namespace is None else [mesh.namespace]
    found, doubtful = asyncio.run(find_injected(api, namespaces))
    api.close()
    # What a newer luff may have made cannot be told from a fault that is live.
    something = bool(found) or any(suspect.newer for suspect in doubtful)
    if output == "json":
        rows = [
            {
                "namespace": each.ref.namespace,
                "virtual_service": each.ref.name,
                "run": each.run,
                "state": each.state,
                "holder": each.holder,
                "routes": list(each.names),
                "expires_at": _iso(moment(each.expires_s)),
                "unread": each.unread,
            }
            for each in found
        ]
        click.echo(
            json.dumps(
                {
                    "injected": rows,
                    "suspects": [{"object": str(s.ref), "route": s.name, "newer": s.newer} for s in doubtful],
                },
                indent=2,
            )
        )
        return 1 if something else 0
    for each in found:
        until = _iso(moment(each.expires_s)) or "unknown"
        click.echo(
            f"{each.ref.namespace}/{each.ref.name}  run {each.run or 'unknown'}  {_STATES.get(each.state, each.state)}  "
            f"{len(each.names)} route(s)  until {until}"
            + (f"  by {each.holder}" if each.holder else "")
            + (f"  ({each.unread})" if each.state == "unknown" else "")
        )
    for suspect in doubtful:
        click.echo(str(suspect), err=True)
    if not something and voice.level >= 0:
        click.echo("nothing is injected", err=True)
    if found and voice.level >= 0:
        click.echo(
            "next: `luff restore` for what is expired or orphaned, `luff stop RUN` for what is or may be live", err=True
        )
    return 1 if something else 0


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
