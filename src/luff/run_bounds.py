"""
What a run would take and hold, refused where the file alone tells: its time, its limits, the requests in flight.
"""

from __future__ import annotations

import math

from luff.lifecycle import EXPIRY_MARGIN_S, LIVE_WITHIN_S
from luff.model import Experiment, LatencyExpectation, RecoveryExpectation
from luff.pacing import load_of
from luff.units import TTL_MOST_S, show_duration, show_rate
from luff.yaml_nodes import Fields, Problems, place_at

__all__ = ["HELD_IN_LABS", "HELD_ON_CLUSTERS", "fits_hz", "refuse_bounds", "too_many_held"]

HELD_ON_CLUSTERS = 100.0
"""The most requests that a fault may hold in a caller at once, where no policy says otherwise."""
HELD_IN_LABS = 2000.0
"""The same in a lab, where nobody else waits: more than that is refused wherever it would run."""
_STEPS = 10
"""Into so many a rate of 1/s is divided where one is lowered, so that it can be read."""
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
    hold_s = experiment.spec.hold_s
    held = rate_hz * hold_s
    if held <= most:
        return None
    what = "the rate of every stage" if experiment.spec.traffic.stages else "traffic.rate"
    lower_hz = fits_hz(most, hold_s)
    return (
        f"{show_rate(rate_hz)} x {show_duration(hold_s)} would hold {held:.0f} requests in the caller; {most:g} are allowed here",
        f"lower {what} to {show_rate(lower_hz)}"
        if lower_hz
        else f"shorten the delay to {show_duration(most * _STEPS)}",
    )


def fits_hz(most: float, hold_s: float) -> float:
    """Return the highest rate per arm, in tenths, at which no more than *most* requests are held; 0 where none is that low."""
    return math.floor(most / hold_s * _STEPS) / _STEPS


def _times(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    traffic, timeout_s = experiment.spec.traffic, experiment.spec.timeout_s
    # A duration that is written beside stages has to be their sum, and is not what to change.
    lasts, traffic_s = ("stages", traffic.stages_s) if traffic.stages else ("duration", traffic.duration_s)
    for name, seconds in ((lasts, traffic_s), ("timeout", timeout_s)):
        if seconds <= 0:
            do = "write such as for: 10s" if name == "stages" else "write such as 10s"
            problems.add(place_at(spec, "traffic", name), f"traffic.{name} must be more than 0s", do)
    recovery_s = max((e.within_s for e in experiment.spec.expect if isinstance(e, RecoveryExpectation)), default=0.0)
    # Every wait of a run that its twins have to outlive, each at its longest.
    needed_s = traffic.warmup_s + timeout_s + LIVE_WITHIN_S + traffic_s + timeout_s + recovery_s
    needed_s += EXPIRY_MARGIN_S
    restore = spec.fields.get("restore")
    given = isinstance(restore, Fields) and "ttl" in restore.fields
    place = place_at(spec, "restore", "ttl") if given else place_at(spec, "traffic", lasts)
    ttl_s = experiment.spec.restore.ttl_s
    if needed_s > TTL_MOST_S:
        longest_s = math.floor(traffic_s - (needed_s - TTL_MOST_S))
        problems.add(
            place_at(spec, "traffic", lasts),
            f"the run would take {show_duration(needed_s)}, and no twin may live longer than {show_duration(TTL_MOST_S)}",
            _shortened(lasts, longest_s),
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
            f"warm-up {show_duration(traffic.warmup_s)} + until it is live {show_duration(LIVE_WITHIN_S)} + "
            f"traffic {show_duration(traffic_s)} + twice the timeout {show_duration(2 * timeout_s)} + "
            f"recovery {show_duration(recovery_s)} + {show_duration(EXPIRY_MARGIN_S)} to spare",
            f"set restore.ttl to {_rounded_up(needed_s)}",
        )


def _shortened(lasts: str, longest_s: int) -> str:
    if longest_s <= 0:
        return "lower traffic.timeout and traffic.warmup"
    if lasts == "stages":
        return f"shorten traffic.stages to {longest_s}s together"
    return f"set traffic.duration to {longest_s}s"


def _stages(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    traffic = experiment.spec.traffic
    if traffic.stages and not math.isclose(traffic.stages_s, traffic.duration_s, rel_tol=1e-9):
        problems.add(
            place_at(spec, "traffic", "duration"),
            f"the stages last {show_duration(traffic.stages_s)} together, and the duration says {show_duration(traffic.duration_s)}",
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
