"""How a transport is asked, whatever the protocol, and when it may ask again by itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from luff.samples import Failure
from luff.traffic.dial import TrafficError
from luff.traffic.transport import FRESH_S, REPEATED, Transport
from tests.traffic.conftest import Time

__all__ = ["LOST", "ask_and_lose", "send"]

LOST: list[tuple[str, float, float, str, bool]] = [
    ("at once, after a long idle time", FRESH_S + 0.1, 0.001, "GET", True),
    ("at once, after a long idle time", FRESH_S + 0.1, 0.001, "PUT", True),
    ("at once, after a long idle time", FRESH_S + 0.1, 0.001, "DELETE", True),
    ("at once, but it was used a moment ago", FRESH_S - 0.1, 0.001, "GET", False),
    ("later than an end takes that was under way", FRESH_S + 0.1, 0.02, "GET", False),
    ("at once, but it must not be sent twice", FRESH_S - 0.1, 0.001, "POST", False),
]
"""When a connection is lost: in words, how long it was idle, how long after the writing, and whether its request is repeated."""


async def send(transport: Transport, method: str = "GET", url: str = "http://shop/", **more: Any) -> httpx.Response:
    """Ask, and read all of the answer."""
    response = await transport.handle_async_request(httpx.Request(method, url, **more))
    await response.aread()
    return response


async def ask_and_lose(transport: Transport, method: str, *, clock: Time, idle_s: float, repeated: bool) -> None:
    """Ask once, wait *idle_s*, and ask a peer that loses what it is asked then: it is *repeated*, or fails as the peer's doing."""
    await send(transport, method)
    clock.now_s += idle_s
    request = httpx.Request(method, "http://shop/")
    if repeated:
        assert (await transport.handle_async_request(request)).status_code == 200
    else:
        with pytest.raises(TrafficError) as caught:
            await transport.handle_async_request(request)
        assert caught.value.failure is Failure.RESET
    assert request.extensions.get(REPEATED, False) is repeated
