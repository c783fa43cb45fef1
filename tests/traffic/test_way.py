"""How traffic gets in, as a value that other processes are given."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from luff.errors import InvalidFile, UsageError
from luff.model import TLS, Via
from luff.parse import parse_documents
from luff.traffic.dial import Address
from luff.traffic.templates import Template
from luff.traffic.way import Way
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


ODD = [
    "xn--a",
    "xn--",
    "bücher",
    "[",
    "]",
    "::1",
    "v1.x",
    "10.0.0.999",
    "..",
    "-",
    "_",
    ":",
    "@",
    "?",
    "%",
    "\\",
    "^",
    "℀",
    "ß",
    "٣",
    "0",
    "{{uuid}}",
    " ",
]
HOSTS = st.lists(st.sampled_from([*ODD, "shop", "books", "127.0.0.1", ".", ".svc"]), min_size=1, max_size=4).map(
    "".join
)
EXPERIMENT = """
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: e}
spec:
  target: stock
  subject: shop
  fault: {delay: 1s}
"""


@given(HOSTS | st.text(max_size=12), st.sampled_from(["", ":80", ":0", ":65535", ":99999"]), st.booleans())
@example("[::1]", ":80", True)
@example("localhost", ":65535", True)
@example("bücher.de", "", False)
@example("xn--bcher-kva.de", "", False)
def test_what_an_experiment_may_say_can_be_dialled(host: str, port: str, dialled: bool) -> None:
    url = "http://shop/" if dialled else f"http://{host}{port}/"
    via = {"connect": f"{host}{port}"} if dialled else {}
    text = EXPERIMENT + f"  traffic: {json.dumps({'requests': [url], 'via': {'mode': 'direct', **via}})}\n"
    try:
        (experiment,) = parse_documents([("a.yaml", text)]).experiments
    except InvalidFile:
        return

    traffic = experiment.spec.traffic
    request = Template(traffic.requests[0]).request({}, number=1, rng=random.Random(1))
    address = Way(traffic.via).address_of(request.url)

    assert address.host
    assert 1 <= address.port <= 65535


@pytest.mark.parametrize("address", ["[::1]:80", "localhost:65535", "a_b.svc:1", "xn--bcher-kva.de:80", "10.0.0.9:80"])
def test_an_address_that_can_be_is_taken(address: str) -> None:
    text = EXPERIMENT + f"  traffic: {{requests: [http://shop/], connect: '{address}'}}\n"

    (experiment,) = parse_documents([("a.yaml", text)]).experiments

    assert experiment.spec.traffic.via.connect == address


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
