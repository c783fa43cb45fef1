"""
Where the scope was lost: told from calls without it that lead to the dependency while a request of ours was there.

Proxies do not say which call a request caused, so a call is taken for its own
when it began while the request was in that proxy, or while a call was under way
that did. A service that calls the dependency by itself now and then meets few
requests so, and is not accused for that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["LOST_SHARE", "Hop", "LostScope"]

LOST_SHARE = 0.05
"""Of the requests of one kind that arrived somewhere and never met the fault, so many may meet a call without the scope by chance."""

_Proxy: TypeAlias = tuple[str, str]
"""A workload and its replica."""


@dataclass(frozen=True, slots=True)
class Hop:
    """
    This is one line of a proxy's log.

    *number* is the request of the fault arm that it is of, *scoped* whether it
    has the scope of either arm, *leads* whether it goes to the dependency.
    Times are Unix seconds.
    """

    proxy: _Proxy
    direction: Literal["inbound", "outbound"]
    number: int | None
    scoped: bool
    leads: bool
    started_s: float
    ended_s: float


@dataclass(slots=True)
class _Seen:
    """This is what was seen at one workload."""

    scoped_in: int = 0
    scoped_out: int = 0
    bare_out: int = 0


@dataclass(slots=True)
class LostScope:
    """
    This follows which workloads got requests of the fault arm and called on without their scope.

    *keep_s* is for how long after it began a call may still be asked for.
    """

    keep_s: float
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _stays: dict[int, list[Hop]] = field(default_factory=dict)
    _bare: dict[_Proxy, list[tuple[float, float]]] = field(default_factory=dict)
    _leading: dict[_Proxy, list[float]] = field(default_factory=dict)
    _newest_s: float = 0.0
    _missed: Counter[tuple[str, int]] = field(default_factory=Counter)
    _lost: Counter[tuple[str, int]] = field(default_factory=Counter)

    def see(self, hop: Hop) -> None:
        """Take note of *hop*."""
        seen = self._seen.setdefault(hop.proxy[0], _Seen())
        self._newest_s = max(self._newest_s, hop.started_s)
        if hop.direction == "inbound":
            if hop.number is not None:
                seen.scoped_in += 1
                self._stays.setdefault(hop.number, []).append(hop)
        elif hop.scoped:
            seen.scoped_out += hop.number is not None
        else:
            seen.bare_out += 1
            insort(self._bare.setdefault(hop.proxy, []), (hop.started_s, hop.ended_s))
            if hop.leads:
                insort(self._leading.setdefault(hop.proxy, []), hop.started_s)

    def settle(self, number: int, kind: int, *, missed: bool) -> None:
        """Have done with request *number* of *kind*: no line of it is to come. *missed* says that it should have met the fault and did not."""
        stays = self._stays.pop(number, [])
        if not missed:
            return
        self._missed.update({(stay.proxy[0], kind) for stay in stays})
        losers = [stay for stay in stays if _any_in(self._leading.get(stay.proxy, []), stay.started_s, stay.ended_s)]
        # Nobody's own call to the dependency: perhaps one further on, where the request is not known any more.
        losers = losers or [stay for stay in stays if self._leads_on(stay)]
        self._lost.update({(stay.proxy[0], kind) for stay in losers})

    def forget_old(self, settled_through: int) -> None:
        """Let go of what nobody will ask for: requests below *settled_through*, and old calls."""
        for number in [each for each in self._stays if each < settled_through]:
            del self._stays[number]
        oldest_s = self._newest_s - self.keep_s
        for calls in self._bare.values():
            del calls[: bisect_left(calls, (oldest_s, 0.0))]
        for starts in self._leading.values():
            del starts[: bisect_left(starts, oldest_s)]

    def lost_at(self, *, reached: bool) -> Counter[str]:
        """
        Return by workload how many requests lost the scope there, as far as settled.

        Where none at all *reached* the dependency, a workload that passed the
        scope on to nobody is named too, by its calls: they may lead there by a way that is not seen.
        """
        found = Counter[str]()
        for (workload, kind), count in self._lost.items():
            if count > LOST_SHARE * self._missed[workload, kind]:
                found[workload] += count
        if found or reached:
            return found
        return Counter(
            {
                name: seen.bare_out
                for name, seen in self._seen.items()
                if seen.scoped_in and seen.bare_out and not seen.scoped_out
            }
        )

    def _leads_on(self, stay: Hop) -> bool:
        """Return whether a call without the scope that began during *stay* was under way when somebody else's to the dependency began."""
        return any(
            _any_in(starts, *call)
            for call in self._calls_during(stay)
            for proxy, starts in self._leading.items()
            if proxy != stay.proxy
        )

    def _calls_during(self, stay: Hop) -> Iterator[tuple[float, float]]:
        calls = self._bare.get(stay.proxy, [])
        for place in range(bisect_left(calls, (stay.started_s, 0.0)), len(calls)):
            if calls[place][0] > stay.ended_s:
                return
            yield calls[place]


def _any_in(starts: list[float], begin_s: float, end_s: float) -> bool:
    return bisect_left(starts, begin_s) < bisect_right(starts, end_s)
