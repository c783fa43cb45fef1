"""
The words that everything else is said in: arms, phases of a run, verdicts, carriers.

Apart from `luff.model`, so that whoever restores has them without the documents.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

__all__ = ["Arm", "Carrier", "Object", "Phase", "Verdict"]

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as it came: a field that luff has never heard of survives."""


class Arm(StrEnum):
    """This is a stream of requests: **fault** carries the scope, **control** carries scope-shaped values that match nothing."""

    FAULT = "fault"
    CONTROL = "control"


class Phase(StrEnum):
    """This is the part of a run that a request belongs to. Only requests of `FAULT` are judged by most checks."""

    WARMUP = "warmup"
    FAULT = "fault"
    RECOVERY = "recovery"


class Verdict(StrEnum):
    """This is what was learnt. It says nothing about where the routes are: that is `luff.lifecycle.Phase`."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ABORTED = "aborted"
    ERROR = "error"


class Carrier(StrEnum):
    """This is one way in which a request carries the scope."""

    HEADER = "header"
    BAGGAGE = "baggage"
    TRACEPARENT = "traceparent"
