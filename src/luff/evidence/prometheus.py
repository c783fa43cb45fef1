"""What the callers' proxies count, as Prometheus has scraped it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from luff.evidence.istio_metrics import REQUESTS, Labels, fired
from luff.evidence.proxy_counts import Reading, Unreadable
from luff.prometheus import query_url, without_credentials

__all__ = ["Prometheus"]

ANSWER_WITHIN_S = 5.0
ANSWER_MOST_BYTES = 16 << 20
SCRAPED_WITHIN_S = 30.0
"""How old what Prometheus says may be: two of its usual 15 s, so that one scrape may be missed."""


@dataclass(slots=True)
class Prometheus:
    """
    This is a `luff.evidence.proxy_counts.Reader` on the server at *url*.

    *caller* are labels of `REQUESTS` that tell the caller's series, such as
    ``{"source_app": "reviews"}``.
    """

    url: str
    caller: Mapping[str, str]
    destinations: frozenset[str]
    target_namespace: str
    name: str = "prometheus"
    every_s: float = 5.0
    late_s: float = SCRAPED_WITHIN_S
    # trust_env: a proxy named in the environment has no business between us and a server of the same network.
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=ANSWER_WITHIN_S, trust_env=False)
    )
    _has_counted: bool = False

    async def read(self) -> Reading:
        blind = None
        try:
            series = _vector(await self._ask(self.query))
            if not self._has_counted:
                blind = self._blind(series or _vector(await self._ask(self.query_of_any)))
                self._has_counted = blind is None
        except httpx.InvalidURL as error:
            # Its own words would quote parts of the URL, which may be a password's.
            raise self._unreadable("cannot be asked: LUFF_PROMETHEUS_URL is no URL") from error
        except httpx.HTTPError as error:
            raise self._unreadable(f"gave no answer ({type(error).__name__}: {error})") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise self._unreadable(f"did not answer as a Prometheus does ({type(error).__name__}: {error})") from error
        proxies: dict[str, dict[Labels, float]] = {}
        for labels, value in fired(series, destinations=self.destinations, namespace=self.target_namespace).items():
            named = dict(labels)
            proxies.setdefault(named.get("pod") or named.get("instance") or "", {})[labels] = value
        return Reading(proxies, blind=blind)

    def _blind(self, series: Mapping[Labels, float]) -> Unreadable | None:
        """Return why *series*, the fault's or else one of any kind, show that nothing would be seen."""
        if series:
            return None
        return Unreadable(
            f"Prometheus at {without_credentials(self.url)} shows no fault: of the callers ({self._callers}) it has no "
            f"{REQUESTS} with response_flags",
            "see that it is this mesh's and scrapes the callers' pods (a first request takes a scrape to arrive), and "
            "what Telemetry says of the metrics; or use evidence.source: pod-metrics",
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self.client.aclose()

    @property
    def query(self) -> str:
        """Return what is asked."""
        return f'{REQUESTS}{{{self._callers},response_flags=~"(.*,)?(DI|FI)(,.*)?"}}'

    @property
    def query_of_any(self) -> str:
        """Return what is asked to learn whether the callers are counted at all, in a way that would show a fault."""
        return f'count({REQUESTS}{{{self._callers},response_flags!=""}})'

    @property
    def _callers(self) -> str:
        labels = {"reporter": "source", **self.caller}
        return ",".join(f"{key}={_quoted(value)}" for key, value in labels.items())

    async def _ask(self, query: str) -> Any:
        async with self.client.stream("GET", query_url(self.url), params={"query": query}) as answer:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > ANSWER_MOST_BYTES:
                    raise ValueError(f"more than {ANSWER_MOST_BYTES >> 20} MiB")
        if not answer.is_success:
            raise ValueError(f"status {answer.status_code}: {bytes(body[:200])!r}")
        return httpx.Response(200, content=bytes(body)).json()

    def _unreadable(self, why: str) -> Unreadable:
        return Unreadable(
            f"Prometheus at {without_credentials(self.url)} {why}",
            "correct LUFF_PROMETHEUS_URL, or use evidence.source: pod-metrics",
        )


def _vector(document: Any) -> dict[Labels, float]:
    data = document["data"]
    if document["status"] != "success" or data["resultType"] != "vector":
        raise ValueError(f"status {document['status']!r}, type {data.get('resultType')!r}")
    found: dict[Labels, float] = {}
    for each in data["result"]:
        value = float(each["value"][1])
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"a count that cannot be: {value}")
        found[frozenset((str(k), str(v)) for k, v in each["metric"].items())] = value
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
