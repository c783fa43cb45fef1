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
5. A traceparent gives nothing away: what follows its prefix is, to who lacks the key, random and without a tie to any other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luff.words import Carrier, Object

__all__ = ["BAGGAGE_KEY", "FLAGS_HEADER", "Scope"]

BAGGAGE_KEY = "luff-run"
FLAGS_HEADER = "x-luff-flags"
"""The response header by which a twin shows a direct caller what the proxy did."""

_SECRET = re.compile(r"[0-9a-f]{32}")
_ROUNDS = 4
"""How often a number is stirred: four rounds of a keyed function make a permutation that nobody can tell from a random one."""
_HALF = (1 << 32) - 1


def _trace_prefix(secret: str) -> str:
    return hashlib.sha256((secret + "traceparent").encode()).hexdigest()[:16]


class _Traces:
    """
    This is the trace ids of one arm.

    Each is the arm's prefix and 64 bits that stand for the number of a request,
    by a permutation under a key that is never sent.
    """

    __slots__ = ("_spans", "_steps", "prefix")

    def __init__(self, value: str, key: bytes, arm: bytes) -> None:
        self.prefix = _trace_prefix(value)
        self._steps = [hashlib.blake2b(key=key, digest_size=4, person=arm, salt=b"%d" % n) for n in range(_ROUNDS)]
        self._spans = hashlib.blake2b(key=key, digest_size=8, person=arm, salt=b"span")

    def parent(self, number: int) -> str:
        """Return the whole traceparent of request *number* (0 to 2⁶⁴ - 1)."""
        left, right = number >> 32 & _HALF, number & _HALF
        for step in self._steps:
            left, right = right, left ^ _stirred(step, right)
        # The span tells nothing of the number, nor of the trace; all zeros would be no span.
        span = self._spans.copy()
        span.update(number.to_bytes(8, "big"))
        return f"00-{self.prefix}{left:08x}{right:08x}-{int.from_bytes(span.digest(), 'big') or 1:016x}-01"

    def number(self, suffix: str) -> int:
        """Return the number that the last 16 hex digits of a trace id stand for."""
        left, right = int(suffix[:8], 16), int(suffix[8:], 16)
        for step in reversed(self._steps):
            left, right = right ^ _stirred(step, left), left
        return left << 32 | right


def _stirred(step: hashlib.blake2b, half: int) -> int:
    digest = step.copy()
    digest.update(half.to_bytes(4, "big"))
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True, slots=True)
class Scope:
    """
    This is the scope of one run.

    *secret* is 32 hex digits, unguessable, new for each run; *decoy* is the
    same kind of value, carried by control requests and matched by nothing;
    *header* is the name of the own header, in lower case. *key* (at most 64
    bytes) ties trace ids to the numbers of requests and is never sent; a run
    has a random one, and without one it comes from the two values, one way.
    """

    secret: str = field(repr=False)
    decoy: str = field(repr=False)
    header: str = "x-luff-run"
    carriers: tuple[Carrier, ...] = tuple(Carrier)
    key: bytes = field(default=b"", repr=False)
    _fault: _Traces = field(init=False, repr=False, compare=False)
    _control: _Traces = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _SECRET.fullmatch(self.secret) or not _SECRET.fullmatch(self.decoy) or self.secret == self.decoy:
            raise ValueError("a scope needs two different values of 32 hex digits")
        if not self.carriers:
            raise ValueError("a scope needs at least one carrier")
        key = self.key or hashlib.sha256(f"{self.secret}{self.decoy}trace ids".encode()).digest()
        object.__setattr__(self, "_fault", _Traces(self.secret, key, b"fault"))
        object.__setattr__(self, "_control", _Traces(self.decoy, key, b"control"))

    def __reduce__(self) -> tuple[type[Scope], tuple[Any, ...]]:
        """Return what makes the same scope in another process: to be said over a pipe, never to be stored."""
        return Scope, (self.secret, self.decoy, self.header, self.carriers, self.key)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the secret, in hex: all that may be stored, logged or shown."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def headers(self, number: int) -> dict[str, str]:
        """Return the request headers that put request *number* (from 0) in scope."""
        return self._carried(self.secret, self._fault, number)

    def control_headers(self, number: int) -> dict[str, str]:
        """Return headers of the same shape that no twin matches."""
        return self._carried(self.decoy, self._control, number)

    def matches(self) -> dict[Carrier, tuple[str, Object]]:
        """Return for each carrier the header that carries it and the Istio StringMatch that sees it."""
        made: dict[Carrier, tuple[str, Object]] = {
            Carrier.HEADER: (self.header, {"prefix": f"{self.secret}."}),
            Carrier.BAGGAGE: (
                "baggage",
                {"regex": rf"(?:.*,)?\s*{BAGGAGE_KEY}\s*=\s*{self.secret}\.[0-9]+\s*(?:;[^,]*)?(?:,.*)?"},
            ),
            Carrier.TRACEPARENT: ("traceparent", {"prefix": f"00-{self._fault.prefix}"}),
        }
        return {carrier: made[carrier] for carrier in self.carriers}

    def number_in(self, headers: Mapping[str, str]) -> tuple[int, tuple[Carrier, ...]] | None:
        """
        Return the number of the scoped request that *headers* (lower-case names) belong to, and the carriers that arrived.

        Returns ``None`` when no carrier of this run's fault arm is there.
        """
        return self._read(self.secret, self._fault, headers)

    def control_number_in(self, headers: Mapping[str, str]) -> tuple[int, tuple[Carrier, ...]] | None:
        """Return the same for a request of the control arm."""
        return self._read(self.decoy, self._control, headers)

    def redact(self, text: str) -> str:
        """Return *text* without the values that must not be stored or shown."""
        for value in (self.secret, self.decoy, self._fault.prefix, self._control.prefix):
            text = text.replace(value, "<redacted>")
        return text

    def _carried(self, value: str, traces: _Traces, number: int) -> dict[str, str]:
        carried = {
            Carrier.HEADER: (self.header, f"{value}.{number}"),
            Carrier.BAGGAGE: ("baggage", f"{BAGGAGE_KEY}={value}.{number}"),
            Carrier.TRACEPARENT: ("traceparent", traces.parent(number)),
        }
        return dict(carried[carrier] for carrier in self.carriers)

    def _read(self, value: str, traces: _Traces, headers: Mapping[str, str]) -> tuple[int, tuple[Carrier, ...]] | None:
        found: dict[Carrier, int] = {}
        if own := re.search(rf"{value}\.([0-9]+)", headers.get(self.header, "")):
            found[Carrier.HEADER] = int(own[1])
        if member := re.search(rf"(?:^|,)\s*{BAGGAGE_KEY}\s*=\s*{value}\.([0-9]+)", headers.get("baggage", "")):
            found[Carrier.BAGGAGE] = int(member[1])
        if trace := re.match(rf"00-{traces.prefix}([0-9a-f]{{16}})", headers.get("traceparent", "")):
            found[Carrier.TRACEPARENT] = traces.number(trace[1])
        if not found:
            return None
        return next(iter(found.values())), tuple(found)
