"""The transport over HTTP/2 against the real Envoy: asked for in plain text, and as its TLS handshake agrees."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.lab.processes import clean_environment, end_all, spawn, tail
from luff.lab.program import find_envoy
from luff.samples import Failure
from luff.traffic.dial import Address, TrafficError
from luff.traffic.transport import REPEATED, Transport
from tests.traffic.conftest import Run

UP_WITHIN_S = 20.0
STREAMS_ALLOWED = 5
REQUESTS_ALLOWED = 3
KIND = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class Envoy:
    """This is a running Envoy: where its listeners and its admin interface are."""

    ports: dict[str, int]
    admin: str

    def count(self, name: str) -> int:
        """Return one number of its statistics."""
        text = httpx.get(f"http://{self.admin}/stats?filter=^{name}$", trust_env=False).text
        return int(text.partition(": ")[2])


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Envoy]:
    folder = tmp_path_factory.mktemp("envoy")
    listeners = [
        _listener("plain", {"http2_protocol_options": {"max_concurrent_streams": STREAMS_ALLOWED}}),
        _listener("worn", {"common_http_protocol_options": {"max_requests_per_connection": REQUESTS_ALLOWED}}),
        _listener("tls", {}, _tls(certificates, ["h2", "http/1.1"])),
        _listener("old", {}, _tls(certificates, ["http/1.1"])),
    ]
    (folder / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": listeners}, **_ADMIN}))
    log, admin = folder / "envoy.log", folder / "admin"
    command = [find_envoy(), "-c", "envoy.json", "--disable-hot-restart", "--concurrency", "1", "-l", "warning",
               "--admin-address-path", str(admin)]  # fmt: skip
    child = spawn(command, output=log, environment=clean_environment(os.environ), cwd=folder)
    try:
        until_s = time.monotonic() + UP_WITHIN_S
        while not (admin.exists() and admin.read_text() and _is_ready(admin.read_text())):
            assert child.poll() is None, tail(log)
            assert time.monotonic() < until_s, tail(log)
            time.sleep(0.02)
        known = httpx.get(f"http://{admin.read_text()}/listeners?format=json", trust_env=False).json()
        ports = {
            each["name"]: each["local_address"]["socket_address"]["port_value"] for each in known["listener_statuses"]
        }
        yield Envoy(ports, admin.read_text())
    finally:
        end_all([child])


_ADMIN = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/ready", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _tls(folder: Path, spoken: list[str]) -> dict[str, Any]:
    shop = {
        "certificate_chain": {"filename": str(folder / "shop.pem")},
        "private_key": {"filename": str(folder / "shop.key")},
    }
    context = {"tls_certificates": [shop], "alpn_protocols": spoken}
    kind = f"{KIND}.transport_sockets.tls.v3.DownstreamTlsContext"
    return {"transport_socket": {"name": "tls", "typed_config": {"@type": kind, "common_tls_context": context}}}


def _listener(name: str, options: dict[str, Any], socket: dict[str, Any] | None = None) -> dict[str, Any]:
    fault = f"{KIND}.filters.http.fault.v3.HTTPFault"

    def route(path: str, delay: str | None) -> dict[str, Any]:
        wait = {"delay": {"fixed_delay": delay, "percentage": {"numerator": 100}}} if delay else {}
        return {
            "match": {"prefix": path},
            "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
            "typed_per_filter_config": {"fault": {"@type": fault, **wait}},
        }

    routes = [route("/fast", None), route("/slow", "0.1s"), route("/stuck", "60s")]
    manager = {
        "@type": f"{KIND}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [
            {"name": "fault", "typed_config": {"@type": fault}},
            {"name": "router", "typed_config": {"@type": f"{KIND}.filters.http.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        **options,
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}], **(socket or {})}],
    }


async def _all(transport: Transport, count: int, url: str) -> list[httpx.Request]:
    """Send *count* at once and return them, all of them answered."""
    requests = [httpx.Request("GET", url) for _ in range(count)]
    answers = await asyncio.gather(*(transport.handle_async_request(each) for each in requests))
    assert {(each.status_code, each.http_version) for each in answers} == {(200, "HTTP/2")}
    return requests


def test_plain_text_is_http2_where_it_is_asked_for(run: Run, envoy: Envoy) -> None:
    async def ask() -> None:
        transport = Transport(lambda _: Address("127.0.0.1", envoy.ports["plain"]), protocol="http2")
        await _all(transport, 1, "http://shop/fast")
        before = envoy.count("http.plain.downstream_cx_http2_total")
        requests = await _all(transport, 4 * STREAMS_ALLOWED, "http://shop/slow")
        assert not any(REPEATED in each.extensions for each in requests)
        assert envoy.count("http.plain.downstream_cx_http2_total") == before + 3
        await transport.aclose()

    run(ask())


def test_plain_text_is_http1_otherwise(run: Run, envoy: Envoy) -> None:
    async def ask() -> None:
        transport = Transport(lambda _: Address("127.0.0.1", envoy.ports["plain"]))
        response = await transport.handle_async_request(httpx.Request("GET", "http://shop/fast"))
        assert (response.status_code, response.http_version) == (200, "HTTP/1.1")
        await transport.aclose()

    run(ask())


def test_a_connection_that_envoy_has_enough_of_costs_no_request(run: Run, envoy: Envoy) -> None:
    async def ask() -> None:
        transport = Transport(lambda _: Address("127.0.0.1", envoy.ports["worn"]), protocol="http2")
        for _ in range(3 * REQUESTS_ALLOWED + 1):
            await _all(transport, 1, "http://shop/fast")
        await _all(transport, 2 * REQUESTS_ALLOWED, "http://shop/slow")
        assert envoy.count("http.worn.downstream_cx_http2_total") > 3
        await transport.aclose()

    run(ask())


def test_a_deadline_is_a_reset_stream_to_envoy(run: Run, envoy: Envoy) -> None:
    async def ask() -> None:
        transport = Transport(lambda _: Address("127.0.0.1", envoy.ports["tls"]), ssl_context=_blind())
        await _all(transport, 1, "https://shop/fast")
        total, reset = "http.tls.downstream_cx_total", "http.tls.downstream_rq_rx_reset"
        before = envoy.count(total), envoy.count(reset)
        stuck = asyncio.create_task(_all(transport, 4, "https://shop/stuck"))
        await _all(transport, 1, "https://shop/slow")
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        await _all(transport, 1, "https://shop/fast")
        assert (envoy.count(total), envoy.count(reset)) == (before[0], before[1] + 4)
        await transport.aclose()

    run(ask())


def _blind() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


AGREED: list[tuple[str, str, str | None]] = [
    ("tls", "auto", "HTTP/2"),
    ("tls", "http2", "HTTP/2"),
    ("tls", "http1", "HTTP/1.1"),
    ("old", "auto", "HTTP/1.1"),
    ("old", "http1", "HTTP/1.1"),
    ("old", "http2", None),
]


@pytest.mark.parametrize(("listener", "protocol", "spoken"), AGREED)
def test_the_handshake_decides_what_is_spoken(
    run: Run, envoy: Envoy, certificates: Path, listener: str, protocol: Any, spoken: str | None
) -> None:
    async def ask() -> None:
        transport = Transport(
            lambda _: Address("127.0.0.1", envoy.ports[listener]),
            ssl_context=ssl.create_default_context(cafile=str(certificates / "shop.pem")),
            server_name="shop.example",
            protocol=protocol,
        )
        before = envoy.count(f"http.{listener}.downstream_cx_total")
        for _ in range(3):
            request = httpx.Request("GET", "https://127.0.0.1/fast")
            if spoken is None:
                with pytest.raises(TrafficError, match="does not speak HTTP/2") as caught:
                    await transport.handle_async_request(request)
                assert caught.value.failure is Failure.PROTOCOL
            else:
                response = await transport.handle_async_request(request)
                assert (response.status_code, response.http_version) == (200, spoken)
        assert envoy.count(f"http.{listener}.downstream_cx_total") == before + (3 if spoken is None else 1)
        await transport.aclose()

    run(ask())


def test_a_certificate_that_does_not_hold_is_a_failure_of_tls(run: Run, envoy: Envoy, certificates: Path) -> None:
    async def ask() -> None:
        transport = Transport(
            lambda _: Address("127.0.0.1", envoy.ports["tls"]),
            ssl_context=ssl.create_default_context(cafile=str(certificates / "stranger.pem")),
            protocol="http2",
        )
        found = await asyncio.gather(
            *(transport.handle_async_request(httpx.Request("GET", "https://shop.example/")) for _ in range(3)),
            return_exceptions=True,
        )
        assert [getattr(each, "failure", None) for each in found] == [Failure.TLS] * 3
        await transport.aclose()

    run(ask())
