"""
The store's half of the lever: which are on, in which mesh, by whom, why and since when.

The other half is in the cluster. Either of them stops runs, so that a stop
holds where one of the two is away. What must stay true: nothing is armed while
a lever over it is on here, because `check` is part of the transaction that arms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, delete, select

from luff.errors import RunAborted
from luff.lifecycle import StoredLever
from luff.store import tables as t
from luff.store.engine import Database, insert_into
from luff.store.text import key, long_text

if TYPE_CHECKING:
    from luff.outcome import MeshIdentity

__all__ = ["Levers", "check"]

EVERYWHERE = "*"


class Levers:
    """
    This is the store's half of the levers of one mesh.

    Every method works in a thread, and raises `luff.errors.StoreError` when
    the store is away.
    """

    def __init__(self, database: Database, now: Callable[[], datetime], mesh: MeshIdentity) -> None:
        self._database = database
        self._now = now
        self._mesh = mesh

    async def pull(self, namespace: str | None, *, who: str, why: str) -> StoredLever:
        """Put the lever of *namespace* on, ``None`` for all of them; one that is on already gets the new reason."""
        pulled = StoredLever(namespace, who, why, self._now())
        row = {
            "mesh_kind": self._mesh.kind,
            "mesh_name": key(self._mesh.name),
            "mesh_uid": key(self._mesh.uid or ""),
            "namespace": key(namespace or EVERYWHERE),
            "who": key(who),
            "why": long_text(why),
            "at": pulled.at,
        }

        def write() -> None:
            with self._database.write() as connection:
                connection.execute(delete(t.lever).where(_of(self._mesh), t.lever.c.namespace == row["namespace"]))
                written = insert_into(connection, t.lever).values(row)
                new = {name: row[name] for name in ("who", "why", "at")}
                connection.execute(written.on_conflict_do_update(index_elements=list(t.lever.primary_key), set_=new))

        await asyncio.to_thread(write)
        return pulled

    async def let_go(self, namespace: str | None) -> bool:
        """Put the lever of *namespace* off, ``None`` for the one over all; False when it was not on."""

        def write() -> bool:
            with self._database.write() as connection:
                meant = delete(t.lever).where(_of(self._mesh), t.lever.c.namespace == key(namespace or EVERYWHERE))
                return connection.execute(meant).rowcount > 0

        return await asyncio.to_thread(write)

    async def pulled(self) -> list[StoredLever]:
        """Return every lever of this mesh that is on, the one over all namespaces first."""

        def read() -> list[StoredLever]:
            with self._database.read() as connection:
                return _pulled(connection, self._mesh)

        return await asyncio.to_thread(read)


def check(connection: Connection, mesh: MeshIdentity, namespace: str) -> None:
    """Raise `RunAborted` when a lever over *namespace* of *mesh* is on."""
    for each in _pulled(connection, mesh):
        if each.namespace in (None, namespace):
            where = "everywhere" if each.namespace is None else f"in {namespace}"
            raise RunAborted(
                "lever",
                f"the lever is on {where}, in the store: {each.who} pulled it at {each.at:%Y-%m-%dT%H:%M:%SZ}, since {each.why}",
                next_step=f"ask them, then `luff lever off{'' if each.namespace is None else f' -n {namespace}'}`",
            )


def _pulled(connection: Connection, mesh: MeshIdentity) -> list[StoredLever]:
    asked = select(t.lever).where(_of(mesh)).order_by(t.lever.c.namespace)
    return [
        StoredLever(None if row.namespace == EVERYWHERE else row.namespace, row.who, row.why, row.at)
        for row in connection.execute(asked)
    ]


def _of(mesh: MeshIdentity) -> ColumnElement[bool]:
    """Return which rows are of *mesh*: those with its uid; by name where one of the two has none."""
    named = t.lever.c.mesh_name == key(mesh.name)
    if mesh.uid is not None:
        named = (t.lever.c.mesh_uid == key(mesh.uid)) | ((t.lever.c.mesh_uid == "") & named)
    return (t.lever.c.mesh_kind == mesh.kind) & named
