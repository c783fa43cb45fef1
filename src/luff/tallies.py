"""
Counting while traffic runs: samples are read in order of *due* time, each once, up to the oldest undecided one.

Fast answers come back first, so judging by completion would pass broken services.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from luff import stats
from luff.checks import PlannedCheck, violates
from luff.model import FallbackExpectation, RecoveryExpectation
from luff.samples import ARMS, PENDING, PHASES, Evidence, Failure, Flag, Samples
from luff.words import Arm, Phase

__all__ = ["Judge", "Tally", "comparison_size", "recovery_time_ns", "recovery_watched", "sequential_verdict"]

BREACH_ALPHA = 0.001
"""The tripwire on control is wrong once in a thousand runs at most."""
_FAULT_PHASE = PHASES.index(Phase.FAULT)
_CONTROL = ARMS.index(Arm.CONTROL)
RECOVERY_WINDOW_NS = 1_000_000_000
RECOVERY_WINDOWS = 3
RECOVERY_ERRORS = 0.02
RECOVERY_FACTOR = 1.5
RECOVERY_SLACK_NS = 20_000_000


@dataclass(slots=True)
class Tally:
    """This is one check's count so far: *n* judged requests, and where among them the violations stand (from 1)."""

    n: int = 0
    positions: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Judge:
    """
    This reads samples while traffic runs, in due order, each once.

    `feed` returns whether every check has decided. *breached* turns true when
    the control arm errs more often than declared; it never stops watching.
    """

    checks: tuple[PlannedCheck, ...]
    control_errors_most: float = 0.05
    tallies: dict[str, Tally] = field(default_factory=dict)
    controls: dict[str, Tally] = field(default_factory=dict)
    breached: bool = False
    _at: int = 0
    _control_n: int = 0
    _control_errors: int = 0
    _baseline_ns: dict[int, int] = field(default_factory=dict)

    @property
    def recovery_most_s(self) -> float:
        """Return for how long recovery has to be watched, 0 when nobody asked."""
        return max(
            (c.expectation.within_s for c in self.checks if isinstance(c.expectation, RecoveryExpectation)), default=0.0
        )

    def feed(self, samples: Samples, evidence: Evidence) -> bool:
        """Read on as far as everything is known, and return whether every check of this phase has decided."""
        end = len(samples)
        if evidence.per == "request":
            end = min(end, evidence.settled_through)
        number, per_arm = self._at, self._counted_by()
        phases, failures, done_ns, arms = samples.phase, samples.failure, samples.done_ns, samples.arm
        flags, repeated = samples.flags, int(Flag.REPEATED)
        while number < end and done_ns[number] != PENDING:
            if phases[number] == _FAULT_PHASE and failures[number] < Failure.POOL and not flags[number] & repeated:
                self._take(samples, evidence, number, per_arm[arms[number]])
            number += 1
        self._at = number
        return bool(self.checks) and all(self._decided(check) for check in self.checks)

    def _counted_by(self) -> list[list[tuple[PlannedCheck, bool]]]:
        """Return for each arm the checks that count its requests, and whether as the claim's own and not as what it is compared with."""
        per_arm: list[list[tuple[PlannedCheck, bool]]] = [[] for _ in ARMS]
        for check in self.checks:
            compared = check.method == "comparison" or isinstance(check.expectation, FallbackExpectation)
            for place, arm in enumerate(ARMS):
                if check.method != "windows" and (compared or arm is check.arm):
                    per_arm[place].append((check, arm is check.arm))
        return per_arm

    def _take(
        self, samples: Samples, evidence: Evidence, number: int, counted_by: list[tuple[PlannedCheck, bool]]
    ) -> None:
        arm = samples.arm[number]
        attempts = evidence.attempts[number] if number < len(evidence.attempts) else 0
        if arm == _CONTROL:
            self._watch_control(samples, number)
        exposed = attempts > 0 or arm == _CONTROL or evidence.per == "aggregate"
        baseline_ns = self._baseline_ns[arm] if arm in self._baseline_ns else self._baseline(samples, arm)
        for check, own in counted_by:
            if own and not exposed:
                continue
            into = self.tallies if own else self.controls
            tally = into.get(check.id)
            if tally is None:
                tally = into[check.id] = Tally()
            tally.n += 1
            if violates(check, samples, number, attempts, baseline_ns):
                tally.positions.append(tally.n)

    def _baseline(self, samples: Samples, arm: int) -> int:
        warm = sorted(
            samples.done_ns[n] - samples.due_ns[n]
            for n in samples.rows(arm=ARMS[arm], phase=Phase.WARMUP)
            if samples.judged(n) and samples.failure[n] == Failure.NONE
        )
        self._baseline_ns[arm] = int(stats.quantile(warm, 0.95)) if warm else 0
        return self._baseline_ns[arm]

    def _watch_control(self, samples: Samples, number: int) -> None:
        self._control_n += 1
        if samples.failure[number] != Failure.NONE or samples.status[number] >= 500:
            self._control_errors += 1
            if not self.breached:
                log_e = stats.guard_log_e(self._control_errors, self._control_n, self.control_errors_most)
                self.breached = log_e >= -math.log(BREACH_ALPHA)

    def _decided(self, check: PlannedCheck) -> bool:
        if check.method == "windows":
            return True
        tally = self.tallies.get(check.id, Tally())
        if check.threshold >= 1.0:
            return False
        if check.method == "comparison":
            enough = comparison_size(check)
            return min(tally.n, self.controls.get(check.id, Tally()).n) >= enough
        if check.method == "fixed":
            return False
        # A failure has to stand among all the checks (Holm), so it is waited for until it would stand alone.
        return sequential_verdict(check, tally, alpha_fail=check.alpha_fail / len(self.checks)) is not None

    def recovered(self, samples: Samples, *, removed_ns: int) -> bool:
        """Return whether every recovery check has what it waits for."""
        return all(
            recovery_time_ns(samples, removed_ns=removed_ns, within_s=c.expectation.within_s) is not None
            for c in self.checks
            if isinstance(c.expectation, RecoveryExpectation)
        )


