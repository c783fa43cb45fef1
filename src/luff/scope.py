"""
What marks a request as ours, and the match that sees it.

One 128-bit secret per run. `Scope.headers` is what luff's own traffic
carries; `Scope.matches` is what the twins match. Laws:

1. A request with ``headers(number)`` satisfies every match of ``matches()``
   whose carrier is among the request's carriers.
2. A control request, ``control_headers(number)``, looks the same and satisfies none.
3. A number can be read back from any one carrier (`Scope.number_in`), so that
   evidence can be joined per request whichever carrier arrives.
4. Nothing here prints the secret: ``repr`` and `Scope.digest` show a hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from luff.words import Carrier, Object

__all__ = ["BAGGAGE_KEY", "FLAGS_HEADER", "Scope"]

BAGGAGE_KEY = "luff-run"
FLAGS_HEADER = "x-luff-flags"
"""The response header by which a twin shows a direct caller what the proxy did."""

_SECRET = re.compile(r"[0-9a-f]{32}")
_TRACE_SUFFIX_MASK = (1 << 64) - 1


def _trace_prefix(secret: str) -> str:
    return hashlib.sha256((secret + "traceparent").encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Scope:
    """
    This is the scope of one run.

    *secret* is 32 hex digits, unguessable, new for each run; *decoy* is the
    same kind of value, carried by control requests and matched by nothing;
    *header* is the name of the own header, in lower case.
    """

    secret: str = field(repr=False)
    decoy: str = field(repr=False)
    header: str = "x-luff-run"
    carriers: tuple[Carrier, ...] = tuple(Carrier)

    def __post_init__(self) -> None:
        if not _SECRET.fullmatch(self.secret) or not _SECRET.fullmatch(self.decoy) or self.secret == self.decoy:
            raise ValueError("a scope needs two different values of 32 hex digits")
        if not self.carriers:
            raise ValueError("a scope needs at least one carrier")

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the secret, in hex: all that may be stored, logged or shown."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def headers(self, number: int) -> dict[str, str]:
        """Return the request headers that put request *number* (from 0) in scope."""
        return self._carried(self.secret, number)

    def control_headers(self, number: int) -> dict[str, str]:
        """Return headers of the same shape that no twin matches."""
        return self._carried(self.decoy, number)

    def matches(self) -> dict[Carrier, tuple[str, Object]]:
        """Return for each carrier the header that carries it and the Istio StringMatch that sees it."""
        made: dict[Carrier, tuple[str, Object]] = {
            Carrier.HEADER: (self.header, {"prefix": f"{self.secret}."}),
            Carrier.BAGGAGE: (
                "baggage",
                {"regex": rf"(?:.*,)?\s*{BAGGAGE_KEY}\s*=\s*{self.secret}\.[0-9]+\s*(?:;[^,]*)?(?:,.*)?"},
            ),
            Carrier.TRACEPARENT: ("traceparent", {"prefix": f"00-{_trace_prefix(self.secret)}"}),
        }
        return {carrier: made[carrier] for carrier in self.carriers}

    def number_in(self, headers: Mapping[str, str]) -> tuple[int, tuple[Carrier, ...]] | None:
        """
        Return the number of the scoped request that *headers* (lower-case names) belong to, and the carriers that arrived.

        Returns ``None`` when no carrier of this run's fault arm is there.
        """
        return self._read(self.secret, headers)

    def control_number_in(self, headers: Mapping[str, str]) -> tuple[int, tuple[Carrier, ...]] | None:
        """Return the same for a request of the control arm."""
        return self._read(self.decoy, headers)

    def redact(self, text: str) -> str:
        """Return *text* without the values that must not be stored or shown."""
        for value in (self.secret, self.decoy, _trace_prefix(self.secret), _trace_prefix(self.decoy)):
            text = text.replace(value, "<redacted>")
        return text

    def _carried(self, value: str, number: int) -> dict[str, str]:
        carried = {
            Carrier.HEADER: (self.header, f"{value}.{number}"),
            Carrier.BAGGAGE: ("baggage", f"{BAGGAGE_KEY}={value}.{number}"),
            Carrier.TRACEPARENT: (
                "traceparent",
                f"00-{_trace_prefix(value)}{self._suffix(number)}-{self._suffix(number + 1)}-01",
            ),
        }
        return dict(carried[carrier] for carrier in self.carriers)

    def _suffix(self, number: int) -> str:
        # A bijection on 64 bits, keyed by the secret: random to look at, and the number can be read back.
        key = int(self.secret[:16], 16)
        mixed = ((number + 1) * 0x9E3779B97F4A7C15 ^ key) & _TRACE_SUFFIX_MASK
        return f"{mixed or 1:016x}"

    def _number(self, suffix: str) -> int:
        key = int(self.secret[:16], 16)
        inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
        return (((int(suffix, 16) ^ key) * inverse) & _TRACE_SUFFIX_MASK) - 1

    def _read(self, value: str, headers: Mapping[str, str]) -> tuple[int, tuple[Carrier, ...]] | None:
        found: dict[Carrier, int] = {}
        if own := re.search(rf"{value}\.([0-9]+)", headers.get(self.header, "")):
            found[Carrier.HEADER] = int(own[1])
        if member := re.search(rf"(?:^|,)\s*{BAGGAGE_KEY}\s*=\s*{value}\.([0-9]+)", headers.get("baggage", "")):
            found[Carrier.BAGGAGE] = int(member[1])
        if trace := re.match(rf"00-{_trace_prefix(value)}([0-9a-f]{{16}})", headers.get("traceparent", "")):
            found[Carrier.TRACEPARENT] = self._number(trace[1])
        if not found:
            return None
        return next(iter(found.values())), tuple(found)
