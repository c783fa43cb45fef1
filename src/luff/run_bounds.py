"""
What a run would take and hold, refused where the file alone tells: its time, its limits, the requests in flight.
"""

from __future__ import annotations

import math

from luff.model import Experiment, LatencyExpectation, RecoveryExpectation
from luff.pacing import load_of
from luff.units import TTL_MOST_S, show_duration, show_rate
from luff.yaml_nodes import Fields, Problems, place_at

__all__ = ["HELD_IN_LABS", "HELD_ON_CLUSTERS", "refuse_bounds", "too_many_held"]

HELD_ON_CLUSTERS = 100.0
"""The most requests that a fault may hold in a caller at once, where no policy says otherwise."""
HELD_IN_LABS = 2000.0
"""The same in a lab, where nobody else waits: more than that is refused wherever it would run."""
_SETTLE_MOST_S = 30.0
"""How long a run waits for proxies to have the twins, at most."""
_TO_SPARE_S = 5.0
"""So long before its twins expire a run ends itself."""
_ROUND_FROM_S = 300


def refuse_bounds(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    """Refuse a run that cannot end in its ttl, limits that no request could break, and too many held requests."""
    _times(experiment, spec, problems)
    _latencies(experiment, spec, problems)
    _stages(experiment, spec, problems)
    traffic = experiment.spec.traffic
    if (traffic.rate_hz or traffic.stages) and experiment.spec.timeout_s > 0:
        wrong = too_many_held(experiment, load_of(traffic).most_hz, most=HELD_IN_LABS)
        if wrong is not None:
            problems.add(place_at(spec, "traffic", "stages" if traffic.stages else "rate"), *wrong)


def too_many_held(experiment: Experiment, rate_hz: float, *, most: float) -> tuple[str, str] | None:
    """Return why *rate_hz* an arm would hold more than *most* requests, and what to do; ``None`` when it would not."""
    delay = experiment.spec.fault.delay
    hold_s = min(0.0 if delay is None else delay.duration_s, experiment.spec.timeout_s)
    held = rate_hz * hold_s
    if held <= most:
        return None
    fits_hz = math.floor(most / hold_s * 10) / 10
    return (
        f"{show_rate(rate_hz)} x {show_duration(hold_s)} would hold {held:.0f} requests in the caller; {most:.0f} are allowed here",
        f"lower {'the rate of every stage' if experiment.spec.traffic.stages else 'traffic.rate'} to {show_rate(fits_hz)}",
    )


def _times(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    traffic, timeout_s = experiment.spec.traffic, experiment.spec.timeout_s
    for name, seconds in (("duration", traffic.duration_s), ("timeout", timeout_s)):
        if seconds <= 0:
            problems.add(place_at(spec, "traffic", name), f"traffic.{name} must be more than 0s", "write such as 10s")
    recovery_s = max((e.within_s for e in experiment.spec.expect if isinstance(e, RecoveryExpectation)), default=0.0)
    # Every wait of a run that its twins have to outlive, each at its longest.
    needed_s = traffic.warmup_s + timeout_s + _SETTLE_MOST_S + traffic.duration_s + timeout_s + recovery_s
    needed_s += _TO_SPARE_S
    restore = spec.fields.get("restore")
    given = isinstance(restore, Fields) and "ttl" in restore.fields
    place = place_at(spec, "restore", "ttl") if given else place_at(spec, "traffic", "duration")
    ttl_s = experiment.spec.restore.ttl_s
    if needed_s > TTL_MOST_S:
        longest_s = math.floor(traffic.duration_s - (needed_s - TTL_MOST_S))
        problems.add(
            place_at(spec, "traffic", "duration"),
            f"the run would take {show_duration(needed_s)}, and no twin may live longer than {show_duration(TTL_MOST_S)}",
            f"set traffic.duration to {longest_s}s" if longest_s > 0 else "lower traffic.timeout and traffic.warmup",
        )
    elif ttl_s > TTL_MOST_S:
        problems.add(
            place,
            f"the ttl of {show_duration(ttl_s)} is over the {show_duration(TTL_MOST_S)} that a twin "
            "may live: a reaper would take it out of the running experiment",
            f"set restore.ttl to {_rounded_up(TTL_MOST_S)}",
        )
    elif ttl_s < needed_s:
        problems.add(
            place,
            f"the ttl of {show_duration(ttl_s)} is shorter than the run: "
            f"warm-up {show_duration(traffic.warmup_s)} + until it is live {show_duration(_SETTLE_MOST_S)} + "
            f"traffic {show_duration(traffic.duration_s)} + twice the timeout {show_duration(2 * timeout_s)} + "
            f"recovery {show_duration(recovery_s)} + {show_duration(_TO_SPARE_S)} to spare",
            f"set restore.ttl to {_rounded_up(min(needed_s, TTL_MOST_S))}",
        )


def _stages(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    traffic = experiment.spec.traffic
    total_s = sum(stage.for_s for stage in traffic.stages)
    if traffic.stages and not math.isclose(total_s, traffic.duration_s, rel_tol=1e-9):
        problems.add(
            place_at(spec, "traffic", "duration"),
            f"the stages last {show_duration(total_s)} together, and the duration says {show_duration(traffic.duration_s)}",
            "leave traffic.duration out",
        )


def _latencies(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    timeout_s = experiment.spec.timeout_s
    for index, expectation in enumerate(experiment.spec.expect):
        if not isinstance(expectation, LatencyExpectation):
            continue
        place = place_at(spec, "expect", index, "limit")
        if expectation.limit_s <= 0:
            problems.add(place, "a latency limit must be more than 0s", "write such as 1s")
        elif expectation.limit_s >= timeout_s:
            problems.add(
                place,
                f"the limit of {show_duration(expectation.limit_s)} is not below the timeout of {show_duration(timeout_s)}, "
                "at which a request is given up",
                f"lower it, or set traffic.timeout to {math.floor(expectation.limit_s) + 1}s",
            )


def _rounded_up(seconds: float) -> str:
    """Return at least *seconds* as one would write it: 84s, but 2h2m."""
    if seconds <= _ROUND_FROM_S:
        return f"{math.ceil(seconds)}s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
