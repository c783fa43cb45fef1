"""
The documents that people write, as values: experiments, lab workloads, suites, game days, policies.

Every field has one meaning and one unit, which its name ends with. The long
form alone is modelled; `luff.parse` turns the short forms into it on the YAML
nodes, so that the place of every value stays known. Models are frozen and
forbid what they do not know. What a value must be is said twice, for machines
(constraints) and for people (`Means`), and only here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from luff.errors import UsageError
from luff.units import (
    DURATION_MOST_S,
    RATE_MOST_HZ,
    parse_duration_s,
    parse_percent,
    parse_rate_hz,
    write_duration,
    write_percent,
    write_rate,
)
from luff.words import Arm, Carrier, Object, Phase, Verdict

__all__ = [
    "API_VERSION",
    "DEFAULT_RATE_HZ",
    "HEADER_VALUE",
    "Abort",
    "Announce",
    "Answer",
    "AnswerExpectation",
    "Arm",
    "AttemptsExpectation",
    "BodyMatch",
    "Carrier",
    "ControlTripwire",
    "Delay",
    "ErrorsExpectation",
    "EvidenceSource",
    "EvidenceSpec",
    "Expectation",
    "Experiment",
    "ExperimentSpec",
    "FallbackExpectation",
    "Fault",
    "GameDay",
    "GameDaySpec",
    "HeaderMatch",
    "HttpTripwire",
    "HttpVersion",
    "JsonMatch",
    "KnownFailure",
    "LabWorkload",
    "LabWorkloadSpec",
    "LatencyExpectation",
    "Matrix",
    "Means",
    "Metadata",
    "NoWorseThanExpectation",
    "Object",
    "People",
    "Phase",
    "Policy",
    "PolicySpec",
    "PrometheusTripwire",
    "RecoveryExpectation",
    "Request",
    "RestoreSpec",
    "Schedule",
    "ScopeSpec",
    "Secret",
    "SecretRef",
    "SkipWhen",
    "Stage",
    "Suite",
    "SuiteEntry",
    "SuiteSpec",
    "Target",
    "Traffic",
    "Tripwire",
    "Verdict",
    "Via",
    "Written",
]

API_VERSION = "luff.dev/v1alpha1"

_DURATION_SCHEMA = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}
_PERCENT_SCHEMA = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?\s*%?$", "minimum": 0, "maximum": 100}
_RATE_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/(s|m|h)$"}

DEFAULT_RATE_HZ = 20.0
"""What ``traffic.rate`` is per arm where it is left out; a plan may lower it."""


@dataclass(frozen=True, slots=True)
class Written:
    """This says that a number is written as text with a unit: *parse* reads it, *write* is its inverse."""

    parse: Callable[[object], float]
    write: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Means:
    """This says in words what a text must be, where a pattern says it for machines; *example* is one that would do."""

    words: str
    example: str


def _read(parse: Any) -> BeforeValidator:
    """Let a model be built from text, by *parse*, or from a value that is already a number in our unit."""
    return BeforeValidator(lambda value: value if isinstance(value, float) else parse(value))


DurationS = Annotated[
    float,
    _read(parse_duration_s),
    Field(ge=0, le=DURATION_MOST_S),
    Written(parse_duration_s, write_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
Percent = Annotated[
    float,
    _read(parse_percent),
    Field(ge=0, le=100),
    Written(parse_percent, write_percent),
    WithJsonSchema(_PERCENT_SCHEMA),
]
RateHz = Annotated[
    float,
    _read(parse_rate_hz),
    Field(gt=0, le=RATE_MOST_HZ),
    Written(parse_rate_hz, write_rate),
    WithJsonSchema(_RATE_SCHEMA),
]

_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DnsLabel = Annotated[
    str,
    Field(pattern=_LABEL),
    Means("a DNS label: lower-case letters, digits and '-', at most 63 of them", "slow-ratings"),
]
Host = Annotated[
    str,
    Field(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"),
    Means("a host name without scheme, port or path", "reviews.bookinfo"),
]
Status = Annotated[
    str,
    Field(pattern=r"^[1-5]([0-9][0-9]|xx)$"),
    Means("a status such as 503, or a class of them such as 5xx", "5xx"),
]
_DIALLED = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([-A-Za-z0-9._]{0,251}[A-Za-z0-9._])?)"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Address = Annotated[
    str,
    Field(pattern=f"^{_DIALLED}:{_PORT}$"),
    Means("an address: HOST:PORT, with a port from 1 to 65535, and an IPv6 address in brackets", "127.0.0.1:8080"),
]
Text = Annotated[str, Field(min_length=1)]


class Document(BaseModel):
    """This is the base of every modelled part: frozen, and unknown fields are errors. Keys are written in camelCase."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        defer_build=True,  # most commands read no documents, and the guard has to be there at once
        alias_generator=lambda name: _camel(name),
    )


def _camel(name: str) -> str:
    for unit in ("_s", "_hz", "_percent"):
        name = name.removesuffix(unit)
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


