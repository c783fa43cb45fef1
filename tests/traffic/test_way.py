"""How traffic gets in, as a value that other processes are given."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import httpx
import pytest

from luff.errors import UsageError
from luff.model import TLS, Via
from luff.traffic import Address, Way
from tests.traffic.http2_peers import Peer

LAB = Way(Via(), ingress="127.0.0.1:8080", sidecar="127.0.0.1:15001")
FIXED = Way(Via(connect="127.0.0.1:9000"), ingress="127.0.0.1:8080", sidecar="127.0.0.1:15001")


@pytest.mark.parametrize(
    ("way", "url", "address"),
    [
        (Way(Via()), "http://shop/cart", Address("shop", 80)),
        (Way(Via()), "https://shop.example.com/cart", Address("shop.example.com", 443)),
        (Way(Via()), "http://shop:9080/", Address("shop", 9080)),
        (LAB, "http://shop:9080/", Address("127.0.0.1", 15001)),
        (LAB, "http://shop.books/", Address("127.0.0.1", 15001)),
        (LAB, "http://shop.books.svc.cluster.local/", Address("127.0.0.1", 15001)),
        (LAB, "http://shop.example.com/", Address("127.0.0.1", 8080)),
        (FIXED, "http://shop.example.com/", Address("127.0.0.1", 9000)),
    ],
)
def test_a_url_is_dialled_where_the_way_in_says_also_in_another_process(way: Way, url: str, address: Address) -> None:
    assert way.address_of(httpx.URL(url)) == address
    assert pickle.loads(pickle.dumps(way)).address_of(httpx.URL(url)) == address


def test_a_ca_that_cannot_be_used_is_said_when_the_way_is_taken(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")

    for ca in (broken, tmp_path / "none.pem"):
        with pytest.raises(UsageError, match=f"traffic.via.tls.ca {ca} cannot be used"):
            Way(Via(tls=TLS(ca=str(ca))))()


def test_what_is_to_be_spoken_is_spoken() -> None:
    async def ask() -> str:
        async with Peer().up() as peer:
            transport = Way(Via(connect=f"127.0.0.1:{peer.port}", protocol="http2"))()
            response = await transport.handle_async_request(httpx.Request("GET", "http://shop/"))
            await transport.aclose()
            return response.http_version

    assert asyncio.run(ask()) == "HTTP/2"
