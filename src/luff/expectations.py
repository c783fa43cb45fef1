"""
What an experiment expects of the judged service; what a violation of each is stands with it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from luff.fields import Document, DurationS, Host, Means, Percent, Status, Text
from luff.words import Arm

__all__ = [
    "Answer",
    "AnswerExpectation",
    "AttemptsExpectation",
    "BodyMatch",
    "ErrorsExpectation",
    "Expectation",
    "FallbackExpectation",
    "HeaderMatch",
    "JsonMatch",
    "LatencyExpectation",
    "NoWorseThanExpectation",
    "RecoveryExpectation",
]


class BodyMatch(Document):
    """This is a claim on the body as text: it *contains* a string, or *matches* a regular expression somewhere."""

    contains: Text | None = None
    matches: Text | None = None


class JsonMatch(Document):
    """
    This is a claim on what *path* selects from a JSON body: it exists or not, equals a value, or matches as text.

    That *equals* was given at all (``null`` is a value too) is in ``model_fields_set``.
    """

    path: Text
    equals: Any = None
    exists: bool | None = None
    matches: Text | None = None


class HeaderMatch(Document):
    """This is a claim on one response header: it equals, or matches somewhere; with neither, it is there."""

    name: Text
    equals: str | None = None
    matches: Text | None = None


class Answer(Document):
    """This is what an answer must be; every part given must hold. *status* is a code, ``5xx``, or a list of those."""

    status: Annotated[tuple[Status, ...], Field(min_length=1)] | None = None
    body: BodyMatch | None = None
    json_: JsonMatch | None = Field(default=None, alias="json")
    header: HeaderMatch | None = None


class _Expectation(Document):
    """This is what all expectations share. *id* is unique in an experiment; `luff.parse` fills in a default."""

    id: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"),
        Means("letters, digits, '-' and '_', at most 63 of them", "gives-up-in-time"),
    ]
    arm: Arm = Arm.FAULT


class LatencyExpectation(_Expectation):
    """A complete answer came within *limit_s* of its due time, in a share *quantile* (such as 0.99) of requests."""

    quantile: Annotated[float, Field(gt=0, lt=1)]
    limit_s: DurationS
    kind: Literal["latency"] = "latency"


class ErrorsExpectation(_Expectation):
    """An answer came and its status is not in *status*, but for at most *at_most_percent* of requests."""

    at_most_percent: Percent
    status: Annotated[tuple[Status, ...], Field(min_length=1)] = ("5xx",)
    kind: Literal["errors"] = "errors"


class AnswerExpectation(_Expectation):
    """Every part of *answer* holds, in at least *at_least_percent* of requests."""

    answer: Answer
    at_least_percent: Percent = 99.0
    kind: Literal["answer"] = "answer"


class FallbackExpectation(_Expectation):
    """As `AnswerExpectation` on the fault arm, and it must *not* hold on the control arm: else it proves nothing."""

    answer: Answer
    at_least_percent: Percent = 99.0
    kind: Literal["fallback"] = "fallback"


class AttemptsExpectation(_Expectation):
    """The request caused at most *at_most* attempts on the edge to *of*, in at least *at_least_percent* of requests."""

    of: Host
    at_most: Annotated[int, Field(ge=1, le=1000)]
    at_least_percent: Percent = 99.0
    kind: Literal["attempts"] = "attempts"


class NoWorseThanExpectation(_Expectation):
    """
    An answer came, no 5xx, within 1.5 times the warm-up p95 of its own arm; compared between arms.

    It holds when *arm* is worse than *than* by at most *by_percent* points. An
    arm that is compared with itself is compared with its own warm-up: then at
    most *by_percent* of its requests may be worse.
    """

    than: Arm = Arm.CONTROL
    by_percent: Percent = 5.0
    kind: Literal["noWorseThan"] = "noWorseThan"


class RecoveryExpectation(_Expectation):
    """
    Within *within_s* of the removal, as it was seen in the proxies, three 1 s windows in a row are like control.

    Like control: errors at most control's plus 2 points, median at most 1.5
    times control's plus 20 ms.
    """

    within_s: DurationS
    kind: Literal["recovery"] = "recovery"


Expectation: TypeAlias = (
    LatencyExpectation
    | ErrorsExpectation
    | AnswerExpectation
    | FallbackExpectation
    | AttemptsExpectation
    | NoWorseThanExpectation
    | RecoveryExpectation
)
