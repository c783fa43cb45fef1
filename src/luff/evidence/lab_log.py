"""
Evidence from the lab: every proxy's access log, joined per request.

A log line belongs to a synthetic request when any carrier of the scope is in
it. The line of the broken hop names the twin as its route. A line appears when
its call ends, so a request under a long delay is proven late; until then it is
not settled.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from luff.evidence.access_log import Followed
from luff.evidence.lost_scope import Hop, LostScope
from luff.model import Arm, Phase
from luff.names import find_name
from luff.samples import ARMS, PHASES, Call, Evidence, Flag, Samples
from luff.scope import BAGGAGE_KEY, Scope

__all__ = ["LabLog"]

CALLS_MOST = 2000
"""Calls of requests under the fault kept for explanations."""
READ_MOST_BYTES = 4 << 20
"""Read from one log in one poll."""
ATTEMPTS_MOST = (1 << 16) - 1
"""More than that are not told apart."""
LINE_LATE_S = 1.0
"""How long after its call a line may appear: the proxies flush every 50 ms."""

_FLAGS = {"DI": Flag.DELAY_INJECTED, "FI": Flag.FAULT_INJECTED}
_FAULT_ARM = ARMS.index(Arm.FAULT)
_FAULT_PHASE = PHASES.index(Phase.FAULT)


@dataclass(slots=True)
class LabLog:
    """
    This is a `luff.evidence.Source` on the folder *logs*.

    *twins* are the names of the run's twins; *wait_s* is the longest that a
    call through a twin can take: the delay and the traffic's own timeout.
    *zero_s* is the samples' zero on the clock *monotonic_s*, by which it is
    waited: the machine's date may be set meanwhile. *destinations* are the
    services that the broken routes lead to. *retries_for_s* is for
    how long after its answer a request may still cause calls that count; ``None``
    where one is as good as many, so that the first line settles it. Calls to
    *edges*, hosts other than the broken hop's, are counted as well.
    """

    logs: Path
    scope: Scope
    twins: tuple[str, ...]
    wait_s: float
    zero_s: float
    monotonic_s: Callable[[], float]
    destinations: frozenset[str]
    retries_for_s: float | None = None
    evidence: Evidence = field(default_factory=lambda: Evidence("lab-log", "request"))
    late_s: float = 0.0
    edges: tuple[str, ...] = ()
    _open: dict[Path, Followed] = field(default_factory=dict)
    _lost: LostScope = field(init=False)

    def __post_init__(self) -> None:
        self._lost = LostScope(keep_s=2 * (self.wait_s + LINE_LATE_S))

    async def begin(self) -> None:
        """Do nothing: what was logged before traffic began is skipped already."""

    async def close(self) -> None:
        """Do nothing: logs are open only while they are read."""

    async def poll(self, samples: Samples) -> None:
        lines = await asyncio.to_thread(self._read_new)
        self._grow(len(samples))
        for line in lines:
            self._take(line, samples)
        self._settle(samples)
        self._lost.forget_old(self.evidence.settled_through)
        self.evidence.lost_at = self._lost.lost_at(reached=bool(self.evidence.attempts_total))

    def skip_to_end(self) -> None:
        """Start from here: what is in the logs already belongs to earlier runs."""
        for path in self.logs.glob("*.access.jsonl"):
            self._log(path).skip_to_end()

    def _read_new(self) -> list[dict[str, Any]]:
        return [line for path in sorted(self.logs.glob("*.access.jsonl")) for line in self._log(path).new_lines()]

    def _log(self, path: Path) -> Followed:
        return self._open.setdefault(path, Followed(path, READ_MOST_BYTES))

    def _grow(self, length: int) -> None:
        missing = length - len(self.evidence.attempts)
        if missing > 0:
            self.evidence.attempts.extend([0] * missing)
            self.evidence.fired.extend([0] * missing)
        for host in self.edges:
            counts = self.evidence.edges.setdefault(host, array("H"))
            counts.extend([0] * (length - len(counts)))

    def _take(self, line: Mapping[str, Any], samples: Samples) -> None:
        headers = {
            self.scope.header: _text(_scope_headers(line).get(self.scope.header)),
            "baggage": _text(line.get("baggage")),
            "traceparent": _text(line.get("traceparent")),
        }
        mine = self.scope.number_in(headers)
        route = str(line.get("route") or "")
        named = find_name(route)
        twin = named is not None and str(named) in self.twins
        workload = str(line.get("workload") or "")
        direction: Literal["inbound", "outbound"] = "inbound" if line.get("direction") == "inbound" else "outbound"
        call = _call(line, -1 if mine is None else mine[0], workload, direction)
        scoped = mine is not None or self.scope.control_number_in(headers) is not None
        if scoped or not _of_another_run(line):
            self._lost.see(
                Hop(
                    proxy=(workload, str(line.get("replica") or "")),
                    direction=direction,
                    number=None if mine is None else mine[0],
                    scoped=scoped,
                    leads=any(_leads_to(str(line.get("cluster") or ""), host) for host in self.destinations),
                    started_s=call.started_s,
                    ended_s=call.ended_s,
                )
            )
        sent = len(samples)
        if twin:
            self._take_twin(line, mine, workload, sent)
        if mine is None:
            return
        if direction == "outbound":
            self._take_elsewhere(line, mine[0], sent)
        # A long warm-up would leave no room for what the fault brings about.
        under_fault = 0 <= mine[0] < sent and samples.phase[mine[0]] == _FAULT_PHASE
        if under_fault and len(self.evidence.calls) < CALLS_MOST:
            self.evidence.calls.append(call)

    def _take_twin(self, line: Mapping[str, Any], mine: tuple[int, Any] | None, workload: str, sent: int) -> None:
        evidence = self.evidence
        if mine is None:
            evidence.breaches += 1
            return
        number, carriers = mine
        flags = Flag.TWIN
        for word in str(line.get("flags") or "").split(","):
            flags |= _FLAGS.get(word, Flag(0))
        evidence.attempts_total += 1
        evidence.callers[workload] += 1
        evidence.arrived.update(carriers)
        if flags & (Flag.DELAY_INJECTED | Flag.FAULT_INJECTED):
            evidence.fired_total += 1
        # Numbers past the samples are probes: proof that the route is live, but not a sample.
        if 0 <= number < sent:
            evidence.attempts[number] = min(ATTEMPTS_MOST, evidence.attempts[number] + _tries(line))
            evidence.fired[number] |= int(flags)

    def _take_elsewhere(self, line: Mapping[str, Any], number: int, sent: int) -> None:
        for host in self.edges:
            if 0 <= number < sent and _leads_to(str(line.get("cluster") or ""), host):
                counts = self.evidence.edges[host]
                counts[number] = min(ATTEMPTS_MOST, counts[number] + _tries(line))

    def _settle(self, samples: Samples) -> None:
        """Move on over every request that is proven, is not of the fault arm, or can get no more proof."""
        evidence = self.evidence
        now_ns = (self.monotonic_s() - self.zero_s) * 1e9
        wait_ns = (self.wait_s + LINE_LATE_S) * 1e9
        number = evidence.settled_through
        while number < len(samples) and samples.decided(number):
            # Only while the fault is live is there anything to prove.
            faulted = samples.arm[number] == _FAULT_ARM and samples.phase[number] == _FAULT_PHASE
            proven = not faulted or (evidence.attempts[number] and self._counted(samples.done_ns[number], now_ns))
            if not proven and now_ns - samples.due_ns[number] < wait_ns:
                break
            self._lost.settle(number, samples.request[number], missed=faulted and not evidence.attempts[number])
            number += 1
        evidence.settled_through = number

    def _counted(self, done_ns: int, now_ns: float) -> bool:
        """Return whether every call that a request causes is in the logs, if anybody counts them: the first says little of the last."""
        return self.retries_for_s is None or now_ns - done_ns >= (self.retries_for_s + LINE_LATE_S) * 1e9


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """Return what a proxy wrote as a number, 0 where it wrote something else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) and found >= 0 else 0.0


