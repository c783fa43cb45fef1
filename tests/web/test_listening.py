"""The socket that a server answers on."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from luff.errors import UsageError
from luff.web.listening import Listener, bound_socket


async def _hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_who_connects_before_it_serves_is_answered() -> None:
    async def asked() -> bytes:
        with bound_socket("127.0.0.1", 0) as bound:
            listener = Listener(_hello, bound, grace_s=1)
            reader, writer = await asyncio.open_connection(*bound.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nhost: luff\r\nconnection: close\r\n\r\n")
            serving = asyncio.create_task(listener.serve())
            answer = await reader.read()
            listener.leave()
            await serving
            writer.close()
            return answer

    answer = asyncio.run(asked())

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"hello")


def test_of_two_that_took_a_port_at_the_same_moment_one_is_told() -> None:
    with bound_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bound_socket("127.0.0.1", port) as second:
            Listener(_hello, first, grace_s=1)

            with pytest.raises(UsageError, match=f"it cannot listen on 127.0.0.1:{port}: Address already in use"):
                Listener(_hello, second, grace_s=1)


def test_a_port_that_is_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(UsageError, match=f"it cannot listen on 127.0.0.1:{port}"):
            bound_socket("127.0.0.1", port)
