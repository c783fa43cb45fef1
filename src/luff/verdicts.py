"""
From a run's facts to its verdict, by a table of rules: the first that holds decides.

1. No pass without proof that the fault fired, that control was untouched, that
   the generator kept time, and that the numbers carry the claim.
2. What the generator did wrong itself is never the service's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luff import stats
from luff.checks import PlannedCheck, lateness_of
from luff.explain import GiveUp, give_up
from luff.exposure import Exposure, dose_percent, exposure
from luff.lifecycle import Phase
from luff.model import ControlTripwire, Experiment
from luff.outcome import CheckResult, FirstTry, Generator, Next, Outcome
from luff.results import RECOVERY_BY_CHANCE, WARMUP_TOO_SHORT, p_value, recovery_for, result_of
from luff.samples import Evidence, Samples
from luff.saturation import advice
from luff.tallies import Judge, breaches
from luff.units import show_percent
from luff.words import Arm, Verdict

__all__ = [
    "NEXT",
    "RULES",
    "WARMUP_ERRORS_MOST",
    "Judgement",
    "Situation",
    "control_errors_most",
    "judge",
    "second_try",
    "worth_another_try",
]

WARMUP_ERRORS_MOST = 0.05


@dataclass(slots=True)
class Situation:
    """
    This is what befell the run, apart from its samples. Times are the samples' nanoseconds.

    Of a *fault_removed*, *object_deleted* says that the whole object went, and
    *reaped* what a reaper of luff said when it took the twins out.
    """

    route_not_live: bool = False
    fault_removed: bool = False
    object_deleted: bool = False
    reaped: str | None = None
    isolation_breach: bool = False
    control_unhealthy: str | None = None
    live_ns: int | None = None
    removed_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """This is what was learnt from a run. *met* is how many requests met the fault, where that was looked at."""

    verdict: Verdict
    reason: str | None
    explanation: str
    next: Next | None
    checks: tuple[CheckResult, ...] = ()
    rule: str = ""
    met: Exposure | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    """This is everything that the run's rules look at."""

    experiment: Experiment
    situation: Situation
    evidence: Evidence
    generator: Generator | None
    met: Exposure
    hurt: bool
    checks: tuple[CheckResult, ...]
    control: int = 0
    control_errors: int = 0
    generator_advice: str = ""

    @property
    def sent(self) -> int:
        return self.met.sent

    @property
    def exposed(self) -> int:
        return self.met.least

    @property
    def exposure(self) -> float:
        return self.exposed / self.sent if self.sent else 0.0


RunRule = tuple[str, Callable[[_Facts], bool], Verdict, str | None]


def _first_reason(facts: _Facts) -> str | None:
    return next((c.reason for c in facts.checks if c.verdict is Verdict.INCONCLUSIVE), None)


def _first_rule(facts: _Facts) -> str | None:
    return next((c.rule for c in facts.checks if c.verdict is Verdict.INCONCLUSIVE), None)


def _unexposed(facts: _Facts) -> bool:
    return facts.exposure < facts.experiment.spec.evidence.at_least_percent / 100


def _off_dose(facts: _Facts) -> bool:
    fault, dose = facts.experiment.spec.fault, dose_percent(facts.experiment)
    if facts.evidence.per == "aggregate":
        return (
            dose < 100
            and facts.exposed > 0
            and not stats.within_dose(min(facts.met.fired, facts.sent), facts.sent, dose)
        )
    if dose < 100 and facts.exposed and not facts.evidence.fired_total:
        # No interval of a small dose says so: it may be drawn for nobody, and then nothing was tried.
        return True
    doses = [part.percent for part in (fault.delay, fault.abort) if part is not None]
    if len(doses) != 1 or doses[0] >= 100 or not facts.exposed:
        return False
    # Each attempt draws for itself: who retries is hit more often, and that is not the dose's doing.
    return not stats.within_dose(facts.evidence.fired_total, facts.evidence.attempts_total, doses[0])


def _tried_again(facts: _Facts) -> bool:
    """Return whether it fired in more calls than a percentage of the requests makes, where calls are counted."""
    counted = facts.evidence.per == "aggregate" and facts.evidence.source != "latency-shift"
    return counted and facts.met.fired * 100 > facts.sent * dose_percent(facts.experiment)