def _tries(line: Mapping[str, Any]) -> int:
    # One line is one call; what its proxy tried again by itself is in it as a number.
    return max(1, round(_number(line.get("attempts"))))


def _scope_headers(line: Mapping[str, Any]) -> Mapping[str, Any]:
    headers = line.get("scope")
    return headers if isinstance(headers, dict) else {}


def _of_another_run(line: Mapping[str, Any]) -> bool:
    """Return whether *line*, which has no scope of ours, has that of a run beside this one; a trace of one cannot be told from others."""
    written = any(value not in (None, "", "-") for value in _scope_headers(line).values())
    return written or f"{BAGGAGE_KEY}=" in _text(line.get("baggage"))


def _call(line: Mapping[str, Any], number: int, workload: str, direction: Literal["inbound", "outbound"]) -> Call:
    started_s = _number(line.get("start"))
    return Call(
        workload=workload,
        direction=direction,
        destination=_destination(str(line.get("cluster") or "")) or str(line.get("authority") or ""),
        path=str(line.get("path") or ""),
        number=number,
        started_s=started_s,
        ended_s=started_s + _duration_s(line),
        status=round(_number(line.get("status"))),
        flags=str(line.get("flags") or ""),
        route=str(line.get("route") or ""),
    )


def _duration_s(line: Mapping[str, Any]) -> float:
    for key, unit_s in (("duration_us", 1e-6), ("duration_ms", 1e-3)):
        text = str(line.get(key) or "")
        if text.lstrip("-").isdigit() and int(text) >= 0:
            return int(text) * unit_s
    return 0.0


def _leads_to(cluster: str, host: str) -> bool:
    """Return whether *cluster* is of *host*, which may be written with its namespace or without."""
    full = cluster.rsplit("|", 1)[-1]
    return "|" in cluster and (full == host or full.startswith(f"{host}."))


def _destination(cluster: str) -> str:
    """Return the service in ``outbound|9080|v1|reviews.bookinfo.svc.cluster.local``."""
    return cluster.rsplit("|", 1)[-1].split(".")[0] if "|" in cluster else ""
