"""
Counting while traffic runs: samples are read in order of *due* time, each once, up to the oldest undecided one.

Fast answers come back first, so judging by completion would pass broken
services. And a look must never hold the event loop for long, since on that
loop hang the lever, the lock and Ctrl-C: each has its most rows to read and
its most evidence to weigh, and leaves the rest to the next.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from luff import stats
from luff.checks import PlannedCheck, speaks_unexposed, violations
from luff.model import AttemptsExpectation, FallbackExpectation, NoWorseThanExpectation, RecoveryExpectation
from luff.recovery import Recovery
from luff.samples import ARMS, PENDING, Evidence, Failure, Samples
from luff.words import Arm, Phase

__all__ = [
    "READ_MOST", "WEIGHED_MOST", "Judge", "Tally", "attempts_on", "breaches", "comparison_size", "passes_among",
    "sequential_verdict",
]  # fmt: skip

BREACH_ALPHA = 0.001
"""The tripwire on control is wrong once in a thousand runs at most."""
READ_MOST = 2000
"""Requests read in one look."""
WEIGHED_MOST = 40
"""Times that evidence is computed in one look, each some 50 µs."""
_PASS_WORTH = math.log(2)
"""No claim is made at a confidence below 50 %, so less evidence than this decides nothing."""
_FAIL_WORTH = 3.0
"""Less evidence than this fails nothing at `stats.ALPHA_FAIL`."""
_ENOUGH = 40.0
"""More evidence than this changes no verdict and no order among p-values that matters."""


@dataclass(slots=True)
class Tally:
    """
    This is one check's count so far: *n* judged requests, and where among them the violations stand (from 1).

    Requests of the fault arm that never took the twin stand apart. Those that
    violate count, for an error is an error wherever it comes from; those that
    hold prove nothing and are *left_out*. So passing asks for the claim among
    *n*, which is never kinder than the truth; and failing asks for the opposite
    among those that took the twin or among everybody, so that errors which are
    as usual where nothing fires cannot be held against the few that did.

    What requests are compared with may be known from few answers: up to the
    share *doubt* (0 to 1) of violations may come of that, and fails nothing.

    With *threshold*, `weigh` keeps the strongest evidence (ln) that there ever
    was for passing and for failing: what `luff.stats` has processes for.
    """

    threshold: float | None = None
    n: int = 0
    positions: list[int] = field(default_factory=list)
    left_out: int = 0
    unexposed: int = 0
    doubt: float = 0.0
    log_e_pass: float = 0.0
    log_e_fail: float = 0.0
    weighed: int = 0
    """How often evidence was computed, which is what weighing costs."""
    _apart: list[tuple[int, int]] | None = None
    """*left_out* and *unexposed* at each violation; ``None`` while everybody took the twin."""
    _at_floor: tuple[int, int, int, int] | None = None
    _seen: int = 0

    def add_all(self, places: Sequence[int], count: int) -> None:
        """Add *count* requests that took the twin, of which those at *places* (from 0) are violations."""
        before = self.n
        self.positions += [before + 1 + place for place in places]
        if self._apart is not None:
            self._apart += [(self.left_out, self.unexposed)] * len(places)
        self.n += count
        if before < stats.FAIL_FLOOR <= self.n:
            among = bisect_right(self.positions, stats.FAIL_FLOOR)
            self._at_floor = among, stats.FAIL_FLOOR, self.left_out, self.unexposed

    def add_unexposed(self, *, counts: bool) -> None:
        """Add a request that never took the twin; it *counts* when it is a violation that speaks for itself."""
        if self._apart is None:
            self._apart = [(0, 0)] * len(self.positions)
        if counts:
            self.unexposed += 1
            self.add_all((0,), 1)
        else:
            self.left_out += 1

    def populations(self) -> list[tuple[int, int]]:
        """Return violations and requests of those that took the twin and, where that is not everybody, of all."""
        return _populations(len(self.positions), self.n, self.left_out, self.unexposed)

    @property
    def met(self) -> int:
        """Return how many of the judged requests took the twin, or were to take none."""
        return self.n - self.unexposed

    @property
    def behind(self) -> bool:
        """Return whether there are violations whose evidence was not looked at yet."""
        return self.threshold is not None and self._seen < len(self.positions)

    def weigh(self, most: float = math.inf) -> None:
        """
        Look at the evidence of every moment since the last look, computing it at most *most* times.

        Evidence to fail grows with violations alone and evidence to pass with
        good requests alone, so only the moments just after a violation and just
        before one are looked at, and the end.
        """
        if self.threshold is None:
            return
        until = self.weighed + most
        if self._at_floor is not None:
            self._weigh_fail(*self._at_floor)
            self._at_floor = None
        for index in range(self._seen, len(self.positions)):
            if self.log_e_fail >= _ENOUGH:
                # It has failed for good, and nothing that comes makes a difference.
                self._seen = len(self.positions)
                return
            if self.weighed >= until:
                return
            position = self.positions[index]
            self._weigh_pass(index, position - 1)
            if position >= stats.FAIL_FLOOR:
                self._weigh_fail(index + 1, position, *(self._apart[index] if self._apart is not None else (0, 0)))
            self._seen = index + 1
        self._weigh_pass(len(self.positions), self.n)

    def _weigh_pass(self, k: int, n: int) -> None:
        assert self.threshold is not None
        if k >= self.threshold * n or self.log_e_pass >= _ENOUGH:
            return
        if stats.most_log_e(k, n, self.threshold) > max(_PASS_WORTH, self.log_e_pass):
            self.weighed += 1
            self.log_e_pass = max(self.log_e_pass, stats.log_e_pass(k, n, self.threshold))

    def _weigh_fail(self, k: int, n: int, left_out: int, unexposed: int) -> None:
        assert self.threshold is not None
        most = max(self.threshold, self.doubt)
        among = [each for each in _populations(k, n, left_out, unexposed) if each[0] > most * each[1]]
        if any(stats.most_log_e(*each, most) > max(_FAIL_WORTH, self.log_e_fail) for each in among):
            self.weighed += len(among)
            shares = 1 if not left_out and not unexposed else 2
            found = [stats.log_e_fail(*each, most) for each in among if each[1] >= stats.FAIL_FLOOR]
            # The mean of two such processes is one, and holds at any stopping time as they do.
            mean = math.log(sum(map(math.exp, (min(each, 600.0) for each in found))) / shares) if found else 0.0
            self.log_e_fail = max(self.log_e_fail, mean)


def _populations(k: int, n: int, left_out: int, unexposed: int) -> list[tuple[int, int]]:
    if not left_out and not unexposed:
        return [(k, n)]
    return [(k - unexposed, n - unexposed), (k, n + left_out)]


@dataclass(frozen=True, slots=True)
class Baseline:
    """
    This is what the warm-up of an arm tells of its usual latency: its *p95_ns*, 0 without any answer.

    Of few answers that is a guess: up to the share *above* (0 to 1) of all that
    is usual may take longer, at 99.5 % confidence.
    """

    p95_ns: int = 0
    above: float = 1.0

    @classmethod
    def of(cls, latencies_ns: Sequence[int]) -> Baseline:
        """Return what sorted *latencies_ns* tell. The share above one of them is Beta distributed, whatever they come from."""
        if not latencies_ns:
            return cls()
        p95_ns, count = int(stats.quantile(latencies_ns, 0.95)), len(latencies_ns)
        return cls(p95_ns, stats.upper_bound(count - bisect_right(latencies_ns, p95_ns), count, alpha=stats.ALPHA_FAIL))


@dataclass(slots=True)
class Judge:
    """
    This reads samples while traffic runs, in due order, each once.

    `feed` returns whether every check has decided. *breached* turns true when
    the control arm errs more often than declared; it never stops watching.
    *behind* says that a look left something for the next. Where only calls are
    counted, no more than the share *met_least* (0 to 1) of the fault arm may
    have met the fault, and a pass has to hold for so few as well. What control is
    compared by leaves out *elsewhere*: requests, by their place in
    ``traffic.requests``, that never reach the target in either arm.
    """

    checks: tuple[PlannedCheck, ...]
    control_errors_most: float = 0.05
    met_least: float = 1.0
    elsewhere: frozenset[int] = frozenset()
    tallies: dict[str, Tally] = field(default_factory=dict)
    controls: dict[str, Tally] = field(default_factory=dict)
    alike: dict[str, tuple[Tally, Tally]] = field(default_factory=dict)
    """
    The counts of an arm and of the other one by what is usual for the slower of both, where each is held against its own warm-up.

    By these, what a short warm-up makes of two arms that are the same is no difference.
    """
    breached: bool = False
    behind: bool = False
    read: int = 0
    """How many rows were read so far."""
    _watched: int = 0
    """Up to where the tripwire needs to look at no request again."""
    _control_n: int = 0
    _control_errors: int = 0
    _baselines: dict[Arm, Baseline] = field(default_factory=dict)
    _recoveries: dict[str, Recovery] = field(default_factory=dict)

    @property
    def recovery_most_s(self) -> float:
        """Return for how long recovery has to be watched, 0 when nobody asked."""
        return max(
            (c.expectation.within_s for c in self.checks if isinstance(c.expectation, RecoveryExpectation)), default=0.0
        )

    def feed(self, samples: Samples, evidence: Evidence) -> bool:
        """Read on as far as everything is known, at most `READ_MOST` rows, and return whether every check of this phase has decided."""
        self._watch_control(samples)
        known = self._known(samples, evidence, self.read + READ_MOST + 1)
        end = min(known, self.read + READ_MOST)
        self._read(samples, evidence, end)
        left = WEIGHED_MOST
        for tally in self.tallies.values():
            before = tally.weighed
            tally.weigh(left)
            left = max(0, left - (tally.weighed - before))
        self.behind = known > end or any(tally.behind for tally in self.tallies.values())
        share = self.met_least if evidence.per == "aggregate" else 1.0
        return bool(self.checks) and all(self._decided(check, share) for check in self.checks)

    def feed_all(self, samples: Samples, evidence: Evidence) -> None:
        """Read as far as everything is known, however long that takes: for when no loop has to turn."""
        self._watch_control(samples)
        end = self._known(samples, evidence, len(samples))
        while self.read < end:
            self._read(samples, evidence, min(end, self.read + 50 * READ_MOST))
        for tally in self.tallies.values():
            tally.weigh()
        self.behind = False

    def pairs(self, check: PlannedCheck) -> list[tuple[Tally, Tally]]:
        """Return the counts of an arm and of the other one, by each of which a comparison has to be failed."""
        own = self.tallies.get(check.id, Tally()), self.controls.get(check.id, Tally())
        return [own, self.alike[check.id]] if check.id in self.alike else [own]

    def _known(self, samples: Samples, evidence: Evidence, most: int) -> int:
        """Return up to where everything is decided and its evidence is in; *most* is as far as anybody asks."""
        end = min(len(samples), most)
        if evidence.per == "request":
            end = min(end, evidence.settled_through)
        try:
            return samples.done_ns.index(PENDING, self.read, max(self.read, end))
        except ValueError:
            return max(self.read, end)

    def _read(self, samples: Samples, evidence: Evidence, end: int) -> None:
        begin, self.read = self.read, end
        for arm in ARMS:
            rows = samples.judged_rows(arm, begin=begin, end=end)
            if not rows:
                continue
            absent = _absent(rows, arm, evidence)
            reaching = [n for n in rows if samples.request[n] not in self.elsewhere] if self.elsewhere else rows
            for check in self.checks:
                compared = check.method == "comparison" or isinstance(check.expectation, FallbackExpectation)
                if check.method != "windows" and (compared or arm is check.arm):
                    own = arm is check.arm
                    usual, missed = self._baseline(samples, arm, rows[0]), absent if own else frozenset()
                    tally = self._tally(check, own=own)
                    if isinstance(check.expectation, NoWorseThanExpectation) and check.method != "comparison":
                        tally.doubt = usual.above
                    counted = _up_to_size(check, tally, rows if own else reaching, missed)
                    bad = violations(check, samples, counted, attempts_on(check, evidence), usual.p95_ns)
                    _count(tally, check, samples, counted, bad, missed)
                    if isinstance(check.expectation, NoWorseThanExpectation) and check.method == "comparison":
                        larger_ns = max(self._baseline(samples, each, rows[0]).p95_ns for each in ARMS)
                        into = self.alike.setdefault(check.id, (Tally(), Tally()))[0 if own else 1]
                        _count(
                            into, check, samples, counted, violations(check, samples, counted, (), larger_ns), missed
                        )

    def _tally(self, check: PlannedCheck, *, own: bool) -> Tally:
        into = self.tallies if own else self.controls
        if check.id not in into:
            into[check.id] = Tally(
                check.threshold if own and check.method == "sequential" and check.threshold < 1 else None
            )
        return into[check.id]

    def _baseline(self, samples: Samples, arm: Arm, before: int) -> Baseline:
        """Return what the warm-up of *arm* tells, which ends before row *before*."""
        if arm not in self._baselines:
            self._baselines[arm] = Baseline.of(
                sorted(
                    samples.done_ns[n] - samples.due_ns[n]
                    for n in samples.rows(arm=arm, phase=Phase.WARMUP, end=before)
                    if samples.judged(n) and samples.failure[n] == Failure.NONE
                )
            )
        return self._baselines[arm]

    def _watch_control(self, samples: Samples) -> None:
        """
        Look at the control arm alone, in due order, whatever is undecided.

        The tripwire waits neither for the fault arm, which hangs just when a
        pool is full, nor for evidence. And what control itself still waits for
        counts as good until it is decided: that finds too few errors and never
        too many, so that one hanging bystander hides no other.
        """
        failure, status, done = samples.failure, samples.status, samples.done_ns
        rows = samples.judged_rows(Arm.CONTROL, begin=self._watched, end=len(samples))
        errors = [place for place, n in enumerate(rows) if failure[n] or status[n] >= 500]
        if not self.breached:
            self.breached = any(
                breaches(self._control_errors + among, self._control_n + place + 1, self.control_errors_most)
                for among, place in enumerate(errors, start=1)
            )
        settled = next((place for place, n in enumerate(rows) if done[n] == PENDING), len(rows))
        self._control_errors += bisect_left(errors, settled)
        self._control_n += settled
        self._watched = rows[settled] if settled < len(rows) else len(samples)

    def _decided(self, check: PlannedCheck, met_least: float) -> bool:
        if check.method == "windows":
            return True
        tally = self.tallies.get(check.id, Tally())
        if check.threshold >= 1.0:
            return False
        if check.method == "comparison":
            return min(tally.met, self.controls.get(check.id, Tally()).n) >= comparison_size(check)
        if check.method == "fixed":
            return False
        # A failure has to stand among all the checks (Holm), so it is waited for until it would stand alone.
        found = sequential_verdict(check, tally, alpha_fail=check.alpha_fail / len(self.checks))
        if found == "passed" and check.arm is Arm.FAULT:
            return passes_among(check, tally, math.floor(met_least * tally.n))
        return found is not None

    def recovered(self, samples: Samples, *, removed_ns: int) -> bool:
        """Return whether every recovery check has what it waits for. *removed_ns* is when the fault was gone, once and for all."""
        for check in self.checks:
            if isinstance(check.expectation, RecoveryExpectation):
                within_s = check.expectation.within_s
                watching = self._recoveries.setdefault(check.id, Recovery(removed_ns, within_s))
                watching.look(samples)
                if watching.time_ns is None:
                    return False
        return True


def breaches(errors: int, requests: int, most: float) -> bool:
    """Return whether *errors* among *requests* of bystanders show that more than the share *most* of them fail."""
    wanted = -math.log(BREACH_ALPHA)
    return (
        errors > most * requests
        and stats.most_log_e(errors, requests, most) >= wanted
        and stats.guard_log_e(errors, requests, most) >= wanted
    )


def _absent(rows: Sequence[int], arm: Arm, evidence: Evidence) -> frozenset[int]:
    """Return the places in *rows* of the requests that never took the twin, where that can be told."""
    if arm is Arm.CONTROL or evidence.per == "aggregate":
        return frozenset()
    attempts, known = evidence.attempts, len(evidence.attempts)
    if rows[-1] < known and all(map(attempts.__getitem__, rows)):
        return frozenset()
    return frozenset(place for place, number in enumerate(rows) if number >= known or not attempts[number])


def _up_to_size(check: PlannedCheck, tally: Tally, rows: Sequence[int], absent: frozenset[int]) -> Sequence[int]:
    """
    Return those of *rows* that belong to the sample of *check*.

    The bounds of a comparison hold at a size that no outcome chooses. But how
    long a run goes on hangs on what its other checks see, so what comes after
    that size is not looked at.
    """
    if check.method != "comparison" or check.threshold >= 1.0:
        return rows
    room = comparison_size(check) - tally.met
    if room <= 0:
        return ()
    if len(rows) - len(absent) < room:
        return rows
    if not absent:
        return rows[:room]
    taking = (place for place in range(len(rows)) if place not in absent)
    return rows[: next(islice(taking, room - 1, None)) + 1]


def _count(
    tally: Tally, check: PlannedCheck, samples: Samples, rows: Sequence[int], bad: Sequence[int], absent: frozenset[int]
) -> None:
    if not absent:
        tally.add_all(bad, len(rows))
        return
    violating = frozenset(bad)
    for place, number in enumerate(rows):
        if place in absent:
            tally.add_unexposed(counts=place in violating and speaks_unexposed(check, samples, number))
        else:
            tally.add_all((0,) if place in violating else (), 1)


def attempts_on(check: PlannedCheck, evidence: Evidence) -> array[int]:
    """Return how often each request called the host that *check* is about; without one, that of the broken hop."""
    if isinstance(check.expectation, AttemptsExpectation):
        return evidence.edges.get(check.expectation.of, evidence.attempts)
    return evidence.attempts


def sequential_verdict(check: PlannedCheck, tally: Tally, *, alpha_fail: float) -> Literal["passed", "failed"] | None:
    """
    Return what the e-processes say of *tally* as it is now.

    A pass does not outlive evidence enough to fail, nor a share of violations
    above the threshold: other checks may still be undecided while a service
    gets worse. Where violations come in bursts it takes as much more evidence
    as they lessen it.
    """
    if tally.log_e_fail >= -math.log(alpha_fail):
        return "failed"
    wanted = -math.log(check.alpha_pass)
    if tally.log_e_pass < wanted or len(tally.positions) > check.threshold * tally.n:
        return None
    return "passed" if tally.log_e_pass >= wanted * stats.burst_effect(tally.positions, tally.n) else None


def passes_among(check: PlannedCheck, tally: Tally, met: int, *, other: Tally | None = None) -> bool:
    """Return whether as many violations as *tally* has would pass among *met* requests, compared with *other* where it is a comparison."""
    k, n = len(tally.positions), min(met, tally.n)
    if k > check.threshold * n and check.method != "comparison":
        return False
    if check.method == "comparison":
        low = stats.lower_bound(len(other.positions), other.n, alpha=check.alpha_pass / 2) if other is not None else 0.0
        return stats.upper_bound(min(k, n), n, alpha=check.alpha_pass / 2) - low <= check.threshold
    fewer = stats.burst_effect(tally.positions, tally.n)
    if check.method == "fixed":
        return stats.upper_bound(math.ceil(k / fewer), math.floor(n / fewer), alpha=check.alpha_pass) <= check.threshold
    return stats.log_e_pass(k, n, check.threshold) >= -math.log(check.alpha_pass) * fewer


def comparison_size(check: PlannedCheck) -> int:
    """Return the requests per arm after which a comparison is made: four times what no violation at all would need."""
    fewest = stats.fewest_requests(max(check.threshold, 1e-3), alpha=check.alpha_pass / 2, method="fixed")
    return min(4 * fewest, check.sample_most)
