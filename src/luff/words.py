"""
The words that everything else is said in: arms, phases of a run, verdicts, carriers.

Apart from `luff.model`, so that whoever restores has them without the documents.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeAlias

__all__ = ["GRPC_CODES", "REDIRECT_CODES", "Arm", "Carrier", "HttpVersion", "Object", "Phase", "Verdict"]

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as it came: a field that luff has never heard of survives."""

HttpVersion: TypeAlias = Literal["auto", "http1", "http2"]
"""What traffic is to speak; ``auto`` leaves it to the handshake."""

GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""The gRPC status codes; the place of each is its number."""

REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
"""The status codes of redirects that istiod translates, as Envoy names them; its webhook takes every 3xx."""


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
