"""
What luff tells Prometheus, under the names of the contract.

What must stay true: no label has a value for each run or each request, so the
number of series is bounded by the definitions; each server has a registry of
its own.
"""

from __future__ import annotations

import platform
from collections import Counter as TallyCounter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from luff import __version__
from luff.exit_codes import is_unrestored
from luff.model import Verdict
from luff.outcome import Outcome

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
RUN_BUCKETS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
RESTORE_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
LATE_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
OTHER = "(other)"
"""What stands for experiments that the server has no definition of: their names come from outside."""


class Metrics:
    """This is one server's metrics. *experiments* later called known are those whose names may be labels."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: frozenset[str] = frozenset()
        made = self.registry
        of_run = ["experiment", "verdict"]
        self._runs = Counter("luff_runs", "Runs that ended.", of_run, registry=made)
        self._last = Gauge("luff_last_verdict", "1 for the verdict of the newest run, else 0.", of_run, registry=made)
        self._proof = Gauge(
            "luff_last_proof_timestamp_seconds", "When the newest run that passed ended.", ["experiment"], registry=made
        )
        self._duration = Histogram(
            "luff_run_duration_seconds", "How long runs took.", buckets=RUN_BUCKETS_S, registry=made
        )
        self._checks = Counter(
            "luff_checks", "Checks that were judged.", ["experiment", "check", "verdict"], registry=made
        )
        self._faults = Gauge(
            "luff_active_faults",
            "Runs that have routes in an object now.",
            ["namespace", "virtual_service"],
            registry=made,
        )
        self._failures = Counter("luff_restore_failures", "Restores that could not be verified.", registry=made)
        self._restore = Histogram(
            "luff_restore_duration_seconds", "How long restores took.", buckets=RESTORE_BUCKETS_S, registry=made
        )
        self._late = Histogram(
            "luff_generator_late_seconds",
            "The p99 lateness of each run's requests.",
            buckets=LATE_BUCKETS_S,
            registry=made,
        )
        self._tick = Gauge(
            "luff_scheduler_last_tick_timestamp_seconds", "When the calendar was last looked at.", registry=made
        )
        self._occurrences = _Occurrences()
        made.register(self._occurrences)
        build = Gauge("luff_build_info", "This luff.", ["version", "python"], registry=made)
        build.labels(__version__, platform.python_version()).set(1)

    def know(self, experiments: Iterable[str]) -> None:
        """Let *experiments* be labels; all others are counted as one."""
        self._known = frozenset(experiments)

    def remember(self, experiment: str, verdict: Verdict | None, proven_at: datetime | None) -> None:
        """Set what history says of *experiment* when the server starts."""
        if verdict is not None:
            self._newest(self._name(experiment), verdict)
        if proven_at is not None:
            self._proof.labels(self._name(experiment)).set(proven_at.timestamp())

    def ended(self, outcome: Outcome) -> None:
        """Count *outcome*."""
        name = self._name(outcome.experiment)
        self._runs.labels(name, outcome.verdict).inc()
        self._newest(name, outcome.verdict)
        began, ended = _unix_s(outcome.started_at), _unix_s(outcome.ended_at)
        if began is not None and ended is not None:
            self._duration.observe(max(0.0, ended - began))
            if outcome.verdict is Verdict.PASSED:
                self._proof.labels(name).set(ended)
        for check in outcome.checks if name != OTHER else ():
            self._checks.labels(name, check.id, check.verdict).inc()
        if is_unrestored(outcome):
            self._failures.inc()
        if outcome.restore is not None and outcome.restore.seconds is not None:
            self._restore.observe(outcome.restore.seconds)
        if outcome.generator is not None and outcome.generator.late_p99_ms is not None:
            self._late.observe(outcome.generator.late_p99_ms / 1000)

    def restore_failed(self) -> None:
        """Count a restore outside of a run that could not be verified."""
        self._failures.inc()

    def faults(self, active: Mapping[tuple[str, str], int]) -> None:
        """Set how many runs have something in each (namespace, VirtualService) now."""
        self._faults.clear()
        for (namespace, name), count in active.items():
            self._faults.labels(namespace, name).set(count)

    def calendar(
        self, last_tick: datetime | None, occurrences: Mapping[tuple[str, str], int], known: Collection[str]
    ) -> None:
        """
        Set when the calendar was last looked at, and how many occurrences of each schedule have come to each state.

        They are counted in the database, so every server on it says the same.
        Only schedules that are *known* are named.
        """
        self._tick.set(0 if last_tick is None else last_tick.timestamp())
        found: TallyCounter[tuple[str, str]] = TallyCounter()
        for (schedule, state), count in occurrences.items():
            found[schedule if schedule in known else OTHER, str(state)] += count
        self._occurrences.counts = found

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _name(self, experiment: str) -> str:
        return experiment if experiment in self._known else OTHER

    def _newest(self, name: str, newest: Verdict) -> None:
        for verdict in Verdict:
            self._last.labels(name, verdict).set(verdict is newest)


class _Occurrences(Collector):
    """This is a counter whose values are those of the database, also after a restart."""

    def __init__(self) -> None:
        self.counts: Mapping[tuple[str, str], int] = {}

    def collect(self) -> Iterable[CounterMetricFamily]:
        made = CounterMetricFamily(
            "luff_occurrences", "Game days that fired, by what became of them.", labels=["schedule", "state"]
        )
        for labels, count in sorted(self.counts.items()):
            made.add_metric(labels, count)
        yield made


def _unix_s(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
