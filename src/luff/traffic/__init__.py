"""Synthetic traffic: an open loop over a transport of our own, with httpx's request and response types."""

from __future__ import annotations

from luff.traffic.driver import Driver, Health, Snapshot
from luff.traffic.transport import Address, TrafficError, Transport

__all__ = ["Address", "Driver", "Health", "Snapshot", "TrafficError", "Transport"]
