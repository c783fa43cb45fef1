"""
The documents that people write, as values: experiments, lab workloads, policies.

Every field has one meaning and one unit, which its name ends with. The long
form alone is modelled; `luff.parse` turns the short forms into it on the YAML
nodes, so that the place of every value stays known. Models are frozen and
forbid what they do not know.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from luff.units import parse_duration_s, parse_percent, parse_rate_hz

__all__ = [
    "API_VERSION",
    "Abort",
    "Answer",
    "AnswerExpectation",
    "Arm",
    "AttemptsExpectation",
    "BodyMatch",
    "Carrier",
    "ControlTripwire",
    "Delay",
    "ErrorsExpectation",
    "EvidenceSpec",
    "Expectation",
    "Experiment",
    "ExperimentSpec",
    "FallbackExpectation",
    "Fault",
    "HeaderMatch",
    "HttpTripwire",
    "JsonMatch",
    "KnownFailure",
    "LabWorkload",
    "LabWorkloadSpec",
    "LatencyExpectation",
    "Metadata",
    "NoWorseThanExpectation",
    "Object",
    "Phase",
    "PrometheusTripwire",
    "RecoveryExpectation",
    "Request",
    "RestoreSpec",
    "ScopeSpec",
    "Target",
    "Traffic",
    "Tripwire",
    "Verdict",
    "Via",
]

API_VERSION = "luff.dev/v1alpha1"

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as it came: a field that luff has never heard of survives."""

_DURATION_SCHEMA = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}
_PERCENT_SCHEMA = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?\s*%?$", "minimum": 0, "maximum": 100}
_RATE_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/(s|m|h)$"}


def _read(parse: Any) -> BeforeValidator:
    """Let a model be built from text, by *parse*, or from a value that is already a number in our unit."""
    return BeforeValidator(lambda value: value if isinstance(value, float) else parse(value))


DurationS = Annotated[float, _read(parse_duration_s), WithJsonSchema(_DURATION_SCHEMA)]
Percent = Annotated[float, _read(parse_percent), WithJsonSchema(_PERCENT_SCHEMA)]
RateHz = Annotated[float, _read(parse_rate_hz), WithJsonSchema(_RATE_SCHEMA)]


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


class Document(BaseModel):
    """This is the base of every modelled part: frozen, and unknown fields are errors. Keys are written in camelCase."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        alias_generator=lambda name: _camel(name),
    )


def _camel(name: str) -> str:
    for unit in ("_s", "_hz", "_percent"):
        name = name.removesuffix(unit)
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


class Metadata(Document):
    """This is what names a document. *name* is a DNS label; *namespace* defaults to the context's."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Target(Document):
    """
    This is the hop to break: the routes to *host*, or those of *virtual_service*.

    The rest narrows it: only routes to *subset* or *port*, only the named
    *routes*, only for callers with the labels *from_*, only on *gateways*.
    """

    host: str | None = None
    virtual_service: str | None = None
    namespace: str | None = None
    subset: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    routes: tuple[str, ...] = ()
    from_: dict[str, str] = Field(default_factory=dict, alias="from")
    gateways: tuple[str, ...] = ()


class ScopeSpec(Document):
    """This is how requests are marked. *carrier* ``any`` sends all three and matches any of them."""

    carrier: Literal["any", "header", "baggage", "traceparent"] = "any"
    header: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "x-luff-run"

    @property
    def carriers(self) -> tuple[Carrier, ...]:
        """Return the carriers that this asks for, in a fixed order."""
        return tuple(Carrier) if self.carrier == "any" else (Carrier(self.carrier),)


class Delay(Document):
    """This is a delay before the request is forwarded, for *percent* (0 to 100) of the requests in scope."""

    duration_s: DurationS
    percent: Percent = 100.0


class Abort(Document):
    """This is an answer by the proxy instead of the dependency: *http* 200 to 599, or *grpc* by its upper-case name."""

    http: Annotated[int, Field(ge=200, le=599)] | None = None
    grpc: str | None = None
    percent: Percent = 100.0


class Fault(Document):
    """This is what breaks the hop: a delay, an abort, or both; each draws for itself."""

    delay: Delay | None = None
    abort: Abort | None = None


class Request(Document):
    """This is one synthetic request. ``{{uuid}}`` and ``{{seq}}`` are filled in; *weight* is its share among several."""

    name: str | None = None
    method: Annotated[str, Field(pattern=r"^[A-Z]+$")] = "GET"
    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0


class TLS(Document):
    """This is how a TLS peer is checked: *ca* is a PEM file, *server_name* the name to ask for and verify."""

    ca: str | None = None
    server_name: str | None = None


class Via(Document):
    """This is how traffic gets in. *connect* is ``HOST:PORT`` to dial instead of the URL's."""

    mode: Literal["direct"] = "direct"
    connect: Annotated[str, Field(pattern=r"^\S+:[0-9]+$")] | None = None
    tls: TLS | None = None


class Traffic(Document):
    """
    This is what is sent. *rate_hz* is per arm; *duration_s* is the most, after the warm-up.

    *timeout_s* is the total for one request; ``None`` means max(10 s, 2 x delay + 5 s).
    *rate_hz* ``None`` means 20/s, lowered so that held requests stay in bounds.
    *control* must be spelled out for anything but GET and HEAD.
    """

    requests: Annotated[tuple[Request, ...], Field(min_length=1)]
    rate_hz: RateHz | None = None
    duration_s: DurationS = 60.0
    timeout_s: DurationS | None = None
    warmup_s: DurationS = 3.0
    control: bool | None = None
    via: Via = Via()