class Metadata(Document):
    """This is what names a document. *name* is a DNS label; *namespace* defaults to the context's."""

    name: DnsLabel
    namespace: DnsLabel | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Target(Document):
    """
    This is the hop to break: the routes to *host*, or those of *virtual_service*.

    The rest narrows it: only routes to *subset* or *port*, only the named
    *routes*, only for callers with the labels *from_*, only on *gateways*.
    """

    host: Host | None = None
    virtual_service: Host | None = None
    namespace: DnsLabel | None = None
    subset: DnsLabel | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    routes: tuple[Text, ...] = ()
    from_: dict[str, str] = Field(default_factory=dict, alias="from")
    gateways: tuple[Text, ...] = ()


class ScopeSpec(Document):
    """This is how requests are marked. *carrier* ``any`` sends all three and matches any of them."""

    carrier: Literal["any", "header", "baggage", "traceparent"] = "any"
    header: Annotated[
        str,
        Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,62}[a-z0-9])?$"),
        Means("a header name in lower case: letters, digits and '-'", "x-luff-run"),
    ] = "x-luff-run"

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


HttpVersion = Literal["auto", "http1", "http2"]


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


EvidenceSource: TypeAlias = Literal["auto", "lab-log", "response-header", "pod-metrics", "prometheus", "latency-shift"]
"""Where it is read that the fault fired. ``auto`` is the best that there is."""


class EvidenceSpec(Document):
    """
    This is the proof that is asked for: at least *at_least_percent* of the requests took the twin.

    *calls_per_request* is the most calls that one request causes on the broken
    hop, tries again included: with it, sources that count calls can tell how many
    requests those came from at least.
    """

    source: EvidenceSource = "auto"
    at_least_percent: Percent = 99.0
    calls_per_request: Annotated[int, Field(ge=1, le=1000)] | None = None


class ControlTripwire(Document):
    """This stops a run when the control arm errs more often than *above_percent*. One such is always on."""

    above_percent: Percent = 5.0
    kind: Literal["control"] = "control"


class PrometheusTripwire(Document):
    """This stops a run when *query* is above *above* for *for_s*, or cannot be read."""

    query: Text
    above: float
    for_s: DurationS = 0.0
    kind: Literal["prometheus"] = "prometheus"


class HttpTripwire(Document):
    """This stops a run when a GET of *url* does not answer with *status*."""

    url: Text
    status: Annotated[tuple[Status, ...], Field(min_length=1)] = ("2xx",)
    kind: Literal["http"] = "http"


Tripwire: TypeAlias = ControlTripwire | PrometheusTripwire | HttpTripwire


class RestoreSpec(Document):
    """This bounds the life of a twin: *ttl_s* after its creation anybody may remove it."""

    ttl_s: DurationS = 600.0


class KnownFailure(Document):
    """This is a failure that is known: it counts as 0 until *until* (an ISO date); passing is then the surprise."""

    reason: Text
    until: (
        Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), Means("a date: YEAR-MONTH-DAY", "2027-01-31")]
        | None
    ) = None


class ExperimentSpec(Document):
    """This is the whole of an experiment, every default written out."""

    target: Target
    fault: Fault
    traffic: Traffic
    hypothesis: str | None = None
    subject: Host | None = None
    scope: ScopeSpec = ScopeSpec()
    expect: tuple[Expectation, ...] = ()
    confidence_percent: Percent = 95.0
    stop_early: bool = True
    evidence: EvidenceSpec = EvidenceSpec()
    abort_on: tuple[Tripwire, ...] = (ControlTripwire(),)
    restore: RestoreSpec = RestoreSpec()
    known_failure: KnownFailure | None = None

    @property
    def delay_s(self) -> float:
        """Return the injected delay, 0 without one."""
        return 0.0 if self.fault.delay is None else self.fault.delay.duration_s

    @property
    def timeout_s(self) -> float:
        """Return the total time that one request may take: as given, or max(10 s, 2 x delay + 5 s)."""
        return max(10.0, 2 * self.delay_s + 5.0) if self.traffic.timeout_s is None else self.traffic.timeout_s

    @property
    def hold_s(self) -> float:
        """Return how long the fault can hold a request in the caller."""
        return min(self.delay_s, self.timeout_s)


class Experiment(Document):
    """This is one experiment, as `luff.parse` leaves it: long form, every place known."""

    metadata: Metadata
    spec: ExperimentSpec
    file: str = Field(default="", exclude=True)
    lines: dict[str, int] = Field(default_factory=dict, exclude=True)
    """The line (from 1) of each expectation, by id; and of ``metadata.name``, ``spec.target`` and so on by dotted path."""
    columns: dict[str, int] = Field(default_factory=dict, exclude=True)
    """The column (from 1) of each dotted path in *lines*."""
    defaults: bool = Field(default=False, exclude=True)
    """Whether ``spec.expect`` was left out, so that it holds the defaults; `luff.default_claims.expect_block` shows them."""

    @property
    def name(self) -> str:
        """Return the name by which history knows it."""
        return self.metadata.name

    def place(self, path: str) -> str | None:
        """Return ``file:line:column`` of the dotted *path*, ``None`` where the file does not say it."""
        if path not in self.lines:
            return None
        return f"{self.file}:{self.lines[path]}:{self.columns.get(path, 1)}"


