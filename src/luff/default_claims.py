"""
What is expected where an experiment expects nothing: the four claims that any caller should keep.
"""

from __future__ import annotations

from luff.model import (
    Arm,
    ErrorsExpectation,
    Expectation,
    Experiment,
    ExperimentSpec,
    LatencyExpectation,
    NoWorseThanExpectation,
    RecoveryExpectation,
)
from luff.short_forms import QUANTILES
from luff.written import as_yaml, written_expectation

__all__ = ["default_expectations", "expect_block"]


def default_expectations(spec: ExperimentSpec) -> tuple[Expectation, ...]:
    """
    Return the defaults for *spec*.

    Answers in 99 % at least; with a delay that is below the timeout, an answer
    clearly before the delay is over; and where control requests are sent,
    bystanders no worse than before by 5 %, and recovery within 10 s.
    """
    delay = spec.fault.delay
    gives_up = (
        (LatencyExpectation(id="gives-up-in-time", quantile=QUANTILES["p99"], limit_s=_before_s(delay.duration_s)),)
        if delay is not None and delay.duration_s < spec.timeout_s
        else ()
    )
    beside_control = (
        NoWorseThanExpectation(id="bystanders", arm=Arm.CONTROL, than=Arm.CONTROL, by_percent=5.0),
        RecoveryExpectation(id="recovers", within_s=10.0),
    )
    return (
        ErrorsExpectation(id="answers", at_most_percent=1.0),
        *gives_up,
        *(beside_control if Arm.CONTROL in spec.traffic.arms else ()),
    )


def _before_s(delay_s: float) -> float:
    """
    Return what is before the end of a delay: 100 ms less, of a short one nine tenths.

    A caller that waits it out answers after it, but Envoy's clock and ours may
    differ by some milliseconds.
    """
    return round(max(delay_s - 0.1, 0.9 * delay_s), 3)


def expect_block(experiment: Experiment) -> str:
    """Return the expectations of *experiment* as the YAML to paste into its ``spec``; parsing it gives the same."""
    return as_yaml({"expect": [written_expectation(each) for each in experiment.spec.expect]})
