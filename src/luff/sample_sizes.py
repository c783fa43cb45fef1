"""
Claims that the traffic can never carry, because it sends too few requests for them.

The same counting as in `luff.checks`, done before anything runs: what is
refused here would end as inconclusive however well the service did.
"""

from __future__ import annotations

import math
from typing import Literal

from luff import stats
from luff.model import (
    AnswerExpectation,
    AttemptsExpectation,
    ErrorsExpectation,
    Expectation,
    Experiment,
    FallbackExpectation,
    LatencyExpectation,
    NoWorseThanExpectation,
    RecoveryExpectation,
)
from luff.pacing import load_of
from luff.short_forms import QUANTILES
from luff.units import show_count, show_duration, show_percent, show_rate, write_rate
from luff.yaml_nodes import Fields, Place, Problems, place_at

__all__ = ["refuse_small_samples", "seconds_for", "too_small"]

_RECOVERY_LEAST_S = 3.0
_CONFIDENCE = (50.0, 99.9999)


def refuse_small_samples(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    """Refuse each claim of *experiment* that its traffic could not carry, and say what would do; *spec* has the places."""
    confidence = experiment.spec.confidence_percent
    if not _CONFIDENCE[0] <= confidence <= _CONFIDENCE[1]:
        message = f"a confidence of {confidence:g}% cannot be reached, or says nothing"
        problems.add(place_at(spec, "confidence"), message, f"write {_CONFIDENCE[0]:g}% to {_CONFIDENCE[1]}%")
        return
    for index, expectation in enumerate(experiment.spec.expect):
        # The defaults have no place of their own.
        path: tuple[str | int, ...] = ("traffic", "duration") if experiment.defaults else ("expect", index)
        _sample(experiment, expectation, place_at(spec, *path), problems)


def _sample(experiment: Experiment, expectation: Expectation, place: Place, problems: Problems) -> None:
    traffic = experiment.spec.traffic
    rate_hz = load_of(traffic).mean_hz
    if isinstance(expectation, RecoveryExpectation):
        _recovery(expectation, rate_hz, place, problems)
        return
    threshold, words = _claim(expectation)
    if threshold >= 1.0:
        problems.add(place, f"{words} holds whatever happens", "ask for more")
    elif isinstance(expectation, NoWorseThanExpectation) and threshold <= 0:
        problems.add(
            place, "no number of requests can show that an arm is worse by 0 % at most", "write by: 1% or more"
        )
    elif (found := too_small(experiment, expectation, rate_hz=rate_hz)) is not None:
        message, needed = found
        problems.add(
            place,
            message,
            "make the stages longer, or their rates higher"
            if traffic.stages
            else f"set traffic.duration to {seconds_for(needed, rate_hz)}s, or traffic.rate to "
            f"{write_rate(float(_rate_for(needed, traffic.duration_s)))}",
        )


def too_small(experiment: Experiment, expectation: Expectation, *, rate_hz: float) -> tuple[str, int] | None:
    """Return why *rate_hz* per arm could never carry *expectation*, and how many requests would; ``None`` where it can."""
    spec = experiment.spec
    threshold, words = _claim(expectation)
    if isinstance(expectation, RecoveryExpectation) or not 0 <= threshold < 1 or spec.traffic.duration_s <= 0:
        return None
    alpha = 1.0 - spec.confidence_percent / 100
    method: Literal["sequential", "fixed"] = "sequential" if spec.stop_early else "fixed"
    if isinstance(expectation, NoWorseThanExpectation):
        alpha, method = alpha / 2, "fixed"
    sent = max(1, int(rate_hz * spec.traffic.duration_s))
    needed = stats.fewest_requests(max(1e-4, threshold), alpha=alpha, method=method)
    if sent >= needed:
        return None
    message = (
        f"{words} at {show_percent(spec.confidence_percent)} confidence needs at least {show_count(needed)} requests; "
        f"{show_rate(rate_hz)} for {show_duration(spec.traffic.duration_s)} sends {show_count(sent)}"
    )
    return message, needed


def seconds_for(needed: int, rate_hz: float) -> int:
    """Return for how many whole seconds *rate_hz* has to be sent to make *needed* requests."""
    seconds = math.ceil(needed / rate_hz)
    return seconds if int(rate_hz * seconds) >= needed else seconds + 1


def _rate_for(needed: int, duration_s: float) -> int:
    rate_hz = math.ceil(needed / duration_s)
    return rate_hz if int(rate_hz * duration_s) >= needed else rate_hz + 1


def _recovery(expectation: RecoveryExpectation, rate_hz: float, place: Place, problems: Problems) -> None:
    if expectation.within_s < _RECOVERY_LEAST_S:
        message = f"recovery is three windows of 1 s in a row, which {show_duration(expectation.within_s)} cannot hold"
        problems.add(place, message, "write within: 3s or more")
    elif rate_hz < 1:
        message = f"recovery is judged in windows of 1 s, and {show_rate(rate_hz)} leaves some of them empty"
        problems.add(place, message, "set traffic.rate to 1/s or more")


def _claim(expectation: Expectation) -> tuple[float, str]:
    """Return the share of violations that is still fine, as `luff.checks` plans it, and the claim in words."""
    if isinstance(expectation, LatencyExpectation):
        name = next((name for name, value in QUANTILES.items() if value == expectation.quantile), "the quantile")
        return 1.0 - expectation.quantile, name
    if isinstance(expectation, ErrorsExpectation):
        return expectation.at_most_percent / 100, f"errors of at most {show_percent(expectation.at_most_percent)}"
    if isinstance(expectation, AnswerExpectation | FallbackExpectation | AttemptsExpectation):
        share = expectation.at_least_percent
        return 1.0 - share / 100, f"{expectation.kind} in at least {show_percent(share)}"
    if isinstance(expectation, NoWorseThanExpectation):
        return expectation.by_percent / 100, f"no worse by {show_percent(expectation.by_percent)}"
    return 0.0, expectation.kind
