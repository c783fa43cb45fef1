"""`luff reaper`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli.options import Duration, MeshOptions, MustAct, Voice, mesh_options, option, voice_options

if TYPE_CHECKING:
    from luff.reaper import Reaper, Sweep

__all__ = ["reaper"]

EVERY = "5s"


@click.command(cls=MustAct)
@option(
    "--every",
    type=Duration(between=("500ms", "5m")),
    default=EVERY,
    show_default=True,
    metavar="D",
    help="The time between two looks.",
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
    help="A file to write after each look that saw everything, whatever could not be removed; for probes.",
)
@mesh_options
@voice_options
def reaper(every: float, once: bool, home: str, beat_file: Path | None, mesh: MeshOptions, voice: Voice) -> int:
    """Restore what runs left behind: expired, orphaned or unreasonable routes of ours. Needs no database and no leader."""
    from luff.cli.mesh_choice import ambient_mesh
    from luff.cli.silence import tell_silence
    from luff.clock import SystemClock
    from luff.mesh.kubernetes import KubernetesMesh, Limits
    from luff.reaper import Reaper

    connection = ambient_mesh(mesh).connection
    told = tell_silence(connection, patience_s=Limits().answer_s if once else None)
    api = KubernetesMesh.connect(connection, on_silence=told)
    namespaces = None if mesh.namespace is None else [mesh.namespace]
    identity = socket.gethostname()
    worker = Reaper(api, SystemClock(), namespaces=namespaces, home=home, identity=identity, beats=not once)
    try:
        return asyncio.run(_work(worker, None if once else every, beat_file, voice))
    finally:
        api.close()


async def _work(worker: Reaper, every_s: float | None, beat_file: Path | None, voice: Voice) -> int:
    """Sweep every *every_s* seconds until a signal comes, or once where that is ``None``."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    while True:
        sweep = await worker.sweep()
        # Who reads it may have left, and the disk may be full: neither is a reason to leave routes where they are.
        with contextlib.suppress(OSError, ValueError):
            _say(sweep, voice=voice)
        with contextlib.suppress(OSError):
            _beat(sweep, beat_file, now_s=worker.clock.now_s())
        if every_s is None:
            return 7 if sweep.errors else 0
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), every_s)
            return 0


def _beat(sweep: Sweep, file: Path | None, *, now_s: float) -> None:
    # What cannot be removed is no better for a restart: a reaper that sees it goes on.
    if file is not None and sweep.saw_everything:
        file.write_text(f"{now_s:.0f}\n", encoding="ascii")


def _say(sweep: Sweep, *, voice: Voice) -> None:
    from luff.restore import Suspect

    for ref, run, reason in sweep.removed:
        click.echo(f"{ref}: removed run {run}: {reason}")
    for ref, name in sweep.suspects:
        click.echo(str(Suspect(ref, name)), err=True)
    for error in sweep.errors:
        click.echo(f"luff reaper: {error}", err=True)
    if voice.level > 0:
        for ref, run in sweep.kept:
            click.echo(f"{ref}: run {run} is live", err=True)
