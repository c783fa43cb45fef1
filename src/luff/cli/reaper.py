"""`luff reaper`."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import click

from luff.cli.options import MeshOptions, Voice, mesh_options, option, voice_options

__all__ = ["reaper"]

EVERY_S = 5.0
CONNECT_EVERY_S = 240.0
"""The client reads its credentials once; a pod's token is renewed on the disk, and the old one ends."""


@click.command()
@option(
    "--every", type=click.FloatRange(0.5, 300), default=EVERY_S, show_default=True, help="Seconds between two looks."
)
@option(
    "--once",
    is_flag=True,
    help="Look once and end, without a heartbeat: 0 when all is well, 7 when something could not be removed.",
)
@option("--home", default="luff-system", show_default=True, help="The namespace of its heartbeat Lease.")
@option(
    "--beat-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to write after each look that saw everything, for probes.",
)
@mesh_options
@voice_options
def reaper(every: float, once: bool, home: str, beat_file: Path | None, mesh: MeshOptions, voice: Voice) -> int:
    """Restore what runs left behind: expired, orphaned or unreasonable routes of ours. Needs no database and no leader."""
    from luff.cli.mesh_choice import ambient_mesh
    from luff.clock import SystemClock
    from luff.mesh.kubernetes import KubernetesMesh
    from luff.reaper import Reaper, Sweep
    from luff.restore import Suspect

    connection = ambient_mesh(mesh).connection
    api = KubernetesMesh.connect(connection)
    namespaces = None if mesh.namespace is None else [mesh.namespace]
    clock = SystemClock()
    worker = Reaper(api, clock, namespaces=namespaces, home=home, identity=socket.gethostname(), beats=not once)

    async def work() -> int:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        connected_s = clock.monotonic_s()
        while True:
            if clock.monotonic_s() - connected_s > CONNECT_EVERY_S:
                old, worker.mesh = worker.mesh, KubernetesMesh.connect(connection)
                assert isinstance(old, KubernetesMesh)
                old.close()
                connected_s = clock.monotonic_s()
            sweep = await worker.sweep()
            _say(sweep, voice=voice)
            _beat(sweep)
            if once:
                return 7 if sweep.errors else 0
            try:
                await asyncio.wait_for(ended.wait(), every)
            except TimeoutError:
                continue
            return 0

    def _beat(sweep: Sweep) -> None:
        if beat_file is not None and not sweep.errors:
            beat_file.write_text(f"{clock.now_s():.0f}\n", encoding="ascii")

    def _say(sweep: Sweep, *, voice: Voice) -> None:
        for ref, run, reason in sweep.removed:
            click.echo(f"{ref}: removed run {run}: {reason}")
        for ref, name in sweep.suspects:
            click.echo(str(Suspect(ref, name)), err=True)
        for error in sweep.errors:
            click.echo(f"luff reaper: {error}", err=True)
        if voice.level > 0:
            for ref, run in sweep.kept:
                click.echo(f"{ref}: run {run} is live", err=True)

    try:
        return asyncio.run(work())
    finally:
        assert isinstance(worker.mesh, KubernetesMesh)
        worker.mesh.close()
