"""
What an Istio proxy counts, read from its Prometheus page: the requests that its fault filter took part in.

``istio_requests_total`` with ``reporter="source"`` is counted by the *caller's*
proxy when a request ends, and `DI` or `FI` among its ``response_flags`` says
that a fault was injected into it. An aborted request has no destination
workload, and of some versions no destination service either (``unknown``): such
a one is counted, since a fault of ours may be behind it.

Pure: text in, numbers out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["REQUESTS", "Labels", "Tally", "fired", "parse", "why_blind"]

REQUESTS = "istio_requests_total"
_INJECTED = frozenset({"DI", "FI"})
_UNKNOWN = frozenset({"", "unknown"})

Labels: TypeAlias = frozenset[tuple[str, str]]
"""The labels of one series, as a key."""

_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|$)')
_SAMPLE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})?\s+\S+")
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parse(text: str) -> dict[Labels, float]:
    """
    Return `REQUESTS` of a page by labels.

    Raises `ValueError` for a page that is no such page, or whose series are
    broken: half a page must not look like few requests.
    """
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    first = next((line for line in lines if not line.startswith("#")), None)
    if not lines or (first is not None and not _SAMPLE.match(first)):
        raise ValueError(f"this is not a page of metrics: {text[:80]!r}")
    found: dict[Labels, float] = {}
    for line in lines:
        if not line.startswith(REQUESTS) or line[len(REQUESTS) : len(REQUESTS) + 1] not in ("{", " ", "\t"):
            continue
        labels, value = _series(line)
        # A page that is merged from several may hold a series twice; the sum is what was counted.
        found[labels] = found.get(labels, 0.0) + value
    return found


def _series(line: str) -> tuple[Labels, float]:
    rest, labels = line[len(REQUESTS) :], ""
    if rest.startswith("{"):
        end = _end_of_labels(rest)
        labels, rest = rest[1:end], rest[end + 1 :]
    words = rest.split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        raise ValueError(f"a count that is no number: {line[:200]!r}") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"a count that cannot be: {line[:200]!r}")
    return frozenset(_labels(labels)), value


def _end_of_labels(text: str) -> int:
    at, quoted = 1, False
    while at < len(text):
        if text[at] == "\\" and quoted:
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] == "}" and not quoted:
            return at
        at += 1
    raise ValueError(f"labels without an end: {text[:200]!r}")


def _labels(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            raise ValueError(f"labels that cannot be read: {text[at : at + 200]!r}")
        yield match[1], re.sub(r"\\.", lambda found: _ESCAPES.get(found[0], found[0]), match[2])
        at = match.end()


def fired(series: Mapping[Labels, float], *, destinations: frozenset[str], namespace: str) -> dict[Labels, float]:
    """
    Return those of *series* that count injected faults of a caller's proxy on the way to *destinations*.

    *destinations* are the short or full names of services; one that is named
    with another namespace than *namespace* is somebody else's.
    """
    return {key: value for key, value in series.items() if _is_ours(dict(key), destinations, namespace)}


def _is_ours(labels: Mapping[str, str], destinations: frozenset[str], namespace: str) -> bool:
    flags = set(labels.get("response_flags", "").split(","))
    if labels.get("reporter") != "source" or not flags & _INJECTED:
        return False
    full = labels.get("destination_service", "")
    names = {full, full.split(".")[0], labels.get("destination_service_name", "")} - _UNKNOWN
    where = labels.get("destination_service_namespace", "")
    if not names:
        return True
    return bool(names & destinations) and (where in _UNKNOWN or where == namespace or full in destinations)


def why_blind(pages: Iterable[Iterable[Labels]]) -> str | None:
    """
    Return why no fault could be seen in these *pages* of series, read after requests were sent; ``None`` where one could.

    Telemetry can switch the counter off, and can take its ``response_flags``
    away: then nothing is counted as injected, however many faults there are.
    """
    labels = [dict(key) for page in pages for key in page]
    if not labels:
        return f"no request is counted there at all: {REQUESTS} is switched off, or nothing reaches these proxies"
    if not any("response_flags" in each for each in labels):
        return f"{REQUESTS} is counted there without response_flags, by which an injected fault is known"
    return None


@dataclass(slots=True)
class Tally:
    """
    This adds up how far counters moved, by proxy, across restarts.

    *callers* is how often the fault fired, by the workload whose proxy it was.
    """

    callers: Counter[str] = field(default_factory=Counter)
    _last: dict[tuple[str, Labels], float] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)

    def begin(self, proxies: Mapping[str, Mapping[Labels, float]], *, unread: frozenset[str] = frozenset()) -> None:
        """Take what *proxies* have counted so far as zero; those *unread* are there, and nothing is known of their counts."""
        self._unread |= unread
        for proxy, series in proxies.items():
            self._take_as_zero(proxy, series)

    def add(self, proxy: str, series: Mapping[Labels, float]) -> None:
        """
        Count on from what *proxy* says now.

        A count below the last one is of a proxy that started again: all of it
        is new. A proxy not seen at `begin` was born since. One that was there
        and silent then counts from its first answer on.
        """
        if proxy in self._unread:
            self._take_as_zero(proxy, series)
            return
        for labels, value in series.items():
            last = self._last.get((proxy, labels), 0.0)
            moved = value - last if value >= last else value
            if moved:
                self.callers[_workload(labels)] += round(moved)
            self._last[proxy, labels] = value

    @property
    def total(self) -> int:
        """Return how often the fault fired since `begin`, at least."""
        return self.callers.total()

    def _take_as_zero(self, proxy: str, series: Mapping[Labels, float]) -> None:
        self._unread.discard(proxy)
        for labels, value in series.items():
            self._last[proxy, labels] = value


def _workload(labels: Labels) -> str:
    found = dict(labels)
    return found.get("source_workload") or found.get("source_app") or "unknown"
