"""`luff restore`."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from luff.cli import tell
from luff.cli.options import MeshOptions, MustAct, Voice, by_hand, mesh_options, option, voice_options
from luff.errors import RestoreNotVerified, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luff.mesh import Mesh
    from luff.mesh.kubernetes import KubernetesMesh
    from luff.restore import Injected
    from luff.withdraw import Withdrawal

__all__ = ["check_run", "restore", "who_am_i"]

_RUN = re.compile(r"[0-9a-f]{4,16}")

_WHY_LEFT = {
    "live": "is live (held by {each.holder}); left alone without its id or --all",
    "unknown": "may be live, its Lease could not be read ({each.unread}); left alone without its id or --all: `{command}`",
    "newer": "was made by a newer luff: use that version; left alone without its id or --all",
}


@click.command(cls=MustAct)
@click.argument("run", required=False)
@option("--expired", is_flag=True, help="Only what has outlived its own time.")
@by_hand("--all", "everything", is_flag=True, help="Also what a live run is using right now.")
@by_hand("--dry-run", is_flag=True, help="Show what would be removed; LUFF_DRY_RUN does not say so here.")
@option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
@mesh_options
@voice_options
def restore(
    run: str | None,
    expired: bool,
    everything: bool,
    dry_run: bool,
    output: str,
    mesh: MeshOptions,
    voice: Voice,
) -> int:
    """
    Put routes back. Needs a kubeconfig and nothing else: no database, no lock, no server.

    Without arguments it withdraws what is expired or orphaned; live runs, those
    whose Lease could not be read, and those of a newer luff need their id or
    --all, and are listed first.
    LUFF_DRY_RUN is not heeded: it is set for other commands, and must not keep
    a fault where it is.
    """
    from luff.cli.mesh_choice import ambient_mesh
    from luff.cli.signals import to_the_end
    from luff.cli.silence import tell_silence
    from luff.mesh.kubernetes import KubernetesMesh  # the client costs half a second
    from luff.withdraw import PATIENCE_S

    check_run(run)
    if os.environ.get("LUFF_DRY_RUN") and not dry_run:
        tell("luff: LUFF_DRY_RUN is not heeded here; --dry-run shows what would be removed", err=True)
    if sum((run is not None, expired, everything)) > 1:
        raise UsageError("RUN, --expired and --all exclude one another")
    connection = ambient_mesh(mesh).connection
    api = KubernetesMesh.connect(connection, on_silence=tell_silence(connection, patience_s=PATIENCE_S))
    namespaces = None if mesh.namespace is None else [mesh.namespace]
    wanted = _Wanted(run, expired=expired, everything=everything)
    answer = _Answer(as_json=output == "json", quiet=voice.level < 0)
    work = _restored(api, namespaces, wanted, answer, dry_run=dry_run)
    try:
        return asyncio.run(work if dry_run else to_the_end(work))
    finally:
        api.close()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """This is what is to be put back: of one *run*, *everything*, or what nobody uses, and of that perhaps only what is *expired*."""

    run: str | None
    expired: bool
    everything: bool

    @property
    def words(self) -> list[str]:
        """Return what was asked for, as a command line says it."""
        which = [] if self.run is None else [self.run]
        return ["restore", *which, *["--expired"] * self.expired, *["--all"] * self.everything]

    def of(self, found: Sequence[Injected]) -> list[Injected]:
        """Return which of *found* is meant."""
        if self.run is not None:
            return [each for each in found if each.run is not None and each.run.startswith(self.run)]
        if self.everything:
            return list(found)
        return [each for each in found if each.state == "expired" or (each.state == "orphaned" and not self.expired)]


@dataclass(frozen=True, slots=True)
class _Answer:
    """This tells what is found and what became of it, in the shape that was asked for."""

    as_json: bool
    quiet: bool

    def left(self, mesh: Mesh, found: Sequence[Injected], chosen: Sequence[Injected]) -> None:
        """Tell what is left alone, and why."""
        from luff.withdraw import restore_command

        for each in found:
            if each not in chosen and each.state in _WHY_LEFT:
                why = _WHY_LEFT[each.state].format(each=each, command=restore_command(mesh, each.ref, each.run))
                tell(f"{each.ref}: run {each.run or 'unknown'} {why}", err=True)

    def would_be(self, chosen: Sequence[Injected]) -> None:
        """Tell what would be removed."""
        if self.as_json:
            tell(_as_json(chosen, None))
            return
        for each in chosen:
            tell(f"would remove {', '.join(each.names)} from {each.ref}")

    def became(self, chosen: Sequence[Injected], results: Sequence[Withdrawal | BaseException]) -> list[Injected]:
        """Tell what became of *chosen*, and return those that are not known to be restored."""
        if self.as_json:
            tell(_as_json(chosen, results))
        failed = []
        for each, result in zip(chosen, results, strict=True):
            if isinstance(result, BaseException):
                failed.append(each)
                tell(f"{each.ref}: NOT restored: {result}", err=True)
            elif not self.as_json:
                tell(f"{each.ref}: removed {len(result.removed)} route(s) of run {each.run}, verified")
        return failed

    def nothing(self) -> None:
        """Tell that there was nothing to put back."""
        if not self.as_json and not self.quiet:
            tell("nothing to restore", err=True)


async def _restored(
    api: KubernetesMesh, namespaces: Sequence[str] | None, wanted: _Wanted, answer: _Answer, *, dry_run: bool
) -> int:
    """Put back what is *wanted*, and return the exit code; raises `RestoreNotVerified`."""
    from luff.clock import SystemClock
    from luff.restore import find_patiently, how_to_put_back, put_back
    from luff.withdraw import PATIENCE_S

    clock = SystemClock()
    # Elsewhere it does not matter who holds what.
    orphans = wanted.run is None and not wanted.everything and not wanted.expired
    found, doubtful = await find_patiently(api, namespaces, clock=clock, asked=wanted.words, with_leases=orphans)
    for suspect in doubtful:
        tell(str(suspect), err=True)
    chosen = wanted.of(found)
    answer.left(api, found, chosen)
    if wanted.run is not None and not chosen:
        tell(f"nothing of run {wanted.run} is in the mesh", err=True)
    if dry_run:
        answer.would_be(chosen)
        return 0
    failed = answer.became(chosen, await put_back(api, chosen, clock=clock, patience_s=PATIENCE_S))
    if failed:
        raise RestoreNotVerified(
            f"{len(failed)} of {len(chosen)} could not be verified; a fault may still be live",
            next_step=f"{how_to_put_back(api, failed, by_others=True)} with credentials that may patch VirtualServices",
        )
    doubted = [each for each in found if each.state == "unknown"]
    if doubted and orphans:
        raise RestoreNotVerified(
            f"{len(doubted)} may be of a live run or of a dead one: {doubted[0].unread}",
            next_step=f"with credentials that may read Leases run it again, or, if nobody needs them, "
            f"{how_to_put_back(api, doubted)}",
        )
    if not chosen:
        answer.nothing()
    return 0


def _as_json(chosen: Sequence[Injected], results: Sequence[Withdrawal | BaseException] | None) -> str:
    """Return what was found of each, and what became of it; without *results* nothing was done."""
    rows = []
    for number, each in enumerate(chosen):
        result = None if results is None else results[number]
        error = str(result) if isinstance(result, BaseException) else None
        rows.append(
            {
                "namespace": each.ref.namespace,
                "virtual_service": each.ref.name,
                "run": each.run,
                "state": each.state,
                "routes": list(each.names),
                "restored": result is not None and error is None,
                "error": error,
            }
        )
    return json.dumps({"dry_run": results is None, "restores": rows}, indent=2)


def check_run(run: str | None) -> None:
    """Raise `UsageError` unless *run* is the beginning of a run id: an empty one, as of a variable that is not set, means nobody."""
    if run is not None and not _RUN.fullmatch(run):
        raise UsageError(
            f"{run!r} is no run id, nor the first 4 digits or more of one", next_step="`luff status` lists them"
        )


def who_am_i() -> str:
    """Return who is at this machine, as ``user@host``."""
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
