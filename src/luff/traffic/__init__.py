"""Synthetic traffic: an open loop over a transport of our own, with httpx's request and response types."""

from __future__ import annotations

from luff.traffic.dial import Address, TrafficError
from luff.traffic.driver import Driver, Snapshot
from luff.traffic.health import Health
from luff.traffic.machine import check_capacity
from luff.traffic.transport import Transport

__all__ = ["Address", "Driver", "Health", "Snapshot", "TrafficError", "Transport", "check_capacity"]
