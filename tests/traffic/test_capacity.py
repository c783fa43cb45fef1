"""Whether a machine can send what is asked, before it is asked to."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.errors import PlanRefused
from luff.traffic.capacity import KEPT_FILES, SURE_HZ, Demand, Machine, share
from luff.units import parse_rate_hz

SMALL = Machine(files=1_048_576, ports=28_232, cores=2, core_hz=8_000)
USUAL = Machine(files=1_048_576, ports=28_232, cores=4, core_hz=8_000)


@pytest.mark.parametrize(
    ("rate_hz", "timeout_s", "machine", "processes"),
    [
        (20, 10, USUAL, 1),
        (2_000, 10, USUAL, 1),
        (2_001, 10, USUAL, 2),
        (4_000, 5, USUAL, 2),
        (6_000, 3, USUAL, 3),
        # A second process would only have the core of the one that tells it what is due.
        (2_000, 10, SMALL, 1),
        # Little's law: 100/s for 31 s are 3,100 at once, for which one process has no files here.
        (100, 30, Machine(files=1024, ports=28_232, cores=5), 4),
        (20, 10, Machine(files=1024, ports=28_232, cores=2), 1),
        # No trial is needed for little, and none of it is believed to be worse than that.
        (SURE_HZ / 2, 10, Machine(files=65_536, ports=28_232, cores=1, core_hz=10.0), 1),
        # Half a core does half as much, and of two and a half one is kept and one sends.
        (1_000, 10, replace(SMALL, cores=0.5), 1),
        (2_000, 10, replace(SMALL, cores=2.5), 1),
    ],
)
def test_a_load_is_shared_among_as_many_processes_as_it_needs(
    rate_hz: float, timeout_s: float, machine: Machine, processes: int
) -> None:
    assert share(Demand(rate_hz, timeout_s), machine) == processes


def test_one_arm_is_half_as_much_and_stages_are_named_where_there_is_no_rate() -> None:
    alone = Demand(2_001, 10, arms=1, written="every rate in traffic.stages")

    assert share(alone, USUAL) == 1
    with pytest.raises(PlanRefused) as refused:
        share(replace(alone, rate_hz=5_000, timeout_s=2), SMALL)
    assert "5000/s on one arm is 5000/s" in refused.value.message
    assert refused.value.next_step == "lower every rate in traffic.stages to 4000/s, or use a larger machine"


@pytest.mark.parametrize(
    ("rate_hz", "timeout_s", "machine", "rule", "message", "next_step"),
    [
        (
            5_000, 2, SMALL, "rate_over_machine",
            "5000/s on each of two arms is 10000/s, and one core of this machine can send 4000/s in time",
            "lower traffic.rate to 2000/s, or use a larger machine",
        ),
        (
            2_000, 2, replace(SMALL, cores=0.5), "rate_over_machine",
            "2000/s on each of two arms is 4000/s, and 0.5 of a core of this machine can send 2000/s in time",
            "lower traffic.rate to 1000/s, or use a larger machine",
        ),
        (
            100, 2, replace(SMALL, cores=0.25, core_hz=100), "rate_over_machine",
            "100/s on each of two arms is 200/s, and 0.25 of a core of this machine can send 75/s in time",
            "lower traffic.rate to 37/s, or use a larger machine",
        ),
        (
            7_000, 2, USUAL, "rate_over_machine",
            "7000/s on each of two arms is 14000/s, and 3 cores of this machine can send 12000/s in time",
            "lower traffic.rate to 6000/s, or use a larger machine",
        ),
        (
            9_000, 1, replace(USUAL, cores=64), "rate_over_machine",
            "9000/s on each of two arms is 18000/s, and 4 cores of this machine can send 16000/s in time",
            "lower traffic.rate to 8000/s, or use a faster machine",
        ),
        (
            1_000, 30, USUAL, "in_flight_over_machine",
            "1000/s for up to 30 s each is 31 000 requests at once, and this machine has 28 232 ports towards one address",
            "lower traffic.rate to 910/s, or traffic.timeout to 27 s, or widen net.ipv4.ip_local_port_range",
        ),
        (
            200, 30, Machine(files=640, ports=28_232, cores=64), "in_flight_over_machine",
            "200/s for up to 30 s each is 6 200 requests at once, and this machine has 2 048 open files",
            "lower traffic.rate to 66/s, or traffic.timeout to 9 s, or raise the limit (ulimit -n)",
        ),
    ],
)  # fmt: skip
def test_what_no_number_of_processes_can_send_is_refused_with_what_would_do(
    rate_hz: float, timeout_s: float, machine: Machine, rule: str, message: str, next_step: str
) -> None:
    with pytest.raises(PlanRefused) as refused:
        share(Demand(rate_hz, timeout_s), machine)

    assert (refused.value.rule, refused.value.message, refused.value.next_step) == (rule, message, next_step)


@given(
    rate_hz=st.floats(1, 50_000), timeout_s=st.floats(0.1, 120), files=st.integers(0, 10**6),
    ports=st.integers(100, 64_000), cores=st.floats(0.05, 1) | st.floats(1, 64), core_hz=st.floats(100, 50_000),
)  # fmt: skip
def test_what_is_let_through_fits_and_what_is_advised_is_let_through(
    rate_hz: float, timeout_s: float, files: int, ports: int, cores: float, core_hz: float
) -> None:
    demand, machine = Demand(rate_hz, timeout_s), Machine(files, ports, cores, core_hz)
    for _ in range(4):
        try:
            processes = share(demand, machine)
        except PlanRefused as refused:
            advised = re.search(r"traffic\.rate to (\S+?),", refused.next_step or "")
            assert advised is not None
            if advised[1].startswith("0/"):
                return
            demand = Demand(parse_rate_hz(advised[1]), timeout_s)
            continue
        assert processes <= max(1, cores - 1)
        assert demand.in_flight <= processes * (files - KEPT_FILES)
        assert demand.in_flight <= ports
        assert demand.all_hz <= processes * max(SURE_HZ, core_hz) * min(1.0, cores)
        return
    pytest.fail("advice that does not help")
