"""
The documents that people write, as values: experiments, lab workloads, suites, game days, policies.

Every field has one meaning and one unit, which its name ends with. The long
form alone is modelled; `luff.parse` turns the short forms into it on the YAML
nodes, so that the place of every value stays known. Models are frozen and
forbid what they do not know. What a value must be is said twice, for machines
(constraints) and for people (`Means`), and only here.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from luff.expectations import (
    Answer,
    AnswerExpectation,
    AttemptsExpectation,
    BodyMatch,
    ErrorsExpectation,
    Expectation,
    FallbackExpectation,
    HeaderMatch,
    JsonMatch,
    LatencyExpectation,
    NoWorseThanExpectation,
    RecoveryExpectation,
)
from luff.fields import (
    API_VERSION,
    Address,
    DnsLabel,
    Document,
    DurationS,
    Host,
    Means,
    Percent,
    RateHz,
    Status,
    Text,
    Written,
)
from luff.load import DEFAULT_RATE_HZ, HEADER_VALUE, TLS, Request, Secret, SecretRef, Stage, Traffic, Via
from luff.words import Arm, Carrier, Object, Phase, Verdict

__all__ = [
    "API_VERSION",
    "DEFAULT_RATE_HZ",
    "HEADER_VALUE",
    "TLS",
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
