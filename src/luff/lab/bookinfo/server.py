"""
HTTP for the sample services: a small server on asyncio and httptools, and a client with a total deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import httpx

from luff.traffic.dial import Address, TrafficError
from luff.traffic.transport import Transport

__all__ = ["Answer", "Client", "Handler", "Incoming", "serve"]

_REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(slots=True)
class Incoming:
    """This is one request that came in. Header names are in lower case."""

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """This is what goes out; *content* is JSON unless it is text already."""

    status: int
    content: Any

    def encode(self) -> bytes:
        """Return it as bytes on the wire."""
        html = isinstance(self.content, str)
        body = (self.content if html else json.dumps(self.content)).encode()
        kind = "text/html; charset=utf-8" if html else "application/json"
        reason = _REASONS.get(self.status, "Status")
        return (
            f"HTTP/1.1 {self.status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )


Handler = Callable[[Incoming], Awaitable[Answer]]


class _Connection(asyncio.Protocol):
    """This is one connection, which takes one request at a time, as Envoy sends them."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._incoming = Incoming()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_url(self, url: bytes) -> None:
        self._incoming.path = urlsplit(url.decode("latin-1")).path

    def on_header(self, name: bytes, value: bytes) -> None:
        self._incoming.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        incoming, self._incoming = self._incoming, Incoming()
        incoming.method = self._parser.get_method().decode("ascii")
        self._task = asyncio.get_running_loop().create_task(self._answer(incoming))

    async def _answer(self, incoming: Incoming) -> None:
        answer = await self._handler(incoming)
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(answer.encode())


class Client:
    """This asks peers, through the workload's own sidecar, and waits no longer than told."""

    def __init__(self) -> None:
        self._transport = Transport(connect=lambda url: Address(url.host, url.port or 80))

    async def get(self, url: str, headers: Mapping[str, str], *, within_s: float) -> tuple[int, Any] | None:
        """Return status and JSON; ``None`` when nothing came within *within_s*."""
        request = httpx.Request("GET", url, headers=dict(headers))
        try:
            async with asyncio.timeout(within_s):
                response = await self._transport.handle_async_request(request)
                body = await response.aread()
        except (TimeoutError, TrafficError):
            return None
        try:
            return response.status_code, json.loads(body)
        except ValueError:
            return response.status_code, None


async def serve(handler: Handler) -> None:
    """Answer on ``PORT`` of loopback until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(handler), "127.0.0.1", int(os.environ["PORT"]), backlog=512)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with server:
        await ended.wait()
