"""
Both arms before there is a fault: connections open, each arm's baseline is had, and a fault is only put where there is health.

What must stay true: nothing is injected before the control arm was seen to
work (where there is none, the other arm: it meets no fault yet). With no
warm-up, or one too short for it, a few requests are sent all the same. Who is sick and who was never reached are two things: a
request that met no service at all is the experiment's or the runner's affair.
"""

from __future__ import annotations

from collections.abc import Iterator

from luff.errors import PlanRefused
from luff.model import Phase as Part
from luff.model import Traffic
from luff.pacing import Arrival, arrivals_of
from luff.plan import Plan
from luff.samples import Failure, Flag, Samples
from luff.traffic.driver import Driver
from luff.underway import Run
from luff.verdicts import WARMUP_ERRORS_MOST, control_errors_most

__all__ = ["check_health", "warm_up"]

CONTROL_LEAST = 5
"""So many control requests, and one of each kind, are sent before any fault."""
SPACING_MOST_S = 0.2
_UNREACHED = (Failure.CONNECT, Failure.RESOLVE, Failure.TLS, Failure.PROTOCOL)


async def warm_up(run: Run, plan: Plan, driver: Driver) -> bool:
    """
    Drive both arms without a fault, and return whether all is well enough for one.

    Raises `PlanRefused` when requests reach no service at all, or this machine cannot send them.
    """
    traffic, samples = run.experiment.spec.traffic, run.record.samples
    run.step("warm-up")
    run.progress.traffic(driver, phase=Part.WARMUP, most_s=traffic.warmup_s)
    if traffic.warmup_s:
        due = arrivals_of(traffic, Part.WARMUP, rate_hz=plan.rate_hz, duration_s=traffic.warmup_s, rng=run.rng)
        await driver.drive(due, phase=Part.WARMUP)
        await driver.drain(within_s=plan.timeout_s)
    if sum(1 for _ in samples.rows(arm=traffic.arms[-1])) < CONTROL_LEAST:
        await driver.drive(_a_few(traffic, plan.rate_hz), phase=Part.WARMUP)
        await driver.drain(within_s=plan.timeout_s)
    if driver.lost is not None:
        raise PlanRefused(
            "traffic_process_failed",
            f"{driver.lost}, before there was a fault",
            next_step="see what ended it (memory, an operator), and run it again",
        )
    run.situation.control_unhealthy = check_health(
        samples,
        urls=[request.url for request in traffic.requests],
        errors_most=max(WARMUP_ERRORS_MOST, control_errors_most(run.experiment)),
    )
    return run.situation.control_unhealthy is None


def _a_few(traffic: Traffic, rate_hz: float) -> Iterator[Arrival]:
    kinds, spacing_s = len(traffic.requests), min(SPACING_MOST_S, 1 / rate_hz)
    for number in range(max(CONTROL_LEAST, kinds)):
        yield Arrival(number * spacing_s, traffic.arms[-1], number % kinds)


def check_health(samples: Samples, *, urls: list[str], errors_most: float) -> str | None:
    """
    Return why *samples* are too unhealthy for a fault, ``None`` when they are not; at most *errors_most* (0 to 1) may fail.

    One failure alone says nothing. Raises `PlanRefused` when all requests to
    one of *urls* reached no service, and so nothing can be learnt about one,
    and when it is this machine's doing that so many failed.
    """
    numbers = [number for number in range(len(samples)) if Failure(samples.failure[number]) is not Failure.CUT]
    failed = [number for number in numbers if _failed(samples, number)]
    if len(failed) <= max(1.0, errors_most * len(numbers)) and len(failed) < len(numbers):
        return None
    for index, url in enumerate(urls):
        its = [number for number in numbers if samples.request[number] == index]
        if its and all(_unreached(samples, number) for number in its):
            raise _nobody_there(url, samples, its[-1], count=len(its))
    if not numbers:
        return "not one request of the warm-up was over in time"
    theirs = [number for number in failed if not Failure(samples.failure[number]).ours]
    if len(theirs) <= max(1.0, errors_most * len(numbers)) < len(failed):
        raise _not_sent(samples, failed, of=len(numbers))
    return f"{len(failed) / len(numbers):.0%} of the warm-up's requests failed before there was a fault ({_how(samples, failed[-1])})"


def _failed(samples: Samples, number: int) -> bool:
    return samples.failure[number] != Failure.NONE or samples.status[number] >= 500 or _unreached(samples, number)


def _unreached(samples: Samples, number: int) -> bool:
    return samples.failure[number] in _UNREACHED or bool(samples.flags[number] & Flag.NO_ROUTE)


def _how(samples: Samples, number: int) -> str:
    failure = Failure(samples.failure[number])
    return f"status {samples.status[number]}" if failure is Failure.NONE else f"one {failure.words}"


def _not_sent(samples: Samples, failed: list[int], *, of: int) -> PlanRefused:
    ours = [failure for number in failed if (failure := Failure(samples.failure[number])).ours]
    return PlanRefused(
        "traffic_not_sent",
        f"{len(ours)} of the warm-up's {of} requests failed on this machine before there was a fault: one {ours[-1].words}",
        next_step="give luff more files (ulimit -n) and ports, see how this machine finds names, or lower the rate",
    )


def _nobody_there(url: str, samples: Samples, number: int, *, count: int) -> PlanRefused:
    why, next_step = {
        Failure.RESOLVE: (
            "this machine finds no address for the name",
            "correct it, or dial another address with traffic.via: {connect: HOST:PORT}, such as an ingress or a port-forward",
        ),
        Failure.CONNECT: (
            "nobody accepts the connection",
            "correct host and port, or dial another address with traffic.via: {connect: HOST:PORT}",
        ),
        Failure.TLS: ("the TLS handshake fails", "see traffic.via.tls: {ca, serverName}, and the port"),
        Failure.PROTOCOL: (
            "what comes back is no HTTP, or broken, as if another protocol were spoken there",
            "see traffic.via.protocol (auto, http1 or http2), and the port",
        ),
    }.get(
        Failure(samples.failure[number]),
        (
            f"the proxy on the way knows no such host and port, and answers {samples.status[number]} itself",
            "correct host and port of traffic.requests",
        ),
    )
    return PlanRefused(
        "traffic_unreachable", f"none of {count} requests to {url} reached a service: {why}", next_step=next_step
    )
