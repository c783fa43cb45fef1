"""
What happened to each request, as columns, and what proves it.

A row is opened when its request falls due and closed when it is decided, so
rows stand in order of *due* time whatever came back first: the order in which
a sequential test must read them. The number of a request is its row.
Times are nanoseconds since the run's own zero, by one monotonic clock.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from itertools import compress
from typing import Literal

from luff.words import Arm, Carrier, Phase

__all__ = ["ARMS", "PENDING", "PHASES", "Call", "Evidence", "Failure", "Flag", "Sample", "Samples"]

ARMS = (Arm.FAULT, Arm.CONTROL)
PHASES = (Phase.WARMUP, Phase.FAULT, Phase.RECOVERY)
PENDING = -1
"""What `Samples.done_ns` holds until a request is decided."""


class Failure(IntEnum):
    """
    This is why no complete answer came. `NONE` means that one did.

    Those from `POOL` on are the generator's own fault and are never blamed on
    the service.
    """

    NONE = 0
    CONNECT = 1
    """The address refused or did not answer the connection."""
    DEADLINE = 2
    """The total time ran out."""
    RESET = 3
    """The connection ended inside the answer."""
    PROTOCOL = 4
    """What came is not HTTP."""
    TOO_LARGE = 5
    """The head or the body went over the cap."""
    TLS = 6
    """The handshake failed, or the certificate does not hold."""
    POOL = 16
    """No connection could be had in the generator."""
    RESOLVE = 17
    """This machine found no address for the name."""
    CUT = 18
    """The run ended first: what was in flight is not judged."""
    BUG = 19
    """luff itself made a mistake; the run ends with it."""
    WORKER = 20
    """The process of luff's that was to send it, or had sent it, ended too soon."""

    @property
    def ours(self) -> bool:
        """Return whether the generator is to blame."""
        return self >= Failure.POOL

    @property
    def words(self) -> str:
        """Return it as a clause of which a request is the subject."""
        return _WORDS[self]


_WORDS = {
    Failure.NONE: "was answered",
    Failure.CONNECT: "could not connect: the address refused, or did not accept in time",
    Failure.DEADLINE: "had no complete answer when its time was over",
    Failure.RESET: "lost its connection before the answer was complete",
    Failure.PROTOCOL: "was answered with something that is not HTTP",
    Failure.TOO_LARGE: "was answered with more than luff reads",
    Failure.TLS: "failed in the TLS handshake, or the certificate does not hold",
    Failure.POOL: "found no free file or port on this machine",
    Failure.RESOLVE: "had a host name for which this machine found no address",
    Failure.CUT: "was under way when the run ended",
    Failure.BUG: "met a mistake in luff",
    Failure.WORKER: "was with a process of luff's that ended too soon",
}


class Flag(IntFlag):
    """
    This is what is known of one request beside its answer.

    All but the last are what the proxy said, in `luff.scope.FLAGS_HEADER` where
    luff is the direct caller, or by how it answered.
    """

    TWIN = 1
    DELAY_INJECTED = 2
    FAULT_INJECTED = 4
    NO_ROUTE = 8
    """It knows no such host: it answered itself, and no service ever saw the request."""
    REPEATED = 16
    """luff sent it twice, as an idle connection closed just when it was used, or it was refused unread: counted and shown, never judged."""


@dataclass(frozen=True, slots=True)
class Sample:
    """This is one row. *status* is 0 and *done_ns* `PENDING` while there is no answer."""

    number: int
    arm: Arm
    phase: Phase
    request: int
    due_ns: int
    sent_ns: int
    done_ns: int
    status: int
    failure: Failure
    flags: Flag
    holds: int

    @property
    def latency_s(self) -> float:
        """Return the seconds from the *due* time to the end of the answer."""
        return (self.done_ns - self.due_ns) / 1e9

    @property
    def lateness_s(self) -> float:
        """Return how late it was sent: the generator's own fault."""
        return (self.sent_ns - self.due_ns) / 1e9


