"""
From outcomes to go or stop, for a pipeline.

Pure: the outcomes, the baseline and the waivers are given, and so is the day.
What must stay true:

1. No waiver and no baseline excuses a restore that is not verified, a breach of
   isolation, or a run that could not be judged for a reason of its own.
2. Nothing is left out in silence: what did not count, and what there was nothing
   to compare with, is said in a sentence.
3. Without baseline and waivers the exit code is that of `luff.exit_codes`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

from luff.errors import InvalidFile
from luff.exit_codes import FAIL_ON, NOTHING_SELECTED, SEVERITY, Standing, exit_code, is_unrestored, standing
from luff.model import Experiment, Verdict
from luff.outcome import MeshIdentity, Outcome
from luff.report.words import restore_words, who_words
from luff.units import show_duration
from luff.written import spec_sha256
from luff.yaml_nodes import Fields, Items, Node, Problems, Scalar, did_you_mean, read_nodes

__all__ = [
    "Baseline",
    "Decision",
    "Waiver",
    "decide",
    "newest_each",
    "parse_waivers",
    "spec_sha256",
    "why_no_proof",
]

INCONCLUSIVE = 3
WAIVABLE = frozenset({Verdict.FAILED, Verdict.INCONCLUSIVE})
"""What a waiver can accept. An error or an abort says nothing about the service that anybody could accept."""

_WAIVER_FIELDS = ("experiment", "reason", "until")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Waiver:
    """This is somebody's word that *experiment*, a name or a glob, need not pass through the day *until*."""

    experiment: str
    reason: str
    until: date
    place: str

    def covers(self, outcome: Outcome) -> bool:
        """Return whether *outcome* is of the experiment that is meant."""
        return fnmatchcase(outcome.experiment, self.experiment)


@dataclass(frozen=True, slots=True)
class Baseline:
    """This is what runs are compared with: the outcomes by experiment, and *source*, where they are from, in words."""

    source: str
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Decision:
    """
    This is what a pipeline is told.

    *said* are the sentences that say why; *excused* says of a run, by its id,
    why it does not count; *stops* are the runs that do, and did not pass;
    *waivers_used* and *quarantined* are names of experiments, the latter those
    that failed as they were known to.
    """

    exit_code: int
    said: tuple[str, ...] = ()
    excused: Mapping[str, str] = field(default_factory=dict)
    stops: frozenset[str] = frozenset()
    waivers_used: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()

    @property
    def go(self) -> bool:
        """Return whether the pipeline may go on."""
        return self.exit_code == 0

    @property
    def words(self) -> str:
        """Return the decision in a word or two."""
        return "go" if self.go else f"stop (exit {self.exit_code})"

    def level(self, outcome: Outcome) -> Literal["error", "warning", "notice"]:
        """Return how loudly a report should speak of *outcome*, which is not a plain pass."""
        if outcome.run in self.stops:
            return "error"
        return "notice" if outcome.run in self.excused else "warning"