class Ready(Document):
    """This is how a workload says that it is up: a 2xx on *path* within *within_s*."""

    path: Annotated[str, Field(pattern=r"^/\S*$"), Means("a path that begins with /", "/healthz")] = "/"
    within_s: DurationS = 30.0


class LabWorkloadSpec(Document):
    """
    This is a local program that plays a service: *run* is started with ``PORT``, or *address* is already running.

    *port* is the service's. In *env*, ``${peer:HOST:PORT}`` is the URL of the
    workload's own outbound listener for that peer and ``${peerAddress:...}``
    its ``HOST:PORT``.
    """

    service: DnsLabel
    port: Annotated[int, Field(ge=1, le=65535)]
    replicas: Annotated[int, Field(ge=1, le=20)] = 1
    run: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    address: Address | None = None
    cwd: Text = "."
    env: dict[str, str] = Field(default_factory=dict)
    ready: Ready | None = None


class LabWorkload(Document):
    """This is one workload of the lab. Its labels are what subsets select."""

    metadata: Metadata
    spec: LabWorkloadSpec
    file: str = Field(default="", exclude=True)


class Matrix(Document):
    """This is what one reference is repeated with: each *fault* in place of the experiment's own."""

    fault: Annotated[tuple[Fault, ...], Field(min_length=1)]


class SuiteEntry(Document):
    """This is one reference to experiments, by name or by a glob such as ``cart-*``, and what to repeat them with."""

    ref: Text
    matrix: Matrix | None = None


class SuiteSpec(Document):
    """This is what a suite runs, in order."""

    experiments: Annotated[tuple[SuiteEntry, ...], Field(min_length=1)]


class Suite(Document):
    """This is several experiments under one name."""

    metadata: Metadata
    spec: SuiteSpec
    file: str = Field(default="", exclude=True)


class Schedule(Document):
    """
    This is when a game day is held.

    *cron* in *time_zone*; within *window_s* of that it may still begin, later
    it is a misfire; *overlap* says what happens when the one before is not
    over; a random part of *jitter_s* is added to each beginning.
    """

    cron: Text
    time_zone: Text = "UTC"
    window_s: DurationS = 3600.0
    misfire: Literal["skip", "run"] = "skip"
    overlap: Literal["forbid", "allow"] = "forbid"
    jitter_s: DurationS = 0.0


class People(Document):
    """This is who holds a game day and who has to agree: *approvals* of *approvers*, at most *approve_by_s* before it."""

    owner: Text
    approvers: tuple[Text, ...] = ()
    approvals: Annotated[int, Field(ge=0, le=100)] = 0
    approve_by_s: DurationS = 3600.0


class PrometheusCondition(Document):
    """This is a query and the value above which it counts."""

    query: Text
    above: float


class SkipWhen(Document):
    """This is one reason not to hold a game day: a canary under way, an event in a calendar file, or a metric."""

    canary_progressing: bool | None = None
    ics: Text | None = None
    prometheus: PrometheusCondition | None = None


class Announce(Document):
    """This is whom to tell, and how long *before*."""

    before: tuple[DurationS, ...] = ()
    to: tuple[Text, ...] = ()


class GameDaySpec(Document):
    """This is suites on a calendar, with people."""

    schedule: Schedule
    suites: Annotated[tuple[DnsLabel, ...], Field(min_length=1)]
    people: People | None = None
    skip_when: tuple[SkipWhen, ...] = ()
    expected: dict[str, Verdict] = Field(default_factory=dict)
    announce: Announce = Announce()


class GameDay(Document):
    """This is one game day, each firing of which is an occurrence."""

    metadata: Metadata
    spec: GameDaySpec
    file: str = Field(default="", exclude=True)


class PolicySpec(Document):
    """This is what is allowed where. A list that is empty, and a bound that is ``None``, rules nothing out."""

    contexts: tuple[Text, ...] = ()
    namespaces: tuple[Text, ...] = ()
    hours: (
        Annotated[
            str,
            Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]( [A-Za-z0-9_+/-]+)?$"),
            Means("hours of the day and a time zone", "09:00-17:00 Europe/Berlin"),
        ]
        | None
    ) = None
    max_delay_s: DurationS | None = None
    max_rate_hz: RateHz | None = None
    max_held: Annotated[float, Field(gt=0)] | None = None
    max_ttl_s: DurationS | None = None
    hosts: tuple[Text, ...] = ()


class Policy(Document):
    """This is the guard rails of one place; it comes from the operator, never from beside an experiment."""

    metadata: Metadata
    spec: PolicySpec
    file: str = Field(default="", exclude=True)
