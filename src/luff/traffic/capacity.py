"""
Whether this machine can send what is asked, decided before anything is sent.

Pure: what the machine has is a value. By Little's law rate × time in flight
requests are open at once, and each has a file and a port of its own; and a core
sends only so many a second. What one process cannot send is shared among as
many as it needs, one to a core and a core kept for the one that tells them what
is due; what they cannot send either is refused with what would do. What must stay true: a load that was let
through here is never late because there was too much of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from luff.errors import PlanRefused
from luff.units import round_rate_down_hz, show_count, show_duration, show_rate

__all__ = ["SURE_HZ", "Demand", "Machine", "share"]

SURE_HZ = 300.0
"""So many requests a second any whole core sends that runs luff at all; more is found out first."""
USABLE_RATIO = 0.5
"""What of a core's best is counted on: the rest is for arrivals that bunch, answers that are large, and neighbours."""
KEPT_FILES = 128
"""Files that luff needs for everything else."""
USUAL_S = 1.0
"""How long a request of the control arm is taken to last: it is what is healthy."""
PROCESSES_MOST = 4
"""So many are kept busy by one that tells them what is due, and merges and judges: a request costs it a fifth of what sending does."""


@dataclass(frozen=True, slots=True)
class Machine:
    """
    This is what there is to send with.

    *files* may be open in one process, *ports* can be had towards one address,
    *cores* are free to be used, less than one where a container's limit says
    so, and *core_hz* requests a second is the best that a whole one of them did
    in a trial; ``None`` where there was none.
    """

    files: int
    ports: int
    cores: float
    core_hz: float | None = None

    @property
    def part(self) -> float:
        """Return how much of a core one process has, at most 1."""
        return min(1.0, self.cores)

    @property
    def sure_hz(self) -> float:
        """Return how many requests a second it sends without a trial."""
        return SURE_HZ * self.part


@dataclass(frozen=True, slots=True)
class Demand:
    """
    This is what is asked: *rate_hz* on each of *arms* at its highest, and *timeout_s*, for which a faulted request may last.

    *written* is what there is to lower in the experiment.
    """

    rate_hz: float
    timeout_s: float
    arms: int = 2
    written: str = "traffic.rate"

    @property
    def all_hz(self) -> float:
        """Return the requests a second of all arms."""
        return self.arms * self.rate_hz

    @property
    def seconds(self) -> float:
        """Return the seconds that one request of each arm is in flight, added up."""
        return self.timeout_s + (self.arms - 1) * min(USUAL_S, self.timeout_s)

    @property
    def in_flight(self) -> float:
        """Return how many requests can be open at once."""
        return self.rate_hz * self.seconds


def share(demand: Demand, machine: Machine) -> int:
    """
    Return among how many processes *demand* has to be shared: 1 says that this one can send all of it itself.

    Raises `PlanRefused` where no number of them can do it, with the rate that would do.
    """
    most = min(max(1, math.floor(machine.cores) - 1), PROCESSES_MOST)
    by_cpu = _by_cpu(demand, machine, most)
    files_each = machine.files - KEPT_FILES
    by_files = math.ceil(demand.in_flight / files_each) if files_each > 0 else most + 1
    if demand.in_flight > machine.ports:
        raise _in_flight(demand, machine.ports, "ports towards one address", "widen net.ipv4.ip_local_port_range")
    if by_files > most:
        raise _in_flight(demand, max(0, most * files_each), "open files", "raise the limit (ulimit -n)")
    return max(1, by_cpu, by_files)


def _by_cpu(demand: Demand, machine: Machine, most: int) -> int:
    if demand.all_hz <= machine.sure_hz or machine.core_hz is None:
        return 1
    usable_hz = max(machine.sure_hz, machine.core_hz * machine.part * USABLE_RATIO)
    needed = math.ceil(demand.all_hz / usable_hz)
    if needed > most:
        machines = "larger" if most < PROCESSES_MOST else "faster"
        raise PlanRefused(
            "rate_over_machine",
            f"{show_rate(demand.rate_hz)} on {_arms(demand.arms)} is {show_rate(demand.all_hz)}, and {_cores(most, machine.part)} of this machine "
            f"can send {show_rate(round_rate_down_hz(usable_hz * most))} in time",
            next_step=f"lower {demand.written} to {show_rate(round_rate_down_hz(usable_hz * most / demand.arms))}, or use a {machines} machine",
        )
    return needed


def _arms(count: int) -> str:
    return "one arm" if count == 1 else "each of two arms"


def _cores(count: int, part: float) -> str:
    if part < 1.0:
        return f"{part:.2g} of a core"
    return "one core" if count == 1 else f"{count} cores"


def _in_flight(demand: Demand, most: int, what: str, otherwise: str) -> PlanRefused:
    fits_hz = most / demand.seconds
    fits_s = most / demand.rate_hz - (demand.arms - 1) * USUAL_S
    shorter = f", or traffic.timeout to {show_duration(math.floor(fits_s))}" if fits_s >= 1 else ""
    return PlanRefused(
        "in_flight_over_machine",
        f"{show_rate(demand.rate_hz)} for up to {show_duration(demand.timeout_s)} each is {show_count(math.ceil(demand.in_flight))} "
        f"requests at once, and this machine has {show_count(most)} {what}",
        next_step=f"lower {demand.written} to {show_rate(round_rate_down_hz(fits_hz))}{shorter}, or {otherwise}",
    )
