"""
Whether callers got back to normal once the fault was gone: windows of one second, both arms beside each other.

Each request is looked at once it is decided, and never again: a look while
traffic runs costs what is new and what is in flight, not what has been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from luff import stats
from luff.samples import ARMS, PHASES, Failure, Samples
from luff.words import Arm, Phase

__all__ = ["WINDOW_NS", "Recovery", "recovery_of"]

WINDOW_NS = 1_000_000_000
WINDOWS = 3
ERRORS = 0.02
FACTOR = 1.5
SLACK_NS = 20_000_000
_RECOVERY = bytes([PHASES.index(Phase.RECOVERY)])
_FAULT, _CONTROL = ARMS.index(Arm.FAULT), ARMS.index(Arm.CONTROL)


@dataclass(slots=True)
class _Window:
    """
    This is one second. *answers* has each arm's latencies, ``None`` for an error.

    *open* counts requests that are not decided yet, *cut* says that one never
    will be; *like_control* is kept once it is known.
    """

    answers: tuple[list[int | None], list[int | None]] = field(default_factory=lambda: ([], []))
    open: int = 0
    cut: bool = False
    like_control: bool | None = None


@dataclass(slots=True)
class Recovery:
    """
    This watches for recovery *within_s* of *removed_ns*, when the fault was gone.

    A window is known when it is over and everything in it is answered or given
    up: a request that still hangs is what a service that does not recover
    looks like.
    """

    removed_ns: int
    within_s: float
    _windows: list[_Window] = field(default_factory=list)
    _waiting: list[int] = field(default_factory=list)
    _next: int = -1
    _newest: int = -1

    def look(self, samples: Samples) -> None:
        """Take in what was sent or answered since the last look."""
        if self._next < 0:
            self._next = samples.phase.tobytes().find(_RECOVERY)
            if self._next < 0:
                return
            self._windows = [_Window() for _ in range(math.floor(self.within_s))]
        waiting, self._waiting = self._waiting, []
        for number in waiting:
            self._take(samples, number)
        for number in range(self._next, len(samples)):
            if samples.phase[number] == _RECOVERY[0] and samples.due_ns[number] >= self.removed_ns:
                index = self._index(samples, number)
                self._newest = index
                if index < len(self._windows):
                    self._windows[index].open += 1
                self._take(samples, number)
        self._next = len(samples)

    def _index(self, samples: Samples, number: int) -> int:
        return (samples.due_ns[number] - self.removed_ns) // WINDOW_NS

    def _take(self, samples: Samples, number: int) -> None:
        index = self._index(samples, number)
        if index >= len(self._windows):
            return
        if not samples.decided(number):
            self._waiting.append(number)
            return
        window, failure = self._windows[index], Failure(samples.failure[number])
        window.open -= 1
        if failure is Failure.CUT:
            window.cut = True
        elif samples.judged(number):
            failed = failure is not Failure.NONE or samples.status[number] >= 500
            latency = None if failed else samples.done_ns[number] - samples.due_ns[number]
            window.answers[samples.arm[number]].append(latency)

    def _known(self) -> list[bool | None]:
        """Return for each window whether it is like control; ``None`` where that is not known."""
        for index, window in enumerate(self._windows):
            over = index < self._newest and not window.open and not window.cut
            if over and window.like_control is None and all(window.answers):
                window.like_control = _like_control(window)
        return [window.like_control for window in self._windows]

    @property
    def time_ns(self) -> int | None:
        """Return how long after the fault was gone three windows in a row began to be like control, or ``None``."""
        return _three_in_a_row([bool(good) for good in self._known()])

    @property
    def watched(self) -> bool:
        """Return whether it would be known if it had recovered: three windows in a row that nobody saw could be anything."""
        unseen = [good is not False for good in self._known()] or [True] * math.floor(self.within_s)
        return _three_in_a_row(unseen) is None

    def disproved(self, alpha: float) -> bool:
        """
        Return whether it did not recover, and that is no chance at *alpha*: none of many, either, that two arms that are alike would differ.

        More errors than control in all that was watched, or slow answers and
        errors in most of it, or in most of so many windows that no three in a
        row are left. What a request is slow by is the median of control, of all
        windows together.
        """
        known = [good for good in self._known() if good is not None]
        seen = [window.answers for window in self._windows if window.like_control is not None]
        fault, control = ([x for answers in seen for x in answers[arm]] for arm in (_FAULT, _CONTROL))
        if not known or self.time_ns is not None or not self.watched:
            return False
        more = stats.lower_bound(fault.count(None), len(fault), alpha=alpha / 2)
        if more - stats.upper_bound(control.count(None), len(control), alpha=alpha / 2) > ERRORS:
            return True
        normal = sorted(x for x in control if x is not None)
        if not normal:
            return False
        limit_ns = _limit_ns(normal)
        if _mostly_slow(fault, limit_ns, alpha):
            return True
        return (
            _three_in_a_row(
                [
                    window.like_control is None or not _mostly_slow(window.answers[_FAULT], limit_ns, alpha)
                    for window in self._windows
                ]
            )
            is None
        )

    @property
    def windows(self) -> tuple[int, int]:
        """Return how many windows were seen to their end, and how many of them were not like control."""
        known = [good for good in self._known() if good is not None]
        return len(known), known.count(False)


def recovery_of(samples: Samples, *, removed_ns: int, within_s: float) -> Recovery:
    """Return what *samples* say of recovery within *within_s* of *removed_ns*."""
    found = Recovery(removed_ns, within_s)
    found.look(samples)
    return found


def _three_in_a_row(windows: Sequence[bool]) -> int | None:
    good = 0
    for index, like_control in enumerate(windows):
        good = good + 1 if like_control else 0
        if good == WINDOWS:
            return (index + 1 - WINDOWS) * WINDOW_NS
    return None


def _like_control(window: _Window) -> bool:
    fault, control = window.answers[_FAULT], window.answers[_CONTROL]
    errors = sum(x is None for x in fault) / len(fault) - sum(x is None for x in control) / len(control)
    fast, normal = sorted(x for x in fault if x is not None), sorted(x for x in control if x is not None)
    if errors > ERRORS or not fast or not normal:
        return False
    return stats.quantile(fast, 0.5) <= _limit_ns(normal)


def _limit_ns(normal: Sequence[int]) -> float:
    """Return what a median may be beside *normal*, the sorted latencies of control."""
    return FACTOR * stats.quantile(normal, 0.5) + SLACK_NS


def _mostly_slow(answers: Sequence[int | None], limit_ns: float, alpha: float) -> bool:
    slow = sum(1 for x in answers if x is None or x > limit_ns)
    return stats.lower_bound(slow, len(answers), alpha=alpha) > 0.5