def decide(
    outcomes: Sequence[Outcome],
    *,
    today: date,
    fail_on: Collection[str] = FAIL_ON,
    soft_fail: bool = False,
    signal: int | None = None,
    baseline: Baseline | None = None,
    waivers: Sequence[Waiver] = (),
    missing: Mapping[str, str] | None = None,
) -> Decision:
    """
    Return go or stop for *outcomes*.

    *missing* says of experiments without an outcome why there is none; that is
    as inconclusive as a run can be. The rest is as for `luff.exit_codes.exit_code`.
    """
    said: list[str] = []
    excused: dict[str, str] = {}
    stops: set[str] = set()
    waived: dict[str, None] = {}
    quarantined: dict[str, None] = {}
    counted: list[Outcome] = []
    for outcome in outcomes:
        judged = _judge(outcome, today=today, baseline=baseline, waivers=waivers)
        said += judged.said
        if judged.excuse is not None:
            excused[outcome.run] = judged.excuse
            (waived if judged.by_waiver else quarantined)[outcome.experiment] = None
        counts = _excused(outcome) if judged.excuse is not None else outcome
        counted.append(counts)
        if exit_code([counts], today=today, fail_on=fail_on, soft_fail=soft_fail) != 0:
            stops.add(outcome.run)
            said += _why_stop(outcome, judged)
        elif judged.excuse is None and judged.counts_as is not Verdict.PASSED:
            said.append(f"{outcome.experiment} is {judged.counts_as}, which does not count here")
    codes = {exit_code(counted, today=today, fail_on=fail_on, soft_fail=soft_fail, signal=signal)}
    if missing:
        # They were selected, whether or not it counts that there is nothing about them.
        codes = codes - {NOTHING_SELECTED} or {0}
    for experiment, why in (missing or {}).items():
        said.append(f"{experiment}: {why}")
        if not soft_fail and "inconclusive" in fail_on:
            codes.add(INCONCLUSIVE)
    return Decision(
        exit_code=min(codes, key=SEVERITY.index),
        said=tuple(dict.fromkeys(said)),
        excused=excused,
        stops=frozenset(stops),
        waivers_used=tuple(waived),
        quarantined=tuple(quarantined),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """This is how one outcome counts. *regression* says that it passed before, *excuse* why it does not count."""

    counts_as: Verdict
    said: tuple[str, ...] = ()
    excuse: str | None = None
    by_waiver: bool = False
    regression: str | None = None
    note: str | None = None


def _judge(outcome: Outcome, *, today: date, baseline: Baseline | None, waivers: Sequence[Waiver]) -> _Judged:
    known = standing(outcome, today=today)
    if known.excused:
        return _Judged(known.counts_as, (f"{outcome.experiment} does not count: {known.note}",), known.note)
    said, excuse, regression = _against(outcome, baseline)
    if known.counts_as is Verdict.PASSED or known.surprising:
        return _Judged(known.counts_as, said, note=known.note)
    if excuse is not None:
        return _Judged(
            known.counts_as, (*said, f"{outcome.experiment} does not count: {excuse}"), excuse, note=known.note
        )
    waiver, about = _waived(outcome, known, today=today, waivers=waivers)
    if waiver is not None:
        words = f"waived until {waiver.until}: {waiver.reason}"
        return _Judged(known.counts_as, (*said, f"{outcome.experiment} does not count: {words}"), words, by_waiver=True)
    return _Judged(known.counts_as, (*said, *about), regression=regression, note=known.note)


def _excused(outcome: Outcome) -> Outcome:
    """Return *outcome* as one whose verdict does not count; where its routes are still does."""
    return outcome.model_copy(update={"verdict": Verdict.PASSED, "reason": None, "known_failure": None})


def _why_stop(outcome: Outcome, judged: _Judged) -> Iterable[str]:
    if is_unrestored(outcome):
        yield f"{outcome.experiment}: {restore_words(outcome)}: a fault may still be live"
    if judged.excuse is not None or judged.counts_as is Verdict.PASSED:
        return
    reason = "" if outcome.reason is None else f" ({outcome.reason})"
    if judged.regression is not None:
        yield judged.regression
    elif judged.note is not None:
        yield f"{outcome.experiment} is {outcome.verdict}{reason}: {judged.note}"
    else:
        failing = _failing(outcome)
        names = f": {', '.join(failing)}" if failing else ""
        yield f"{outcome.experiment} is {outcome.verdict}{reason}{names}"
    if outcome.verdict is Verdict.INCONCLUSIVE and outcome.next is not None:
        yield f"{outcome.experiment}: it is the turn of {who_words(outcome.next.who)}: {outcome.next.do}"


# --- the baseline ------------------------------------------------------------------------------------------------


def newest_each(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Return the newest of *outcomes* for each experiment."""
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        before = found.get(outcome.experiment)
        if before is None or before.started_at <= outcome.started_at:
            found[outcome.experiment] = outcome
    return found


def _failing(outcome: Outcome) -> tuple[str, ...]:
    return tuple(check.id for check in outcome.checks if check.verdict is Verdict.FAILED)


def _against(now: Outcome, baseline: Baseline | None) -> tuple[tuple[str, ...], str | None, str | None]:
    """Return what is said of *now* beside the *baseline*, why it does not count if so, and the regression if it is one."""
    if baseline is None:
        return (), None, None
    then = baseline.outcomes.get(now.experiment)
    if then is None:
        return (f"{now.experiment} has no baseline yet in {baseline.source}: judged absolutely",), None, None
    there, here = _where(then.mesh), _where(now.mesh)
    if there != here:
        said = (
            f"{now.experiment} ran on {there} in {baseline.source} and on {here} now: not comparable, judged absolutely"
        )
        return (said,), None, None
    if now.verdict is not Verdict.FAILED or now.reason is not None:
        return (), None, None
    before = _when(then)
    if then.verdict is Verdict.PASSED:
        changed = "; its spec has changed since" if then.spec_sha256 != now.spec_sha256 else ""
        names = f" ({', '.join(_failing(now))})" if _failing(now) else ""
        return (), None, f"{now.experiment} passed in {before} and fails now{names}{changed}"
    if then.verdict is not Verdict.FAILED or then.reason is not None:
        said = f"{now.experiment} was {then.verdict} in {before}, which is no baseline: judged absolutely"
        return (said,), None, None
    if then.spec_sha256 != now.spec_sha256:
        said = f"{now.experiment} failed in {before}, but its spec has changed since: judged absolutely"
        return (said,), None, None
    new = [name for name in _failing(now) if name not in _failing(then)]
    if new:
        return (), None, f"{now.experiment} failed in {before} already, but not in {', '.join(new)}"
    return (), f"it failed in the same way in {before}", None


def _where(mesh: MeshIdentity) -> str:
    """Return which mesh it was, in words. One lab is as good as another, and a cluster is its name."""
    return "a lab" if mesh.kind == "lab" else f"cluster {mesh.name}"


def _when(outcome: Outcome) -> str:
    commit = f", commit {outcome.context.commit[:9]}" if outcome.context.commit else ""
    return f"run {outcome.run} ({outcome.started_at[:10]}{commit})"


# --- waivers -----------------------------------------------------------------------------------------------------


def _waived(
    outcome: Outcome, known: Standing, *, today: date, waivers: Sequence[Waiver]
) -> tuple[Waiver | None, tuple[str, ...]]:
    """Return the waiver that holds for *outcome*, or what is to be said of those that do not."""
    about = []
    for waiver in waivers:
        if not waiver.covers(outcome):
            continue
        if waiver.until < today:
            about.append(
                f"the waiver of {outcome.experiment} ({waiver.reason}) at {waiver.place} is over since {waiver.until}"
            )
        elif known.counts_as not in WAIVABLE or outcome.reason == "isolation_breach":
            what = outcome.reason or outcome.verdict
            about.append(f"the waiver of {outcome.experiment} at {waiver.place} cannot cover {what}")
        else:
            return waiver, ()
    return None, tuple(about)


def parse_waivers(text: str, file: str) -> tuple[Waiver, ...]:
    """Return the waivers in *text*, a YAML list of experiment, reason and until; `InvalidFile` with every problem."""
    problems = Problems()
    found: list[Waiver] = []
    for root in read_nodes(file, text, problems):
        if not isinstance(root, Items):
            problems.add(
                root.place,
                "waivers are a list",
                "begin each with a dash: - {experiment: NAME, reason: WHY, until: 2027-01-31}",
            )
            continue
        made = [_waiver(item, problems) for item in root.items]
        found += [waiver for waiver in made if waiver is not None]
    if problems:
        raise InvalidFile(list(problems))
    return tuple(found)


def _waiver(item: Node, problems: Problems) -> Waiver | None:
    if not isinstance(item, Fields):
        problems.add(item.place, "a waiver is a mapping", f"with {', '.join(_WAIVER_FIELDS)}")
        return None
    for name in item.fields:
        if name not in _WAIVER_FIELDS:
            problems.add(
                item.key_place(name), f"unknown field {name!r} in a waiver", did_you_mean(name, _WAIVER_FIELDS)
            )
    texts: dict[str, str] = {}
    for name in _WAIVER_FIELDS:
        node = item.fields.get(name)
        if node is None:
            problems.add(item.place, f"a waiver needs {name!r}")
        elif not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value.strip():
            problems.add(node.place, f"{name} must be text that is not empty")
        else:
            texts[name] = node.value.strip()
    if len(texts) < len(_WAIVER_FIELDS):
        return None
    until = _date(texts["until"])
    if until is None:
        problems.add(
            item.fields["until"].place,
            f"{texts['until'][:40]!r} is not a date",
            "write YEAR-MONTH-DAY, such as 2027-01-31",
        )
        return None
    return Waiver(texts["experiment"], texts["reason"], until, f"{item.place.file}:{item.place.line}")


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None


# --- deciding from history ---------------------------------------------------------------------------------------


def why_no_proof(experiment: Experiment, newest: Outcome | None, *, now: datetime, max_age_s: float) -> str | None:
    """Return why *newest* says nothing about *experiment* as it is, or ``None`` when it does."""
    if newest is None:
        return "it has never been run here: run it once with `luff run`"
    age_s = (now - datetime.fromisoformat(newest.ended_at)) / timedelta(seconds=1)
    if age_s > max_age_s:
        return f"its newest run {newest.run} is {show_duration(age_s)} old, and at most {show_duration(max_age_s)} is asked for: run it again"
    if newest.spec_sha256 != spec_sha256(experiment):
        return f"it was changed since its newest run {newest.run}: run it again"
    return None