def sequential_verdict(check: PlannedCheck, tally: Tally, *, alpha_fail: float) -> Literal["passed", "failed"] | None:
    """
    Return what the e-processes say of *tally* as it is now.

    The first decision counts, with one care for services that get worse while
    other checks are still undecided: a pass does not outlive evidence enough
    to fail, nor a share of violations above the threshold.
    """
    decided = stats.decide_sequentially(
        tally.positions, tally.n, check.threshold, alpha_pass=check.alpha_pass, alpha_fail=alpha_fail
    )
    if decided is None or decided[0] == "failed":
        return None if decided is None else "failed"
    if stats.most_log_e_fail(tally.positions, tally.n, check.threshold) >= -math.log(alpha_fail):
        return "failed"
    return "passed" if len(tally.positions) <= check.threshold * tally.n else None


def comparison_size(check: PlannedCheck) -> int:
    """Return the requests per arm after which a comparison is made: four times what no violation at all would need."""
    fewest = stats.fewest_requests(max(check.threshold, 1e-3), alpha=check.alpha_pass / 2, method="fixed")
    return min(4 * fewest, check.sample_most)


def recovery_time_ns(samples: Samples, *, removed_ns: int, within_s: float) -> int | None:
    """Return how long after *removed_ns* three windows in a row began to be like control, or ``None``."""
    return _three_in_a_row([bool(good) for good in _windows(samples, removed_ns, within_s)])


def recovery_watched(samples: Samples, *, removed_ns: int, within_s: float) -> bool:
    """Return whether it would be known if it had recovered: three windows in a row that nobody saw could be anything."""
    return _three_in_a_row([good is not False for good in _windows(samples, removed_ns, within_s)]) is None


def _three_in_a_row(windows: Sequence[bool]) -> int | None:
    good = 0
    for index, like_control in enumerate(windows):
        good = good + 1 if like_control else 0
        if good == RECOVERY_WINDOWS:
            return (index + 1 - RECOVERY_WINDOWS) * RECOVERY_WINDOW_NS
    return None


def _windows(samples: Samples, removed_ns: int, within_s: float) -> list[bool | None]:
    """
    Return for each window whether it is like control; ``None`` where that is not known.

    A window is known when it is over and everything in it is answered or given
    up: a request that still hangs is what a service that does not recover
    looks like.
    """
    count = math.floor(within_s)
    rows: list[dict[int, list[int | None]]] = [{} for _ in range(count)]
    unknown: set[int] = set()
    newest = -1
    for number in samples.rows(phase=Phase.RECOVERY):
        since_ns = samples.due_ns[number] - removed_ns
        if since_ns < 0:
            continue
        index = newest = since_ns // RECOVERY_WINDOW_NS
        failure = Failure(samples.failure[number])
        if not samples.decided(number) or failure is Failure.CUT:
            unknown.add(index)
        elif index < count and samples.judged(number):
            failed = failure is not Failure.NONE or samples.status[number] >= 500
            latency = None if failed else samples.done_ns[number] - samples.due_ns[number]
            rows[index].setdefault(samples.arm[number], []).append(latency)
    return [
        None if index in unknown or index >= newest or len(window) < len(ARMS) else _like_control(window)
        for index, window in enumerate(rows)
    ]


def _like_control(window: dict[int, list[int | None]]) -> bool:
    fault, control = window[ARMS.index(Arm.FAULT)], window[ARMS.index(Arm.CONTROL)]
    errors = sum(x is None for x in fault) / len(fault) - sum(x is None for x in control) / len(control)
    fast, normal = sorted(x for x in fault if x is not None), sorted(x for x in control if x is not None)
    if errors > RECOVERY_ERRORS or not fast or not normal:
        return False
    return stats.quantile(fast, 0.5) <= RECOVERY_FACTOR * stats.quantile(normal, 0.5) + RECOVERY_SLACK_NS
