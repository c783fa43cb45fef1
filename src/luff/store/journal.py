"""
The journal: what was about to be done to the routes, on the disk before it is done.

What must stay true:

1. `StoreJournal.arm` comes back only when its row is committed.
2. A phase follows another only by a way of `luff.lifecycle.NEXT`.
3. Every change is kept, with its time: the timeline of a run.
4. Nothing is armed while a lever over it is on in the store.
5. The marks of a process are written in the order in which they were made, by
   a thread of the journal's own: it never waits behind a slow API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from luff.lifecycle import Intent, Phase, check_way
from luff.store import levers
from luff.store import tables as t
from luff.store.engine import Database
from luff.store.text import key, long_text

if TYPE_CHECKING:
    from luff.outcome import MeshIdentity

__all__ = ["OpenIntent", "PhaseChange", "StoreJournal", "open_intents", "settle", "timeline"]


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """This is a run whose routes are not known to be back. *mesh* is ``None`` when the journal was not told."""

    intent: Intent
    phase: Phase
    mesh: MeshIdentity | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PhaseChange:
    """This is one line of the journal."""

    run: str
    phase: Phase
    at: datetime
    note: str | None


class StoreJournal:
    """This is `luff.lifecycle.Journal` over the database. *mesh* is written beside each intent, so that restoring finds it."""

    def __init__(
        self, database: Database, thread: Executor, now: Callable[[], datetime], mesh: MeshIdentity | None
    ) -> None:
        self._database = database
        self._thread = thread
        self._now = now
        self._mesh = mesh

    async def arm(self, intent: Intent) -> None:
        """
        Commit that a patch may be sent: phase armed.

        Raises `luff.errors.StoreError`, or `luff.errors.RunAborted` where a
        lever is on in the store; then nothing may be sent.
        """
        await self._run(lambda connection: _arm(connection, intent, self._mesh, at=self._now()))

    async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
        """Commit that *run* is now in *phase*; ValueError when there is no such way."""
        await self._run(lambda connection: _mark(connection, run, phase, note, at=self._now()))

    async def _run(self, act: Callable[[Connection], None]) -> None:
        def commit() -> None:
            with self._database.write() as connection:
                act(connection)

        await asyncio.get_running_loop().run_in_executor(self._thread, commit)


def phase_of(connection: Connection, run: str) -> Phase | None:
    """Return where the journal says that the routes of *run* are, ``None`` when it never armed; locks the row."""
    found = connection.execute(select(t.intent.c.phase).where(t.intent.c.run == run).with_for_update()).scalar()
    return None if found is None else Phase(found)


def _arm(connection: Connection, intent: Intent, mesh: MeshIdentity | None, *, at: datetime) -> None:
    if mesh is not None:
        levers.check(connection, mesh, intent.namespace)
    before = phase_of(connection, intent.run)
    check_way(before or Phase.PLANNED, Phase.ARMED)
    row = {
        "run": intent.run,
        "namespace": key(intent.namespace),
        "virtual_service": key(intent.virtual_service),
        "uid": key(intent.uid),
        "resource_version": key(intent.resource_version),
        "names": list(intent.names),
        "expires_s": intent.expires_s,
        "hash_before": key(intent.hash_before),
        "phase": Phase.ARMED,
        "mesh_kind": None if mesh is None else mesh.kind,
        "mesh_name": None if mesh is None else key(mesh.name),
        "mesh_uid": None if mesh is None else key(mesh.uid),
        "updated_at": at,
    }
    if before is None:
        connection.execute(insert(t.intent).values(row))
    else:
        # Planned anew because somebody else wrote first: the patch before was proven not to be applied.
        connection.execute(update(t.intent).where(t.intent.c.run == intent.run).values(row))
    _write_down(connection, intent.run, Phase.ARMED, None, at=at)


def _mark(connection: Connection, run: str, phase: Phase, note: str | None, *, at: datetime) -> None:
    before = phase_of(connection, run)
    check_way(before or Phase.PLANNED, phase)
    if before is phase and note is None:
        return
    connection.execute(update(t.intent).where(t.intent.c.run == run).values(phase=phase, updated_at=at))
    _write_down(connection, run, phase, note, at=at)


def _write_down(connection: Connection, run: str, phase: Phase, note: str | None, *, at: datetime) -> None:
    connection.execute(insert(t.phase_change).values(run=run, phase=phase, at=at, note=long_text(note)))
    connection.execute(update(t.run).where(t.run.c.id == run).values(phase=phase))


def settle(connection: Connection, run: str, phase: Phase, *, at: datetime) -> Phase:
    """
    Bring the journal to what an outcome says of *run*, and return where its routes are now.

    A mark that could not be written leaves an intent open; the outcome, made
    later, knows better. Only a journal that says clean stays: somebody proved
    it, after this outcome was made.
    """
    before = phase_of(connection, run)
    if before is None or before is Phase.CLEAN:
        return phase if before is None else before
    if before is not phase:
        for step in (Phase.WITHDRAWING, phase):
            _mark(connection, run, step, "as the outcome says" if step is phase else None, at=at)
    return phase


def open_intents(connection: Connection, mesh: MeshIdentity | None) -> list[OpenIntent]:
    """Return the runs whose routes are not known to be back, oldest first; with *mesh* those of that mesh alone."""
    from luff.outcome import MeshIdentity  # as in `luff.store.runs`

    asked = (
        select(t.intent).where(t.intent.c.phase.not_in([Phase.CLEAN, Phase.PLANNED])).order_by(t.intent.c.updated_at)
    )
    if mesh is not None:
        asked = asked.where(t.intent.c.mesh_kind == mesh.kind, t.intent.c.mesh_name == key(mesh.name))
        if mesh.uid is not None:
            asked = asked.where((t.intent.c.mesh_uid == key(mesh.uid)) | t.intent.c.mesh_uid.is_(None))
    return [
        OpenIntent(
            intent=Intent(
                run=row.run,
                namespace=row.namespace,
                virtual_service=row.virtual_service,
                uid=row.uid,
                resource_version=row.resource_version,
                names=tuple(row.names),
                expires_s=row.expires_s,
                hash_before=row.hash_before,
            ),
            phase=Phase(row.phase),
            mesh=None
            if row.mesh_kind is None
            else MeshIdentity(kind=row.mesh_kind, name=row.mesh_name, uid=row.mesh_uid),
            updated_at=row.updated_at,
        )
        for row in connection.execute(asked)
    ]


def timeline(connection: Connection, run: str) -> list[PhaseChange]:
    """Return the journal's lines about *run*, in order."""
    asked = select(t.phase_change).where(t.phase_change.c.run == run).order_by(t.phase_change.c.id)
    return [PhaseChange(row.run, Phase(row.phase), row.at, row.note) for row in connection.execute(asked)]