class BodyMatch(Document):
    """This is a claim on the body as text: it *contains* a string, or *matches* a regular expression somewhere."""

    contains: str | None = None
    matches: str | None = None


class JsonMatch(Document):
    """This is a claim on what *path* selects from a JSON body: it exists or not, equals a value, or matches as text."""

    path: str
    equals: Any = None
    exists: bool | None = None
    matches: str | None = None


class HeaderMatch(Document):
    """This is a claim on one response header: it equals, or matches somewhere; with neither, it is there."""

    name: str
    equals: str | None = None
    matches: str | None = None


class Answer(Document):
    """This is what an answer must be; every part given must hold. *status* is a code, ``5xx``, or a list of those."""

    status: tuple[str, ...] | None = None
    body: BodyMatch | None = None
    json_: JsonMatch | None = Field(default=None, alias="json")
    header: HeaderMatch | None = None


class _Expectation(Document):
    """This is what all expectations share. *id* is unique in an experiment; `luff.parse` fills in a default."""

    id: str
    arm: Arm = Arm.FAULT


class LatencyExpectation(_Expectation):
    """A complete answer came within *limit_s* of its due time, in a share *quantile* (such as 0.99) of requests."""

    quantile: Annotated[float, Field(gt=0, lt=1)]
    limit_s: DurationS
    kind: Literal["latency"] = "latency"


class ErrorsExpectation(_Expectation):
    """An answer came and its status is not in *status*, but for at most *at_most_percent* of requests."""

    at_most_percent: Percent
    status: tuple[str, ...] = ("5xx",)
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

    of: str
    at_most: Annotated[int, Field(ge=1)]
    at_least_percent: Percent = 99.0
    kind: Literal["attempts"] = "attempts"


class NoWorseThanExpectation(_Expectation):
    """
    An answer came, no 5xx, within 1.5 times the warm-up p95 of its own arm; compared between arms.

    It holds when *arm* is worse than *than* by at most *by_percent* points.
    """

    than: Arm = Arm.CONTROL
    by_percent: Percent = 5.0
    kind: Literal["noWorseThan"] = "noWorseThan"


class RecoveryExpectation(_Expectation):
    """
    Within *within_s* of the removal, three 1 s windows in a row are like control.

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


class EvidenceSpec(Document):
    """This is the proof that is asked for: at least *at_least_percent* of the requests took the twin."""

    source: str = "auto"
    at_least_percent: Percent = 99.0


class ControlTripwire(Document):
    """This stops a run when the control arm errs more often than *above_percent*. One such is always on."""

    above_percent: Percent = 5.0
    kind: Literal["control"] = "control"


class PrometheusTripwire(Document):
    """This stops a run when *query* is above *above* for *for_s*, or cannot be read."""

    query: str
    above: float
    for_s: DurationS = 0.0
    kind: Literal["prometheus"] = "prometheus"


class HttpTripwire(Document):
    """This stops a run when a GET of *url* does not answer with *status*."""

    url: str
    status: tuple[str, ...] = ("2xx",)
    kind: Literal["http"] = "http"


Tripwire: TypeAlias = ControlTripwire | PrometheusTripwire | HttpTripwire


class RestoreSpec(Document):
    """This bounds the life of a twin: *ttl_s* after its creation anybody may remove it."""

    ttl_s: DurationS = 600.0


class KnownFailure(Document):
    """This is a failure that is known: it counts as 0 until *until* (an ISO date); passing is then the surprise."""

    reason: str
    until: str | None = None


class ExperimentSpec(Document):
    """This is the whole of an experiment, every default written out."""

    target: Target
    fault: Fault
    traffic: Traffic
    hypothesis: str | None = None
    subject: str | None = None
    scope: ScopeSpec = ScopeSpec()
    expect: tuple[Expectation, ...] = ()
    confidence_percent: Percent = 95.0
    stop_early: bool = True
    evidence: EvidenceSpec = EvidenceSpec()
    abort_on: tuple[Tripwire, ...] = (ControlTripwire(),)
    restore: RestoreSpec = RestoreSpec()
    known_failure: KnownFailure | None = None


class Experiment(Document):
    """This is one experiment, as `luff.parse` leaves it: long form, every place known."""

    metadata: Metadata
    spec: ExperimentSpec
    file: str = Field(default="", exclude=True)
    lines: dict[str, int] = Field(default_factory=dict, exclude=True)
    """The line (from 1) of each expectation, by id; and of ``spec.target``, ``spec.fault`` and so on by dotted path."""

    @property
    def name(self) -> str:
        """Return the name by which history knows it."""
        return self.metadata.name


class Ready(Document):
    """This is how a workload says that it is up: a 2xx on *path* within *within_s*."""

    path: str = "/"
    within_s: DurationS = 30.0


class LabWorkloadSpec(Document):
    """
    This is a local program that plays a service: *run* is started with ``PORT``, or *address* is already running.

    *port* is the service's. In *env*, ``${peer:HOST:PORT}`` is the URL of the
    workload's own outbound listener for that peer and ``${peerAddress:...}``
    its ``HOST:PORT``.
    """

    service: str
    port: Annotated[int, Field(ge=1, le=65535)]
    replicas: Annotated[int, Field(ge=1, le=20)] = 1
    run: tuple[str, ...] | None = None
    address: Annotated[str, Field(pattern=r"^\S+:[0-9]+$")] | None = None
    cwd: str = "."
    env: dict[str, str] = Field(default_factory=dict)
    ready: Ready | None = None


class LabWorkload(Document):
    """This is one workload of the lab. Its labels are what subsets select."""

    metadata: Metadata
    spec: LabWorkloadSpec
    file: str = Field(default="", exclude=True)
