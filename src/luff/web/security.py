"""
What every request passes before anything reads it, and every answer before it leaves.

What must stay true:

1. No body above `BODY_MOST_BYTES` is read, whatever it says of its length.
2. No page may run a script or take a style of its own text, or load from elsewhere.
3. A change that a browser sends from another site is refused before anybody looks who sent it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luff.errors import StoreError
from luff.web.problems import Problem, response

__all__ = ["BODY_MOST_BYTES", "CSP", "SAFE_METHODS", "Protection"]

BODY_MOST_BYTES = 1 << 20
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
"""What an answer gets that has not said it itself."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class _TooLarge(Exception):
    """This is a body that went on for longer than it may."""


class Protection:
    """
    This stands around the whole application.

    *named* says whether a host name in a request is one of ours, or raises `StoreError`.
    """

    def __init__(self, app: ASGIApp, *, named: Callable[[str], Awaitable[bool]]) -> None:
        self._app = app
        self._named = named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            refused = await self._refusal(scope["method"], headers)
        except StoreError as error:
            refused = Problem.of(error)
        if refused is not None:
            await response(refused)(scope, receive, _with_headers(send))
            return
        body = _Body(receive)
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            # Whatever was made of the error that the body ended with: the answer is that it is too large.
            if not begun and body.too_large:
                raise _TooLarge
            begun = True
            await send(message)

        try:
            await self._app(scope, body.receive, _with_headers(watched))
        except _TooLarge:
            if not begun:
                await response(_too_large())(scope, receive, _with_headers(send))

    async def _refusal(self, method: str, headers: Headers) -> Problem | None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > BODY_MOST_BYTES:
            return _too_large()
        host = headers.get("host", "")
        name = _name_of(host)
        if not await self._named(name):
            return Problem(
                "misdirected",
                f"without tokens this server answers to localhost only, not to {name or 'nothing'}",
                next_step="make a token with `luff token create`",
            )
        if method in SAFE_METHODS:
            return None
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none") or (origin is not None and _host_of(origin) != host):
            return Problem("cross_site", f"a change must come from here, not from {origin or site}")
        return None


def _too_large() -> Problem:
    return Problem("body_too_large", f"a body may have {BODY_MOST_BYTES >> 20} MiB", headers={"connection": "close"})


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


class _Body:
    """This is a body that is read no further than it may be long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = 0
        self.too_large = False

    async def receive(self) -> Message:
        """Return the next message; raises `_TooLarge`."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > BODY_MOST_BYTES:
            self.too_large = True
            raise _TooLarge
        return message


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