class Samples:
    """
    This is every request of a run, in order of due time.

    ``holds`` has a bit for each answer predicate of the plan (bit *i* for
    predicate *i*), decided when the answer came: bodies are not kept.
    ``request`` is the index in ``traffic.requests``.
    """

    def __init__(self) -> None:
        self.arm = array("B")
        self.phase = array("B")
        self.request = array("B")
        self.due_ns = array("q")
        self.sent_ns = array("q")
        self.done_ns = array("q")
        self.status = array("H")
        self.failure = array("B")
        self.flags = array("B")
        self.holds = array("L")

    def __len__(self) -> int:
        return len(self.due_ns)

    def open(self, arm: Arm, phase: Phase, request: int, due_ns: int) -> int:
        """Add a request that fell due and return its number."""
        self.arm.append(ARMS.index(arm))
        self.phase.append(PHASES.index(phase))
        self.request.append(request)
        self.due_ns.append(due_ns)
        self.sent_ns.append(PENDING)
        self.done_ns.append(PENDING)
        self.status.append(0)
        self.failure.append(Failure.NONE)
        self.flags.append(0)
        self.holds.append(0)
        return len(self.due_ns) - 1

    def close(
        self,
        number: int,
        *,
        done_ns: int,
        status: int = 0,
        failure: Failure = Failure.NONE,
        flags: int = 0,
        holds: int = 0,
    ) -> None:
        """Decide request *number*, once. *status* is 0 exactly when *failure* says why no answer came."""
        if self.done_ns[number] != PENDING:
            raise ValueError(f"request {number} is decided already")
        self.done_ns[number] = done_ns
        self.status[number] = status
        self.failure[number] = failure
        self.flags[number] = flags
        self.holds[number] = holds

    def decided(self, number: int) -> bool:
        """Return whether request *number* has its answer or its failure."""
        return self.done_ns[number] != PENDING

    def judged(self, number: int) -> bool:
        """Return whether request *number* says something of the service: it is decided, sent once, and no failure of ours."""
        return (
            self.done_ns[number] != PENDING
            and self.failure[number] < Failure.POOL
            and not self.flags[number] & Flag.REPEATED
        )

    def __getitem__(self, number: int) -> Sample:
        return Sample(
            number=number,
            arm=ARMS[self.arm[number]],
            phase=PHASES[self.phase[number]],
            request=self.request[number],
            due_ns=self.due_ns[number],
            sent_ns=self.sent_ns[number],
            done_ns=self.done_ns[number],
            status=self.status[number],
            failure=Failure(self.failure[number]),
            flags=Flag(self.flags[number]),
            holds=self.holds[number],
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def rows(
        self, *, arm: Arm | None = None, phase: Phase | None = None, begin: int = 0, end: int | None = None
    ) -> Iterator[int]:
        """Yield the numbers of the requests of *arm* and *phase*, in order of due time, from *begin* up to before *end*."""
        part, chosen = slice(begin, end), range(len(self))[begin:end]
        mask = _all_of(
            *((_where(self.arm[part], ARMS.index(arm)),) if arm is not None else ()),
            *((_where(self.phase[part], PHASES.index(phase)),) if phase is not None else ()),
            length=len(chosen),
        )
        return compress(chosen, mask)

    def judged_rows(self, arm: Arm, *, begin: int, end: int) -> list[int]:
        """Return the numbers of *arm*'s requests under the fault from *begin* up to before *end*, without what the generator spoilt."""
        part = slice(begin, end)
        mask = _all_of(
            _where(self.arm[part], ARMS.index(arm)),
            _where(self.phase[part], PHASES.index(Phase.FAULT)),
            self.failure[part].tobytes().translate(_THEIRS),
            self.flags[part].tobytes().translate(_ONCE),
            length=end - begin,
        )
        return list(compress(range(begin, end), mask))

    def ended_rows(self, arm: Arm) -> list[int]:
        """Return the numbers of all of `judged_rows` that are decided."""
        return [n for n in self.judged_rows(arm, begin=0, end=len(self)) if self.done_ns[n] != PENDING]


_THEIRS = bytes(number < Failure.POOL for number in range(256))
_ONCE = bytes(not number & Flag.REPEATED for number in range(256))


_IS = tuple(bytes(number == value for number in range(256)) for value in range(max(len(ARMS), len(PHASES))))


def _where(column: array[int], value: int) -> bytes:
    """Return a byte for each entry of a column of bytes: 1 where it is *value*, else 0."""
    return column.tobytes().translate(_IS[value])


def _all_of(*masks: bytes, length: int) -> bytes:
    if not masks:
        return b"\x01" * length
    # As one large number: a loop over a million rows in Python takes a hundred times as long.
    both = -1
    for mask in masks:
        both &= int.from_bytes(mask)
    return both.to_bytes(length)


@dataclass(frozen=True, slots=True)
class Call:
    """
    This is one proxied call seen in a log.

    *started_s* and *ended_s* are Unix seconds; *flags* are Envoy's, such as
    ``DI,DC``; *route* is the Envoy route's name; *number* the synthetic
    request that it belongs to; *status* 0 when the caller left first.
    """

    workload: str
    direction: Literal["inbound", "outbound"]
    destination: str
    path: str
    number: int
    started_s: float
    ended_s: float
    status: int
    flags: str
    route: str


@dataclass(slots=True)
class Evidence:
    """
    This is what is known so far.

    *source* is such as ``lab-log``, ``response-header``, ``latency-shift``.
    With *per* ``request``: ``attempts[n]`` counts how often request *n*
    reached the broken hop through the twin, ``fired[n]`` has the bits of
    `luff.samples.Flag` seen there, and ``breaches`` counts requests that took
    a twin and should not have (control, or not ours). With *per*
    ``aggregate``: only *attempts_total* and *fired_total* mean anything.

    *lost_at* counts, by workload, the fault-arm requests whose every carrier
    was gone when the workload called on towards the broken hop; *arrived* the
    carriers seen there; *callers* the workloads seen calling through the twin.
    """

    source: str
    per: Literal["request", "aggregate"]
    note: str = ""
    """What is missing now."""
    passed_over: str = ""
    """Why better sources were not used."""
    attempts: array[int] = field(default_factory=lambda: array("H"))
    fired: array[int] = field(default_factory=lambda: array("B"))
    settled_through: int = 0
    """Every request below this number has all the evidence that it will get."""
    attempts_total: int = 0
    fired_total: int = 0
    breaches: int = 0
    edges: dict[str, array[int]] = field(default_factory=dict)
    """How often each request caused a call on other hops, by the host as it was asked for; as far as that is counted."""
    lost_at: Counter[str] = field(default_factory=Counter)
    arrived: Counter[Carrier] = field(default_factory=Counter)
    callers: Counter[str] = field(default_factory=Counter)
    calls: list[Call] = field(default_factory=list)
    """What was seen on the way of some fault-arm requests, for explanations (bounded)."""

    @property
    def remarks(self) -> str:
        """Return what a reader should know of the source: why no better one, and what is missing."""
        return "; ".join(filter(None, (self.passed_over, self.note)))
