"""What this machine is found to have."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from luff.errors import PlanRefused
from luff.model import Request, Stage, Traffic, Via
from luff.traffic.capacity import SURE_HZ, Demand
from luff.traffic.machine import cores_of, look_at_machine, may_be_http2, processes_for
from luff.words import HttpVersion

ONE = (Request(url="http://shop/"),)


def test_a_trial_is_made_only_where_there_is_a_question() -> None:
    little = asyncio.run(look_at_machine(Demand(SURE_HZ / 2, 10)))
    much = asyncio.run(look_at_machine(Demand(SURE_HZ, 10)))

    assert little.core_hz is None
    assert much.core_hz is not None
    assert much.core_hz > SURE_HZ
    assert little.ports > 1000
    assert little.cores >= 1


def test_the_limit_on_files_is_raised_where_it_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(512, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        untouched = asyncio.run(look_at_machine(Demand(10, 10)))
        raised = asyncio.run(look_at_machine(Demand(100, 30)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert untouched.files == lower
    assert raised.files == hard


def test_a_rate_that_no_core_keeps_is_refused_before_anything_is_sent() -> None:
    traffic = Traffic(requests=ONE, stages=(Stage(for_s=1.0, rate_hz=50_000.0),))

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with pytest.raises(PlanRefused) as refused:
            asyncio.run(processes_for(traffic, rate_hz=25_000.0, timeout_s=0.1))
    finally:
        os.sched_setaffinity(0, cores)

    assert refused.value.rule == "rate_over_machine"
    assert refused.value.message.startswith(
        "50000/s on each of two arms is 100000/s, and one core of this machine can send "
    )
    assert (refused.value.next_step or "").startswith("lower every rate in traffic.stages to ")


@pytest.mark.parametrize("http2", [False, True])
def test_the_trial_is_of_what_will_be_spoken(*, http2: bool) -> None:
    found = asyncio.run(look_at_machine(Demand(SURE_HZ, 10), http2=http2))

    assert found.core_hz is not None


SPOKEN = [
    ("http://shop/", "auto", False),
    ("http://shop/", "http2", True),
    ("https://shop/", "auto", True),
    ("https://shop/", "http1", False),
]


@pytest.mark.parametrize(("url", "protocol", "http2"), SPOKEN)
def test_what_may_be_http2_is_tried_over_http2(url: str, protocol: HttpVersion, *, http2: bool) -> None:
    traffic = Traffic(requests=(*ONE, Request(url=url)), via=Via(protocol=protocol))

    assert may_be_http2(traffic) is http2


def test_what_is_asked_usually_is_let_through() -> None:
    assert asyncio.run(processes_for(Traffic(requests=ONE), rate_hz=20.0, timeout_s=11.0)) == 1


@pytest.mark.parametrize(
    ("said", "cores"),
    [
        ("max 100000", None),
        ("400000 100000", 4),
        ("250000 100000", 2.5),
        ("50000 100000", 0.5),
        ("", None),
        ("1 0", None),
    ],
)
def test_a_container_has_the_cores_of_its_quota_and_parts_of_one(
    said: str, cores: float | None, tmp_path: Path
) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(said)

    assert cores_of(quota) == cores
    assert cores_of(tmp_path / "none") is None
