"""
Runs and their outcomes: written once, found again.

What must stay true:

1. An outcome is recorded whole, in one transaction with its checks and
   samples, and never changed: what comes back is what went in.
2. A list of runs reads narrow rows only, and pages by a run, not by an offset.
3. Only a run's own outcome says where its routes are: one that is brought from
   elsewhere leaves the journal as it is.

The models of an outcome are imported where they are made: numbers over many
runs are read without them, and they cost a sixth of a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_, update
from sqlalchemy.exc import DataError

from luff.errors import OutcomeRefused, StoreError, UsageError
from luff.lifecycle import Phase
from luff.report.words import fault_kind, namespace_of
from luff.samples import Samples
from luff.store import tables as t
from luff.store.access import Actor, write_audit
from luff.store.journal import phase_of, settle
from luff.store.samples import decode, encode
from luff.store.text import key, long_text
from luff.words import Verdict

if TYPE_CHECKING:
    from luff.outcome import Context, Edge, MeshIdentity, Outcome

__all__ = [
    "Beginning",
    "RunFilter",
    "RunRow",
    "begin",
    "bring",
    "find",
    "listed",
    "outcome_of",
    "record",
    "row_of",
    "samples_of",
]

RUNS_MOST = 10_000
"""The longest page of a list."""
AMBIGUOUS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Beginning:
    """This is what is known when a run begins. *fault* is ``delay``, ``abort`` or ``delay+abort``."""

    run: str
    experiment: str
    actor: str
    mesh: MeshIdentity
    started_at: datetime
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None
    edge: Edge | None = None
    fault: str | None = None
    spec_sha256: str = ""
    scope_sha256: str | None = None
    seed: int = 0
    context: Context | None = None
    luff: str = ""


@dataclass(frozen=True, slots=True)
class RunRow:
    """
    This is a run as a list shows it.

    *verdict* is ``None`` while it runs, and for ever when it was killed;
    *phase* is where the routes are now. The trace of its *context* is in the
    outcome alone.
    """

    run: str
    experiment: str
    namespace: str | None
    labels: Mapping[str, str]
    verdict: Verdict | None
    reason: str | None
    explanation: str | None
    phase: Phase
    mesh: MeshIdentity
    subject: str | None
    caller: str | None
    dependency: str | None
    fault: str | None
    spec_sha256: str
    actor: str
    context: Context
    luff: str
    started_at: datetime
    ended_at: datetime | None

    @property
    def mesh_name(self) -> str:
        """Return the name of the mesh."""
        return self.mesh.name


@dataclass(frozen=True, slots=True)
class RunFilter:
    """
    This is which runs are wanted; what is ``None``, empty or false does not matter.

    *mesh* is one cluster, or any lab: a lab has another name each time it
    starts. *ended* leaves out what has no outcome; *labels* must all be there.
    """

    experiment: str | None = None
    verdict: str | None = None
    phases: tuple[Phase, ...] = ()
    ended: bool = False
    mesh: MeshIdentity | None = None
    namespace: str | None = None
    subject: str | None = None
    dependency: str | None = None
    commit: str | None = None
    branch: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None


def begin(connection: Connection, beginning: Beginning) -> None:
    """Write down that a run begins, phase planned."""
    edge, context = beginning.edge, beginning.context
    row = {
        "id": key(beginning.run),
        "experiment": key(beginning.experiment),
        "namespace": key(beginning.namespace),
        "labels": dict(beginning.labels),
        "phase": Phase.PLANNED,
        "subject": key(beginning.subject),
        "caller": None if edge is None else key(edge.caller),
        "dependency": None if edge is None else key(edge.dependency),
        "fault": key(beginning.fault),
        "spec_sha256": key(beginning.spec_sha256),
        "scope_sha256": key(beginning.scope_sha256),
        "seed": beginning.seed,
        "actor": key(beginning.actor),
        "luff": key(beginning.luff),
        "started_at": beginning.started_at,
        **_mesh_columns(beginning.mesh),
        **_context_columns(context),
    }
    connection.execute(insert(t.run).values(row))


def record(connection: Connection, outcome: Outcome, samples: Samples | None, *, at: datetime) -> None:
    """Write down *outcome* of a run of ours, once. The same again changes nothing; `OutcomeRefused` for another one."""
    if not _is_kept(connection, outcome):
        phase = settle(connection, outcome.run, outcome.phase, at=at)
        _write(connection, outcome, samples, phase, at=at)


def bring(connection: Connection, outcomes: Sequence[Outcome], *, actor: Actor | None, at: datetime) -> list[Outcome]:
    """
    Write down *outcomes* that were made elsewhere, and return those that were not here yet.

    With an *actor* each of these leaves a row in the audit. Raises
    `OutcomeRefused` for a run that has another outcome or whose routes are not
    known to be back, and `UsageError` for what no database can keep.
    """
    fresh = []
    for outcome in outcomes:
        if _is_kept(connection, outcome):
            continue
        phase = _phase_if_over(connection, outcome.run) or outcome.phase
        try:
            _write(connection, outcome, None, phase, at=at)
        except (OverflowError, DataError) as error:
            raise UsageError(
                f"the outcome of run {outcome.run} holds a number that is too large for a database",
                next_step="give it as luff wrote it",
            ) from error
        if actor is not None:
            write_audit(connection, "outcome.push", outcome.run, actor, at=at, note=outcome.experiment)
        fresh.append(outcome)
    return fresh


def _is_kept(connection: Connection, outcome: Outcome) -> bool:
    before = connection.execute(select(t.outcome.c.body).where(t.outcome.c.run == outcome.run)).scalar()
    if before is not None and before != _body(outcome):
        raise OutcomeRefused(
            f"run {outcome.run} has another outcome already",
            next_step=f"look at it with `luff runs show {outcome.run}`",
        )
    return before is not None


def _phase_if_over(connection: Connection, run: str) -> Phase | None:
    """Return clean where the routes of *run* are known to be back, and ``None`` where it was never here."""
    phases = {phase_of(connection, run), connection.execute(select(t.run.c.phase).where(t.run.c.id == run)).scalar()}
    known = phases - {None}
    if known - {Phase.CLEAN}:
        raise OutcomeRefused(
            f"run {run} is underway, or its routes are not known to be back",
            next_step="let it end, or run `luff restore`; then bring its outcome",
        )
    return Phase.CLEAN if known else None


def _write(connection: Connection, outcome: Outcome, samples: Samples | None, phase: Phase, *, at: datetime) -> None:
    body = _body(outcome)
    row = {**_outcome_columns(outcome), "phase": phase}
    if connection.execute(select(t.run.c.id).where(t.run.c.id == outcome.run).with_for_update()).first() is None:
        connection.execute(insert(t.run).values(row))
    else:
        connection.execute(update(t.run).where(t.run.c.id == outcome.run).values(row))
    connection.execute(insert(t.outcome).values(run=outcome.run, recorded_at=at, body=body))
    checks = _check_rows(outcome)
    if checks:
        connection.execute(insert(t.check_result), checks)
    if samples is not None:
        _write_samples(connection, outcome.run, samples)


def _body(outcome: Outcome) -> str:
    try:
        return json.dumps(outcome.model_dump(mode="json", by_alias=True), separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError) as error:
        raise StoreError(f"the outcome of run {outcome.run} cannot be written as JSON: {error}") from error


def _outcome_columns(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.run,
        "experiment": key(outcome.experiment),
        "namespace": key(namespace_of(outcome)),
        "labels": outcome.labels,
        "verdict": outcome.verdict,
        "reason": key(outcome.reason),
        "explanation": long_text(outcome.explanation),
        "subject": key(outcome.subject),
        "caller": None if outcome.edge is None else key(outcome.edge.caller),
        "dependency": None if outcome.edge is None else key(outcome.edge.dependency),
        "fault": key(fault_kind(outcome)),
        "spec_sha256": key(outcome.spec_sha256),
        "scope_sha256": None if outcome.scope is None else key(outcome.scope.value_sha256),
        "seed": outcome.seed,
        "actor": key(outcome.actor),
        "luff": key(outcome.luff),
        "started_at": _time(outcome, outcome.started_at),
        "ended_at": _time(outcome, outcome.ended_at),
        **_mesh_columns(outcome.mesh),
        **_context_columns(outcome.context),
    }


def _mesh_columns(mesh: MeshIdentity) -> dict[str, Any]:
    return {"mesh_kind": mesh.kind, "mesh_name": key(mesh.name), "mesh_uid": key(mesh.uid)}


def _context_columns(context: Context | None) -> dict[str, Any]:
    if context is None:
        return {}
    return {
        "commit": key(context.commit),
        "branch": key(context.branch),
        "ci_url": long_text(context.ci_url),
        "image": long_text(context.image),
        "revision": key(context.revision),
    }


def _check_rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "run": outcome.run,
            "position": position,
            "id": key(check.id),
            "kind": key(check.kind),
            "arm": key(check.arm),
            "expression": long_text(check.expression),
            "verdict": check.verdict,
            "reason": key(check.reason),
            "n": check.n,
            "violations": check.violations,
            "threshold": check.threshold,
            "bound": check.bound,
            "measured": check.measured,
            "unit": key(check.unit),
        }
        for position, check in enumerate(outcome.checks)
    ]


def _time(outcome: Outcome, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"the outcome of run {outcome.run} has {text!r} where a time in ISO 8601 with its zone belongs")


def _write_samples(connection: Connection, run: str, samples: Samples) -> None:
    connection.execute(delete(t.sample_block).where(t.sample_block.c.run == run))
    for position, (rows, body) in enumerate(encode(samples)):
        connection.execute(insert(t.sample_block).values(run=run, position=position, rows=rows, body=body))


def find(connection: Connection, run: str) -> str:
    """Return the whole id of the run that *run* begins; `StoreError` when there is none or more than one."""
    wanted = key(run)
    exact = connection.execute(select(t.run.c.id).where(t.run.c.id == wanted)).scalar()
    if exact is not None:
        return str(exact)
    starts = t.run.c.id.startswith(wanted, autoescape=True)
    newest_first = (t.run.c.started_at.desc(), t.run.c.id.desc())
    asked = select(t.run.c.id).where(starts).order_by(*newest_first).limit(AMBIGUOUS_SHOWN + 1)
    found = [] if not wanted else list(connection.execute(asked).scalars())
    if not found:
        raise StoreError(f"there is no run {run!r} in this history", next_step="see `luff runs list`")
    if len(found) > 1:
        more = " and more" if len(found) > AMBIGUOUS_SHOWN else ""
        raise StoreError(
            f"{run!r} is the beginning of several runs: {', '.join(found[:AMBIGUOUS_SHOWN])}{more}",
            next_step="write more of it",
        )
    return str(found[0])


def outcome_of(connection: Connection, run: str) -> Outcome:
    """Return the outcome of *run* as it was recorded."""
    from pydantic import ValidationError

    from luff.outcome import Outcome

    whole = find(connection, run)
    body = connection.execute(select(t.outcome.c.body).where(t.outcome.c.run == whole)).scalar()
    if body is None:
        raise StoreError(
            f"run {whole} has no outcome: it is still running, or was killed",
            next_step="`luff status` shows what is injected",
        )
    try:
        # With the reader that belongs to the writer: pydantic's takes no half of a surrogate pair.
        return Outcome.model_validate(json.loads(body))
    except ValueError as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise StoreError(f"the outcome of run {whole} cannot be read: {why}", next_step="upgrade luff") from error


def row_of(connection: Connection, run: str) -> RunRow:
    """Return the row of *run*, whole id or unique beginning."""
    return made(connection.execute(select(t.run).where(t.run.c.id == find(connection, run))).one())


def samples_of(connection: Connection, run: str) -> Samples | None:
    """Return the samples of *run*, or ``None`` when none were kept."""
    whole = find(connection, run)
    asked = select(t.sample_block.c.body).where(t.sample_block.c.run == whole).order_by(t.sample_block.c.position)
    blocks = list(connection.execute(asked).scalars())
    if not blocks:
        return None
    try:
        return decode(blocks)
    except ValueError as error:
        raise StoreError(
            f"the samples of run {whole} cannot be read: {error}", next_step="its outcome still can"
        ) from error


def listed(connection: Connection, where: RunFilter, *, limit: int, before: str | None) -> list[RunRow]:
    """Return at most *limit* runs, newest first; with *before* those that come after that run in this order."""
    asked = select(t.run).order_by(t.run.c.started_at.desc(), t.run.c.id.desc()).limit(min(limit, RUNS_MOST))
    for column in (
        "experiment",
        "verdict",
        "namespace",
        "subject",
        "dependency",
        "commit",
        "branch",
    ):
        wanted = getattr(where, column)
        if wanted is not None:
            asked = asked.where(t.run.c[column] == key(wanted))
    if where.ended:
        asked = asked.where(t.run.c.verdict.is_not(None))
    if where.mesh is not None:
        asked = asked.where(t.run.c.mesh_kind == where.mesh.kind)
    if where.mesh is not None and where.mesh.kind == "cluster":
        asked = asked.where(t.run.c.mesh_name == key(where.mesh.name))
    for name, value in where.labels.items():
        asked = asked.where(t.run.c.labels[name].as_string() == value)
    if where.phases:
        asked = asked.where(t.run.c.phase.in_(where.phases))
    if where.since is not None:
        asked = asked.where(t.run.c.started_at >= where.since)
    if where.until is not None:
        asked = asked.where(t.run.c.started_at < where.until)
    if before is not None:
        whole = find(connection, before)
        started_at = connection.execute(select(t.run.c.started_at).where(t.run.c.id == whole)).scalar_one()
        asked = asked.where(tuple_(t.run.c.started_at, t.run.c.id) < tuple_(started_at, whole))
    return [made(row) for row in connection.execute(asked)]


def made(row: Row[Any]) -> RunRow:
    """Return *row* of the table of runs as a value."""
    from luff.outcome import Context, MeshIdentity

    return RunRow(
        run=row.id,
        experiment=row.experiment,
        namespace=row.namespace,
        labels=row.labels,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        reason=row.reason,
        explanation=row.explanation,
        phase=Phase(row.phase),
        mesh=MeshIdentity(kind=row.mesh_kind, name=row.mesh_name, uid=row.mesh_uid),
        subject=row.subject,
        caller=row.caller,
        dependency=row.dependency,
        fault=row.fault,
        spec_sha256=row.spec_sha256,
        actor=row.actor,
        context=Context(
            image=row.image, revision=row.revision, commit=row.commit, branch=row.branch, ci_url=row.ci_url
        ),
        luff=row.luff,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
