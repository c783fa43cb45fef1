"""
Who is asking, and whether they may.

A program shows its token with each request, as a bearer's or as a password. A person shows it once, at
`/sign-in`, and has a session from then on: a cookie that scripts cannot read
and other sites cannot send, and a second secret in every form. Where no
token was ever made, which only a server on loopback allows, who reaches it is
the machine's own user.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from fastapi import Request

from luff.store import Access, Role
from luff.store.access import Actor
from luff.web.problems import Problem
from luff.web.security import SAFE_METHODS

__all__ = ["COOKIE", "CSRF_FIELD", "CSRF_HEADER", "Door", "Person", "Session"]

COOKIE = "luff_session"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
SESSION_S = 12 * 3600.0
SESSIONS_MOST = 1000
SECRET_MOST = 200


@dataclass(frozen=True, slots=True)
class Person:
    """This is who asks. *token* is the id of their token, ``None`` for the machine's own user."""

    name: str
    role: Role
    token: str | None
    address: str | None = None
    session: Session | None = None

    @property
    def actor(self) -> Actor:
        """Return them as the audit names them."""
        return Actor(self.name, self.role, self.address)


@dataclass(frozen=True, slots=True)
class Session:
    """This is one browser that is signed in. *csrf* stands in every form; *token* as in `Person`."""

    token: str | None
    csrf: str
    until_s: float


class Door:
    """This lets people in. *open_* is whether nobody needs a token until one was made."""

    def __init__(self, access: Access, *, open_: bool, local_user: str) -> None:
        self._access = access
        self._open = open_
        self._local_user = local_user
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def is_open(self) -> bool:
        """Return whether no token is needed now; blocks on the store until one was made, which closes it for good."""
        if self._open and self._access.any_tokens():
            self._open = False
        return self._open

    def who(self, request: Request, secret: str | None) -> Person | None:
        """Return who asks, or ``None``. Raises `Problem` for a token that is not good; blocks on the store."""
        address = request.client.host if request.client else None
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if shown or scheme:
            found = self._access.by_secret(_secret(scheme.lower(), shown.strip()))
            if found is None:
                raise Problem("wrong_token", "the token is unknown, or was revoked")
            return Person(found.name, found.role, found.id, address)
        session = self._session(secret)
        if session is not None and session.token is not None:
            token = self._access.by_id(session.token)
            return None if token is None else Person(token.name, token.role, token.id, address, session)
        if self.is_open():
            return Person(self._local_user, Role.ADMIN, None, address, session)
        return None

    def sign_in(self, shown: str) -> str:
        """Return the secret of a new session for the token *shown*."""
        found = self._access.by_secret(shown.strip()[:SECRET_MOST])
        if found is None:
            raise Problem("wrong_token", "the token is unknown, or was revoked")
        return self._begin(found.id)

    def begin_local(self) -> str:
        """Return the secret of a new session for the machine's own user."""
        return self._begin(None)

    def sign_out(self, secret: str | None) -> None:
        """End the session."""
        self._sessions.pop(_hash(secret or ""), None)

    def session_of(self, secret: str) -> Session | None:
        """Return the session with *secret*, or ``None``."""
        return self._session(secret)

    def _begin(self, token: str | None) -> str:
        secret = secrets.token_urlsafe(32)
        # By hash, so that a look at our memory opens nothing.
        self._sessions[_hash(secret)] = Session(token, secrets.token_urlsafe(32), time.monotonic() + SESSION_S)
        while len(self._sessions) > SESSIONS_MOST:
            self._sessions.popitem(last=False)
        return secret

    def _session(self, secret: str | None) -> Session | None:
        hashed = _hash((secret or "")[:SECRET_MOST])
        session = self._sessions.get(hashed)
        if session is not None and session.until_s < time.monotonic():
            self._sessions.pop(hashed, None)
            return None
        return session


def _secret(scheme: str, shown: str) -> str:
    """Return the token in an Authorization header; who can say it only in a URL, as Flagger, sends it as a password."""
    if scheme == "bearer":
        return shown
    if scheme != "basic":
        return ""
    try:
        return base64.b64decode(shown, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def check_csrf(request: Request, person: Person, field: str | None) -> None:
    """Raise `Problem` when a change comes with a session's cookie, but without the secret of its forms."""
    if request.method in SAFE_METHODS or person.session is None:
        return
    shown = request.headers.get(CSRF_HEADER) or field or ""
    if not hmac.compare_digest(shown.encode(), person.session.csrf.encode()):
        raise Problem("csrf", "load the page again", next_step=f"send the header {CSRF_HEADER}, or use a bearer token")


def check_role(person: Person, needed: Role) -> None:
    """Raise `Problem` when *person* may not do what *needed* may."""
    if not person.role.covers(needed):
        raise Problem("role_too_weak", f"{person.name} is {person.role}; this needs {needed}")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
