"""
The outcome of a run in the one shape that everybody reads: ``luff.dev/outcome/v1``.

`luff runs show -o json`, the API and every report hold this shape; its JSON
Schema is made from these models. What was never measured is ``None``, never a
zero. No NaN and no infinity: they are not JSON; and no half characters: they
are not text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from luff.lifecycle import Phase
from luff.words import Verdict

__all__ = [
    "OUTCOME_SCHEMA",
    "REPORT_SCHEMA",
    "ArmSummary",
    "CheckResult",
    "Context",
    "Edge",
    "EvidenceSummary",
    "FirstTry",
    "Generator",
    "LatencySummary",
    "MeshIdentity",
    "Next",
    "Outcome",
    "Report",
    "RestoreReceipt",
    "ScopeSummary",
    "TimelineEntry",
    "Who",
]

OUTCOME_SCHEMA = "luff.dev/outcome/v1"
REPORT_SCHEMA = "luff.dev/report/v1"

RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""What names a run, also in a twin's name and in a URL: 16 hex digits in lower case."""


_HALF = re.compile("[\ud800-\udfff]")


def _whole(data: Any) -> Any:
    """Return *data* with U+FFFD for each half of a surrogate pair: no encoding has those, names of files do."""
    if isinstance(data, str):
        return data if data.isascii() else _HALF.sub("\ufffd", data)
    if isinstance(data, dict):
        return {_whole(name): _whole(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_whole(value) for value in data]
    return data


class _Part(BaseModel):
    # Readers of an older minor release must not choke on what a newer one adds.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _in_whole_characters(cls, data: Any) -> Any:
        return _whole(data)


class MeshIdentity(_Part):
    """This is which mesh it was. *uid* tells two of the same name apart; *istio* is its version where known."""

    kind: Literal["lab", "cluster"]
    name: str
    uid: str | None = None
    istio: str | None = None


class Edge(_Part):
    """This is the broken hop. *caller* is ``None`` when neither the experiment nor the evidence names it."""

    caller: str | None
    dependency: str


Who = Literal["caller", "experiment", "mesh", "runner"]
"""Who can act: the calling service's team, the experiment's author, the mesh's, or whoever runs luff."""


class Next(_Part):
    """This is who can act, whether trying again may help, and what to do."""

    who: Who
    retryable: bool
    do: str


class RestoreReceipt(_Part):
    """This is what is known about the routes after the removal. *seconds* is from the decision to the verified read."""

    api: Literal["verified", "unverified"]
    data_plane: Literal["verified", "unobserved", "stale"]
    object: Literal["identical", "identical_but_for_others", "differs", "gone"]
    foreign_changes: list[str] = Field(default_factory=list)
    hash_before: str | None = None
    hash_after: str | None = None
    probes: int = 0
    seconds: float = 0.0


class ScopeSummary(_Part):
    """This is what marked the requests, without the secret."""

    carrier: str
    arrived: list[str] = Field(default_factory=list)
    value_sha256: str


class EvidenceSummary(_Part):
    """
    This is the proof that the fault fired. *exposure* is requests that took the twin / requests sent, 0 to 1.

    With *per* ``aggregate`` calls were counted, and *observed* is the least
    number of requests that they can have come from. *note* says what could not be read.
    *calls_per_request* is how many calls on the broken hop a request caused on average, tries again
    included, over all that were sent; ``None`` where that is not counted.
    *bystanders* are the requests of ``traffic.requests`` that never reach the
    target; they are in none of the numbers.
    """

    source: str
    per: Literal["request", "aggregate"]
    expected: int
    observed: int
    exposure: float
    calls_per_request: float | None = None
    note: str | None = None
    bystanders: list[str] = Field(default_factory=list)


class LatencySummary(_Part):
    """This is a latency distribution in milliseconds, by nearest rank, over complete answers from their due time."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


class ArmSummary(_Part):
    """This is one arm while the fault was live. *errors* counts failures and 5xx."""

    sent: int
    judged: int
    errors: int
    latency_ms: LatencySummary


class CheckResult(_Part):
    """
    This is one expectation, judged.

    *n* requests, *violations* of them against it; *threshold* is the share of
    violations that would still be fine; *bound* the confidence bound on that
    share that decided; *e_value* the evidence for the verdict (sequential
    only); *mde* the smallest excess that this sample would have shown four
    times in five; *measured* in *unit* is what a person wants to see first.
    """

    id: str
    kind: str
    arm: str
    expression: str
    verdict: Verdict
    reason: str | None = None
    method: str
    n: int = 0
    violations: int = 0
    threshold: float | None = None
    bound: float | None = None
    e_value: float | None = None
    alpha: float | None = None
    mde: float | None = None
    measured: float | None = None
    unit: str | None = None
    rule: str
    file: str | None = None
    line: int | None = None
    explanation: str


class TimelineEntry(_Part):
    """This is one step, at an ISO 8601 time in UTC with milliseconds."""

    at: str
    phase: str
    note: str | None = None


class Generator(_Part):
    """
    This is how well luff itself kept time.

    So many *processes* sent. *lag* is the event loop's of the worst of them,
    *cpu* the cores that all of luff's used meanwhile; *own_failures* requests
    failed on this machine, and *repeated* were sent twice (an idle connection
    closed as it was used): none of those is judged. *trouble* says why the
    samples cannot be believed, and *sustainable_hz* the rate per arm that would
    have worked, where it can be told.
    """

    late_p99_ms: float | None = None
    lag_p99_ms: float | None = None
    lag_max_ms: float | None = None
    cpu: float | None = None
    processes: int = 1
    own_failures: int = 0
    repeated: int = 0
    trouble: str | None = None
    sustainable_hz: float | None = None
    healthy: bool


class Context(_Part):
    """
    This is where the run came from, and what it tested.

    *commit*, *branch* and *ci_url* are those of whoever ran it, *trace_id* that
    of the trace (W3C, 32 hex digits) in which that was; *image* and *revision*
    are the subject's, where its pods say.
    """

    image: str | None = None
    revision: str | None = None
    commit: str | None = None
    branch: str | None = None
    ci_url: str | None = None
    trace_id: str | None = None


class FirstTry(_Part):
    """This is the run before, which could not tell and was worth another try. It is in history as well."""

    run: RunId
    verdict: Verdict
    reason: str | None
    explanation: str


class Outcome(_Part):
    """This is one run. *verdict* says what was learnt, *phase* where the routes are; neither decides the other."""

    schema_: Literal["luff.dev/outcome/v1"] = Field(default="luff.dev/outcome/v1", alias="schema")
    run: RunId
    experiment: str
    labels: dict[str, str] = Field(default_factory=dict)
    actor: str
    mesh: MeshIdentity
    subject: str | None = None
    edge: Edge | None = None
    verdict: Verdict
    reason: str | None = None
    explanation: str
    next: Next | None = None
    phase: Literal[Phase.CLEAN, Phase.STRANDED]
    restore: RestoreReceipt | None = None
    spec: dict[str, Any] = Field(default_factory=dict)
    spec_sha256: str
    scope: ScopeSummary | None = None
    evidence: EvidenceSummary | None = None
    arms: dict[str, ArmSummary] = Field(default_factory=dict)
    checks: list[CheckResult] = Field(default_factory=list)
    timeline: list[TimelineEntry] = Field(default_factory=list)
    generator: Generator | None = None
    seed: int
    context: Context = Context()
    started_at: str
    ended_at: str
    luff: str
    known_failure: dict[str, Any] | None = None
    first_try: FirstTry | None = None
    expected: str | None = None
    default_expect: str | None = None
    """Where the experiment expects nothing itself, the defaults that were checked, as YAML to paste into its ``spec``."""


class Report(_Part):
    """This is what ``run`` and ``gate`` write with ``--json``: one or many outcomes and the decision."""

    schema_: Literal["luff.dev/report/v1"] = Field(default="luff.dev/report/v1", alias="schema")
    decision: Literal["go", "stop"]
    exit_code: int
    waivers_used: list[str] = Field(default_factory=list)
    quarantined: list[str] = Field(default_factory=list)
    outcomes: list[Outcome]
