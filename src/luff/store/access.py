"""
Who may use the server, what was asked of it, and who changed what.

What must stay true:

1. A token's secret is nowhere but with its holder: only its SHA-256 is kept.
   It is 256 random bits, so a slow hash would add nothing.
2. A revoked token stays, so that the audit can still be read; it opens nothing.
3. The same key for the same request is one request, also after a restart.
4. Rows of the audit are only ever added.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from luff.errors import UsageError
from luff.store import tables as t
from luff.store.engine import Database, insert_into
from luff.store.text import key, long_text

__all__ = ["Access", "Actor", "AuditRow", "Role", "RunRequest", "Token", "write_audit"]

SECRET_BYTES = 32
PREFIX = "luff_"
"""What every secret begins with, so that scanners find one that was committed by mistake."""
AUDIT_MOST = 1000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class Role(StrEnum):
    """This is what a token may do; each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, other: Role) -> bool:
        """Return whether this role may do what *other* may."""
        return list(Role).index(self) >= list(Role).index(other)


@dataclass(frozen=True, slots=True)
class Token:
    """This is a token as it may be shown: without its secret. *name* is who it was made for."""

    id: str
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Actor:
    """This is who changes something, as the audit names them; *role* and *address* are ``None`` beside the store."""

    name: str
    role: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """This is one change: by whom, with which role, from which address, what, to what."""

    id: int
    at: datetime
    actor: str
    role: str | None
    address: str | None
    action: str
    object: str
    note: str | None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """This is one request to run *experiment*. *run* is ``None`` until the run has an id of its own."""

    id: str
    experiment: str
    actor: str
    requested_at: datetime
    run: str | None


class Access:
    """This is the part of the store that the server needs; every method raises `luff.errors.StoreError`."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def create_token(self, name: str, role: Role) -> tuple[Token, str]:
        """Make a token and return it with its secret, which cannot be had again."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a token", next_step="use letters, digits and . _ @ -, at most 63 of them"
            )
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        token = Token(secrets.token_hex(4), name, role, self._now(), None)
        with self._database.write() as connection:
            row = {"id": token.id, "name": name, "role": role, "created_at": token.created_at}
            connection.execute(insert(t.token).values(secret_sha256=_sha256(secret), **row))
        return token, secret

    def tokens(self) -> list[Token]:
        """Return every token, oldest first, revoked ones too."""
        with self._database.read() as connection:
            return [_token(row) for row in connection.execute(select(t.token).order_by(t.token.c.created_at))]

    def revoke(self, token: str) -> bool:
        """Revoke the token with the id *token*; False when there is none that is still good."""
        with self._database.write() as connection:
            found = update(t.token).where(t.token.c.id == key(token), t.token.c.revoked_at.is_(None))
            return connection.execute(found.values(revoked_at=self._now())).rowcount > 0

    def any_tokens(self) -> bool:
        """Return whether a token was ever made: who revokes the last one means to let nobody in, and not everybody."""
        with self._database.read() as connection:
            return connection.execute(select(t.token.c.id).limit(1)).first() is not None

    def by_secret(self, secret: str) -> Token | None:
        """Return the good token with *secret*, or ``None``. Looked up by hash, so that time tells nothing of the secret."""
        return self._good(t.token.c.secret_sha256 == _sha256(secret))

    def by_id(self, token: str) -> Token | None:
        """Return the good token with the id *token*, or ``None``."""
        return self._good(t.token.c.id == key(token))

    def _good(self, where: ColumnElement[bool]) -> Token | None:
        with self._database.read() as connection:
            asked = select(t.token).where(where, t.token.c.revoked_at.is_(None))
            row = connection.execute(asked).first()
            return None if row is None else _token(row)

    def audit(
        self,
        action: str,
        object_: str,
        *,
        actor: str,
        role: str | None = None,
        address: str | None = None,
        note: str | None = None,
    ) -> None:
        """Write down that *actor* did *action* to *object_*."""
        with self._database.write() as connection:
            write_audit(connection, action, object_, Actor(actor, role, address), at=self._now(), note=note)

    def audits(self, *, limit: int, before: int | None = None) -> list[AuditRow]:
        """Return at most *limit* rows, newest first; *before* is the last row of the page before."""
        asked = select(t.audit).order_by(t.audit.c.id.desc()).limit(min(limit, AUDIT_MOST))
        if before is not None:
            asked = asked.where(t.audit.c.id < before)
        with self._database.read() as connection:
            return [AuditRow(**row._mapping) for row in connection.execute(asked)]

    def request_run(self, experiment: str, *, actor: str, idempotency_key: str | None) -> tuple[RunRequest, bool]:
        """
        Write down that *actor* asks to run *experiment*, and return the request and whether it is new.

        With an *idempotency_key* that this actor has used before it is that request, whatever it asked for.
        """
        hashed = None if idempotency_key is None else _key_sha256(actor, idempotency_key)
        with self._database.write() as connection:
            made = RunRequest(secrets.token_hex(8), experiment, actor, self._now(), None)
            row = {"id": made.id, "experiment": key(experiment), "actor": key(actor), "requested_at": made.requested_at}
            written = insert_into(connection, t.run_request).values(key_sha256=hashed, **row)
            # The update changes nothing: it waits for who asked at the same time, and lets their row be returned.
            same = written.on_conflict_do_update(index_elements=["key_sha256"], set_={"key_sha256": hashed})
            found = _run_request(connection.execute(same.returning(t.run_request)).one())
            return (made, True) if found.id == made.id else (found, False)

    def requested(self, *, actor: str, idempotency_key: str) -> RunRequest | None:
        """Return the request that *actor* has made with this key, or ``None``."""
        with self._database.read() as connection:
            return _request(connection, t.run_request.c.key_sha256 == _key_sha256(actor, idempotency_key))

    def withdraw_request(self, request: str) -> None:
        """Forget *request*, which was refused: its key may be used again."""
        with self._database.write() as connection:
            connection.execute(t.run_request.delete().where(t.run_request.c.id == key(request)))

    def became(self, request: str, run: str) -> None:
        """Write down which *run* came of *request*."""
        with self._database.write() as connection:
            connection.execute(update(t.run_request).where(t.run_request.c.id == key(request)).values(run=key(run)))

    def request(self, request: str) -> RunRequest | None:
        """Return the request with this id, or ``None``."""
        with self._database.read() as connection:
            return _request(connection, t.run_request.c.id == key(request))


def write_audit(
    connection: Connection, action: str, object_: str, actor: Actor, *, at: datetime, note: str | None = None
) -> None:
    """Write down that *actor* did *action* to *object_*, in the transaction in which it is done."""
    row = {"actor": key(actor.name), "role": key(actor.role), "address": key(actor.address), "note": long_text(note)}
    connection.execute(insert(t.audit).values(at=at, action=key(action), object=key(object_), **row))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _key_sha256(actor: str, idempotency_key: str) -> str:
    return _sha256(f"{actor}\n{idempotency_key}")


def _token(row: Row[Any]) -> Token:
    values = row._mapping
    return Token(values["id"], values["name"], Role(values["role"]), values["created_at"], values["revoked_at"])


def _request(connection: Connection, where: ColumnElement[bool]) -> RunRequest | None:
    row = connection.execute(select(t.run_request).where(where)).first()
    return None if row is None else _run_request(row)


def _run_request(row: Row[Any]) -> RunRequest:
    return RunRequest(row.id, row.experiment, row.actor, row.requested_at, row.run)
