"""Synthetic traffic: an open loop over a transport of our own, with httpx's request and response types."""

from __future__ import annotations

from luff.traffic.crew import Spread
from luff.traffic.dial import Address, TrafficError
from luff.traffic.driver import Driver, Snapshot
from luff.traffic.health import Health
from luff.traffic.machine import processes_for
from luff.traffic.sender import Work
from luff.traffic.transport import Transport
from luff.traffic.way import Way

__all__ = [
    "Address",
    "Driver",
    "Health",
    "Snapshot",
    "Spread",
    "TrafficError",
    "Transport",
    "Way",
    "Work",
    "processes_for",
]
