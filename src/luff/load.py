"""
What an experiment sends: requests, secrets in them, how they get in, how many and for how long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from luff.errors import UsageError
from luff.fields import Address, Document, DurationS, Means, RateHz, Text
from luff.words import Arm, HttpVersion

__all__ = [
    "DEFAULT_RATE_HZ",
    "HEADER_VALUE",
    "TLS",
    "Request",
    "Secret",
    "SecretRef",
    "Stage",
    "Traffic",
    "Via",
]

DEFAULT_RATE_HZ = 20.0
"""What ``traffic.rate`` is per arm where it is left out; a plan may lower it."""


class Secret(str):
    """This is a secret's value: text like any other, but its ``repr`` does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<redacted>'"


HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
"""What the value of a header may be."""
_UNICODE = re.compile(r"[^\ud800-\udfff]*")
"""What can be encoded: a variable that is not UTF-8 is read with surrogates in the place of its bytes."""


class SecretRef(Document):
    """
    This stands for a value that is read from the environment when requests are made, and is written nowhere.

    Only variables whose names begin with ``LUFF_SECRET_`` can be read, so that
    an experiment cannot send away what else is in the environment.
    """

    from_env: Annotated[
        str,
        Field(pattern=r"^LUFF_SECRET_[A-Z0-9_]{1,200}$"),
        Means("the name of a variable that begins with LUFF_SECRET_", "LUFF_SECRET_TOKEN"),
    ]

    def read(self, environment: Mapping[str, str]) -> Secret:
        """Return the value; `UsageError` when *environment* has none."""
        if not environment.get(self.from_env):
            raise UsageError(
                f"the experiment reads {self.from_env}, which is not set",
                next_step=f"set it: export {self.from_env}=…",
            )
        return Secret(environment[self.from_env])


REQUESTS_MOST = 256
"""What a byte of each sample can tell apart."""


class Request(Document):
    """This is one synthetic request. ``{{uuid}}`` and ``{{seq}}`` are filled in; *weight* is its share among several."""

    name: Text | None = None
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    url: Text
    headers: dict[str, str | SecretRef] = Field(default_factory=dict)
    body: str | SecretRef | None = None
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    def revealed(self, environment: Mapping[str, str]) -> Request:
        """
        Return this with each `SecretRef` replaced by its value, to send it: never to store, show or log it.

        Raises `UsageError` where a value is not there, or nothing that can be sent in its place.
        """

        def reveal(value: str | SecretRef, where: str, fits: re.Pattern[str], remedy: str) -> str:
            if not isinstance(value, SecretRef):
                return value
            secret = value.read(environment)
            if not fits.fullmatch(secret):
                # Its name alone: the value is for nobody's eyes.
                raise UsageError(
                    f"the value of {value.from_env} has characters that {where} cannot carry", next_step=remedy
                )
            return secret

        ascii_alone = "set it to printable ASCII alone, without a line break at its end"
        headers = {
            name: reveal(value, f"the header {name}", HEADER_VALUE, ascii_alone) for name, value in self.headers.items()
        }
        body = None if self.body is None else reveal(self.body, "a body", _UNICODE, "set it to text in UTF-8")
        return self.model_copy(update={"headers": headers, "body": body})


class TLS(Document):
    """This is how a TLS peer is checked: *ca* is a PEM file, *server_name* the name to ask for and verify."""

    ca: str | None = None
    server_name: str | None = None


class Via(Document):
    """
    This is how traffic gets in. *connect* is ``HOST:PORT`` to dial instead of the URL's.

    *protocol* ``auto`` is what the TLS handshake agrees on, and HTTP/1.1 in plain text.
    """

    mode: Literal["direct"] = "direct"
    connect: Address | None = None
    tls: TLS | None = None
    protocol: HttpVersion = "auto"


class Stage(Document):
    """This is a stretch of the load: for so long the rate goes in a straight line from where it is to *rate_hz*."""

    for_s: DurationS
    rate_hz: RateHz


class Traffic(Document):
    """
    This is what is sent. *rate_hz* is per arm; *duration_s* is the most, after the warm-up.

    *arrivals* says how requests fall within the rate: ``constant`` each in its
    own even slot, ``poisson`` as if from many users who know nothing of one
    another. With *stages* the rate changes: *rate_hz* is then where the first
    one begins (nothing, unless written), and *duration_s* their sum.

    *timeout_s* is the total for one request; ``None`` means max(10 s, 2 x delay + 5 s).
    *rate_hz* ``None`` means 20/s, lowered so that held requests stay in bounds.
    *control* must be spelled out for anything but GET and HEAD; where it is
    false, nothing is sent but what carries the scope.
    """

    requests: Annotated[tuple[Request, ...], Field(min_length=1, max_length=REQUESTS_MOST)]
    rate_hz: RateHz | None = None
    arrivals: Literal["constant", "poisson"] = "constant"
    stages: Annotated[tuple[Stage, ...], Field(max_length=100)] = ()
    duration_s: DurationS = 60.0
    timeout_s: DurationS | None = None
    warmup_s: DurationS = 3.0
    control: bool | None = None
    via: Via = Via()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Return the arms that are sent."""
        return (Arm.FAULT,) if self.control is False else tuple(Arm)

    @property
    def stages_s(self) -> float:
        """Return how long the stages last together, 0 without any."""
        return sum(stage.for_s for stage in self.stages)

    def revealed(self, environment: Mapping[str, str]) -> Traffic:
        """Return this with every secret's value in place, to drive it; `UsageError` names one that is not set or cannot be sent."""
        return self.model_copy(update={"requests": tuple(each.revealed(environment) for each in self.requests)})