RULES: tuple[RunRule, ...] = (
    (
        "the twins never reached the proxies",
        lambda f: f.situation.route_not_live,
        Verdict.INCONCLUSIVE,
        "route_not_live",
    ),
    (
        "control was not healthy before the fault",
        lambda f: f.situation.control_unhealthy is not None,
        Verdict.INCONCLUSIVE,
        "control_unhealthy",
    ),
    ("requests that should not took the twin", lambda f: f.evidence.breaches > 0, Verdict.FAILED, "isolation_breach"),
    (
        # Before all that is counted: while a generator stands still, both arms seem to fail.
        "the generator ran late",
        lambda f: f.generator is None or not f.generator.healthy,
        Verdict.INCONCLUSIVE,
        "generator_saturated",
    ),
    ("bystanders were hurt", lambda f: f.hurt, Verdict.FAILED, "isolation_breach"),
    ("somebody else took the twins out", lambda f: f.situation.fault_removed, Verdict.INCONCLUSIVE, "fault_removed"),
    ("no request was sent", lambda f: not f.sent, Verdict.INCONCLUSIVE, "not_enough_samples"),
    (
        "too few requests took the twin",
        _unexposed,
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    ("the fault fired for another share than asked", _off_dose, Verdict.INCONCLUSIVE, "dose_too_low"),
    ("an expectation failed", lambda f: any(c.verdict is Verdict.FAILED for c in f.checks), Verdict.FAILED, None),
    (
        "an expectation could not be decided",
        lambda f: _first_reason(f) is not None,
        Verdict.INCONCLUSIVE,
        "of the check",
    ),
    ("there was nothing to expect", lambda f: not f.checks, Verdict.INCONCLUSIVE, "not_enough_samples"),
    ("every expectation held", lambda _: True, Verdict.PASSED, None),
)
"""What a run's facts mean. The first rule that holds decides."""

NEXT: dict[str | None, Next] = {
    "isolation_breach": Next(
        who="caller",
        retryable=False,
        do="find what the arms share in the caller (pool, breaker, cache) and part it; see the control arm",
    ),
    "not_enough_samples": Next(
        who="experiment",
        retryable=True,
        do="raise traffic.duration or traffic.rate, or ask for less; `luff plan` prints what each check tolerates",
    ),
    "fault_not_observed": Next(
        who="caller",
        retryable=False,
        do="make the workload named above forward one carrier: traceparent, baggage or the scope header",
    ),
    "route_not_live": Next(
        who="mesh",
        retryable=True,
        do="see that istiod pushes: `istioctl proxy-status`; check exportTo and a second VirtualService for the host, "
        "and that what luff sends passes a proxy of the mesh",
    ),
    "fault_removed": Next(
        who="mesh", retryable=True, do="pause what rewrites the VirtualService (GitOps self-heal, Flagger) for the run"
    ),
    "control_unhealthy": Next(who="caller", retryable=True, do="make the service healthy without a fault first"),
    "generator_saturated": Next(who="runner", retryable=True, do="give luff a quieter machine, or less to send"),
    "dependent_samples": Next(
        who="experiment",
        retryable=True,
        do="raise traffic.duration: violations come in bursts, so more of them have to be seen",
    ),
    "dose_too_low": Next(
        who="mesh", retryable=False, do="look for another fault or route that takes some of the requests"
    ),
    "not_discriminating": Next(
        who="experiment", retryable=False, do="choose an expectation that only a fallback can meet"
    ),
    None: Next(
        who="caller",
        retryable=False,
        do="fix the caller's timeout or fallback; the explanation names what was measured",
    ),
}
"""Who can act, whether trying again may help, and what to do, by reason."""


TRIED_AGAIN = frozenset({"not_enough_samples", "generator_saturated", "control_unhealthy", "dependent_samples"})
"""Reasons that another minute may do away with, without anybody changing anything."""


def worth_another_try(outcome: Outcome) -> bool:
    """Return whether *outcome* is tried again by itself, once: it was bad luck perhaps, and nothing was left behind."""
    left = outcome.restore is not None and (outcome.restore.api, outcome.restore.data_plane) in _MAY_BE_LIVE
    chance = outcome.verdict is Verdict.INCONCLUSIVE and outcome.reason in TRIED_AGAIN
    bearable = outcome.next is None or outcome.next.retryable
    return chance and bearable and outcome.first_try is None and outcome.phase is Phase.CLEAN and not left


_MAY_BE_LIVE = {
    ("verified", "stale"),
    ("unverified", "stale"),
    ("unverified", "unobserved"),
    ("unverified", "verified"),
}


def second_try(first: Outcome, second: Outcome) -> Outcome:
    """Return *second*, which decides, with the name of *first*, which it came after."""
    tried = FirstTry(run=first.run, verdict=first.verdict, reason=first.reason, explanation=first.explanation)
    said = f"{second.explanation} (the second try: run {first.run} was {first.verdict}, {first.reason})"
    return second.model_copy(update={"first_try": tried, "explanation": said})


_NEXT_OF_STAGES: dict[str | None, str] = {
    "not_enough_samples": "make traffic.stages longer, or their rates higher, or ask for less; `luff plan` prints what each check tolerates",
    "dependent_samples": "make traffic.stages longer: violations come in bursts, so more of them have to be seen",
}
"""What to do instead where traffic has stages: there is no rate to raise, and the duration is theirs."""

_NEXT_OF_RULES: dict[str | None, str] = {
    WARMUP_TOO_SHORT: "raise traffic.warmup, or the rate: the more answers, the less has to be worse to be told from what is usual",
    RECOVERY_BY_CHANCE: "raise the rate, so that a single error matters less in a window of 1 s, or allow recovery more time",
}
"""What to do instead where it is not the time with the fault that was too short, by the rule of the check."""

_NEXT_OF_NO_CALLS = NEXT["fault_not_observed"].model_copy(
    update={
        "do": "see that the traffic makes the callers call the broken hop, and that each workload on the way forwards one "
        "carrier: traceparent, baggage or the scope header; with --lab the one that drops them is named"
    }
)

_NEXT_OF_COUNTS = Next(
    who="experiment",
    retryable=False,
    do="say with evidence.callsPerRequest how many calls one request makes at most, or expect an answer or a time that only the "
    "fault brings about; with --lab each request is seen",
)


_NEXT_OF_TRIES = Next(
    who="experiment",
    retryable=False,
    do="leave the percentage out, so that every call meets the fault, or run it with --lab, where each request is seen",
)


def judge(
    checks: Sequence[PlannedCheck],
    samples: Samples,
    evidence: Evidence,
    *,
    experiment: Experiment,
    situation: Situation,
    generator: Generator | None,
) -> Judgement:
    """Judge a finished run from the beginning, with all the evidence that there is. The routes are back already."""
    met, most = exposure(samples, evidence, experiment), control_errors_most(experiment)
    elsewhere = met.elsewhere
    final = Judge(tuple(checks), control_errors_most=most, elsewhere=frozenset(elsewhere.sent))
    settled = evidence.settled_through
    evidence.settled_through = len(samples)
    final.feed_all(samples, evidence)
    evidence.settled_through = settled
    results = _after_holm(
        tuple(
            result_of(
                check,
                final,
                samples,
                evidence,
                removed_ns=situation.removed_ns,
                met=met.least if evidence.per == "aggregate" and met.least < met.sent else None,
            )
            for check in checks
        ),
        tuple(
            p_value(check, final, recovery_for(check, samples, removed_ns=situation.removed_ns))
            if check.threshold < 1.0
            else 1.0
            for check in checks
        ),
    )
    hurt = situation.isolation_breach or final.breached or breaches(elsewhere.hurt, elsewhere.total, most)
    spec = experiment.spec
    bears = lateness_of(checks, timeout_s=spec.timeout_s)
    do = advice(generator, samples, late_most_s=bears.most_s, traffic=spec.traffic)
    facts = _Facts(experiment, situation, evidence, generator, met, hurt, results, *_control(samples), do)
    rule, verdict, reason = next((text, v, r) for text, holds, v, r in RULES if holds(facts))
    if reason == "of the check":
        reason = _first_reason(facts)
    seen = give_up(evidence.calls)
    explanation = _explain(facts, verdict, reason, rule, seen)
    return Judgement(verdict, reason, explanation, _next(facts, verdict, reason), results, rule, met)


def control_errors_most(experiment: Experiment) -> float:
    """Return the share of errors on the control arm that the experiment declares as normal."""
    shares = [t.above_percent / 100 for t in experiment.spec.abort_on if isinstance(t, ControlTripwire)]
    return max(1e-3, min(shares, default=0.05))


def _after_holm(results: tuple[CheckResult, ...], p_values: tuple[float, ...]) -> tuple[CheckResult, ...]:
    """Let a failure stand only if it stands among all the checks that were looked at (Holm). Passing needs no correction."""
    standing = stats.holm(
        [p if r.verdict is Verdict.FAILED else 1.0 for r, p in zip(results, p_values, strict=True)],
        alpha=stats.ALPHA_FAIL,
    )
    return tuple(
        r
        if r.verdict is not Verdict.FAILED or stands
        else r.model_copy(
            update={
                "verdict": Verdict.INCONCLUSIVE,
                "reason": "not_enough_samples",
                "rule": "among this many checks it may be chance",
                "explanation": f"{r.explanation}; among {len(results)} checks that may be chance",
            }
        )
        for r, stands in zip(results, standing, strict=True)
    )


def _elsewhere(facts: _Facts) -> str:
    """Return what there is to say of requests that never reach the target."""
    if not facts.met.elsewhere.sent:
        return ""
    names = ", ".join(facts.met.elsewhere.names(facts.experiment))
    return f"; {facts.met.elsewhere.total} requests never reach the target, as bystanders: {names}"


def _left_out(facts: _Facts) -> bool:
    """Return whether too few requests took the twin, though no workload lost the scope."""
    return _unexposed(facts) and facts.evidence.source == "lab-log" and not facts.evidence.lost_at


def _next(facts: _Facts, verdict: Verdict, reason: str | None) -> Next | None:
    if verdict is Verdict.PASSED:
        return None
    if reason == "fault_not_observed" and _left_out(facts):
        return Next(
            who="experiment",
            retryable=False,
            do="if the caller is meant to leave the call out, lower evidence.atLeast; else see that the traffic needs the target",
        )
    if reason == "fault_removed" and facts.situation.object_deleted:
        return Next(who="mesh", retryable=True, do="see who deleted the VirtualService, and run again once it is back")
    if reason == "fault_removed" and facts.situation.reaped is not None:
        return Next(
            who="runner",
            retryable=True,
            do="see in docs/restoring.md when a reaper takes twins out, and whether this run could renew its Lease in time",
        )
    if reason == "dose_too_low" and facts.evidence.per == "request" and not facts.evidence.fired_total:
        return Next(
            who="experiment", retryable=True, do="raise the fault's percentage, or traffic.rate or traffic.duration"
        )
    if reason == "generator_saturated":
        # Bystanders who may have been hurt are not tried out once more by itself.
        return NEXT[reason].model_copy(update={"do": facts.generator_advice, "retryable": not facts.hurt})
    if reason == "not_enough_samples" and (do := _NEXT_OF_RULES.get(_first_rule(facts))):
        return NEXT[reason].model_copy(update={"do": do})
    if reason in _NEXT_OF_STAGES and facts.experiment.spec.traffic.stages:
        return NEXT[reason].model_copy(update={"do": _NEXT_OF_STAGES[reason]})
    if reason == "fault_not_observed" and facts.evidence.per == "aggregate":
        return _NEXT_OF_COUNTS if facts.met.fired else _NEXT_OF_NO_CALLS
    if reason == "dose_too_low" and _tried_again(facts):
        return _NEXT_OF_TRIES
    return NEXT.get(reason, NEXT[None])


def _control(samples: Samples) -> tuple[int, int]:
    """Return how many requests of the control arm were answered or given up while the fault was live, and how many failed."""
    failure, status, ended = samples.failure, samples.status, samples.ended_rows(Arm.CONTROL)
    return len(ended), sum(1 for n in ended if failure[n] or status[n] >= 500)


def _explain_counts(facts: _Facts) -> str:
    """Say what calls that were counted, or samples that were compared, leave open."""
    met, note = facts.met, f" ({facts.evidence.remarks})" if facts.evidence.remarks else ""
    if facts.evidence.source == "latency-shift":
        return (
            f"beyond as many as on control, {met.fired} of {met.sent} requests took as much longer as was injected, or came back "
            f"with the injected status, and nothing else could be looked at{note}"
        )
    if not met.fired:
        return f"the callers' proxies did not inject the fault into any call: the scope was lost on the way to them, or others call{note}"
    return (
        f"the callers' proxies injected the fault into {met.fired} calls, by which at least {met.least} and at most {met.most} of "
        f"{met.sent} requests met it: calls do not tell how many requests they came from{note}"
    )


def _explain_generator(facts: _Facts, rule: str) -> str:
    """Say what was wrong with the generator, and that it leaves open whether bystanders were hurt, where it looked so."""
    said = rule if facts.generator is None else facts.generator.trouble or rule
    if not facts.hurt:
        return said
    return (
        f"{said}; {facts.control_errors} of {facts.control} requests of the control arm failed, which may come of that"
    )


def _explain(facts: _Facts, verdict: Verdict, reason: str | None, rule: str, seen: GiveUp | None) -> str:
    if reason == "fault_removed" and facts.situation.object_deleted:
        return "the VirtualService was deleted while the fault was in it"
    if reason == "fault_removed" and facts.situation.reaped is not None:
        return f"{rule}: {facts.situation.reaped}"
    if reason == "fault_not_observed" and _unexposed(facts):
        if facts.evidence.source == "response-header":
            return (
                f"{facts.exposed} of {facts.sent} answers came from the twin; on a cluster luff sees that only in answers "
                "of the broken hop itself, so its traffic has to call that hop directly"
            )
        if facts.evidence.per == "aggregate":
            return _explain_counts(facts)
        lost = facts.evidence.lost_at.most_common(1)
        where = f": every carrier of the scope was lost at {lost[0][0]}" if lost else ""
        if _left_out(facts):
            where = ": no workload lost the scope, so the others did without that call (a breaker, a cache) or took another route"
        return f"{facts.exposed} of {facts.sent} requests reached the fault{where}"
    if reason == "dose_too_low" and _tried_again(facts):
        return (
            f"the callers' proxies injected the fault into {facts.met.fired} calls, more than "
            f"{show_percent(dose_percent(facts.experiment))} of {facts.sent} requests: callers tried again, and calls do not tell "
            "how many requests they came from"
        )
    if reason == "isolation_breach" and facts.evidence.breaches:
        return f"{rule}: {facts.evidence.breaches} seen in {facts.evidence.source}"
    if reason == "isolation_breach" and facts.met.elsewhere.hurt > facts.control_errors:
        return f"bystanders were hurt: {facts.met.elsewhere.hurt} of {facts.met.elsewhere.total} requests that never reach the target failed"
    if reason == "isolation_breach":
        return f"bystanders were hurt: {facts.control_errors} of {facts.control} requests of the control arm failed{_elsewhere(facts)}"
    if reason == "generator_saturated":
        return _explain_generator(facts, rule)
    if verdict is Verdict.FAILED and reason is None:
        said = [c.explanation for c in facts.checks if c.verdict is Verdict.FAILED]
        return "; ".join([*said[:2], *([seen.sentence()] if seen else [])])
    if verdict is Verdict.INCONCLUSIVE and any(c.reason == reason for c in facts.checks):
        return next(c.explanation for c in facts.checks if c.reason == reason)
    return _explain_pass(facts) if verdict is Verdict.PASSED else rule


def _explain_pass(facts: _Facts) -> str:
    count = len(facts.checks)
    held = "its one expectation" if count == 1 else f"all {count} expectations"
    least = "at least " if facts.evidence.per == "aggregate" else ""
    said = f"with the fault live for {least}{facts.exposed} of {facts.sent} requests, {held} held{_elsewhere(facts)}"
    if Arm.CONTROL in facts.experiment.spec.traffic.arms:
        return said
    return f"{said}; without control requests nobody saw whether bystanders were hurt"
