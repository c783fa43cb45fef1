"""
How traffic gets in, as a value: every process that sends makes a transport of its own from it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from luff.errors import UsageError
from luff.model import TLS, Via
from luff.traffic.dial import Address
from luff.traffic.transport import Transport

__all__ = ["Way"]


@dataclass(frozen=True, slots=True)
class Way:
    """
    This is the way in that *via* describes; in a lab through its *ingress* and the *sidecar* of luff itself.

    Addresses are HOST:PORT. Call it for a transport, or dial by `address_of`.
    """

    via: Via
    ingress: str | None = None
    sidecar: str | None = None

    def __call__(self) -> Transport:
        """Return a new transport; `UsageError` where the CA of *via* cannot be used."""
        tls = self.via.tls
        return Transport(
            connect=self.address_of,
            ssl_context=None if tls is None else _context(tls),
            server_name=None if tls is None else tls.server_name,
            protocol=self.via.protocol,
        )

    def address_of(self, url: httpx.URL) -> Address:
        """Return where a request to *url* is dialled."""
        if self.via.connect:
            return _address(self.via.connect)
        inside = self.ingress if _is_gateway_host(url.host) else self.sidecar
        if inside is not None:
            return _address(inside)
        return Address(url.host, url.port or (443 if url.scheme == "https" else 80))


def _context(tls: TLS) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"traffic.via.tls.ca {tls.ca} cannot be used: {error}") from error


def _is_gateway_host(host: str) -> bool:
    """Return whether *host* is one from outside: cluster addresses are a service, optionally with its namespace."""
    parts = host.split(".")
    return len(parts) > 2 and "svc" not in parts


def _address(text: str) -> Address:
    parts = urlsplit(f"//{text}")
    assert parts.hostname is not None
    assert parts.port is not None
    return Address(parts.hostname, parts.port)
