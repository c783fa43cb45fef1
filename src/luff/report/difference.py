"""
Two runs side by side: what was learnt, what was measured, and what was asked differently.

Nothing is said to be better or worse: two numbers are compared by a person,
who is told first when they answer different questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from luff.outcome import CheckResult, Outcome
from luff.report.trend import place_of
from luff.report.words import edge_words, fault_words, measured_words, restore_words, sample_words, visible
from luff.units import show_percent

__all__ = ["CheckDifference", "Difference", "SpecDifference", "as_text", "difference"]

ABSENT = "–"
"""What stands for something that one of the two does not have."""


@dataclass(frozen=True, slots=True)
class SpecDifference:
    """This is one part of the resolved experiment, by its path; a side that does not have it is `ABSENT`."""

    path: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class CheckDifference:
    """This is one expectation in both runs; ``None`` where a run does not have it."""

    id: str
    arm: str
    a: CheckResult | None
    b: CheckResult | None

    @property
    def turned(self) -> bool:
        """Return whether the two do not say the same."""
        return self.a is None or self.b is None or self.a.verdict is not self.b.verdict


@dataclass(frozen=True, slots=True)
class Difference:
    """This is all that can be said of two runs. *caveats* are why their numbers may not be compared."""

    a: Outcome
    b: Outcome
    caveats: tuple[str, ...]
    facts: tuple[tuple[str, str, str], ...]
    checks: tuple[CheckDifference, ...]
    spec: tuple[SpecDifference, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "a": self.a.run,
            "b": self.b.run,
            "comparable": not self.caveats,
            "caveats": list(self.caveats),
            "verdict": {"a": self.a.verdict, "b": self.b.verdict, "same": self.a.verdict is self.b.verdict},
            "facts": [{"name": name, "a": a, "b": b, "same": a == b} for name, a, b in self.facts],
            "checks": [
                {
                    "id": check.id,
                    "arm": check.arm,
                    "turned": check.turned,
                    "a": None if check.a is None else _check_json(check.a),
                    "b": None if check.b is None else _check_json(check.b),
                }
                for check in self.checks
            ],
            "spec": [{"path": each.path, "a": each.a, "b": each.b} for each in self.spec],
        }


def _check_json(check: CheckResult) -> dict[str, Any]:
    names = (
        "verdict", "reason", "expression", "measured", "unit", "n", "violations", "threshold", "bound",
    )  # fmt: skip
    return {name: getattr(check, name) for name in names}


def difference(a: Outcome, b: Outcome) -> Difference:
    """Return what *a* and *b* say differently."""
    return Difference(a, b, tuple(_caveats(a, b)), tuple(_facts(a, b)), tuple(_checks(a, b)), tuple(_spec(a, b)))


def _caveats(a: Outcome, b: Outcome) -> Iterator[str]:
    if a.experiment != b.experiment:
        yield f"they are two experiments: {visible(a.experiment)} and {visible(b.experiment)}"
    elif a.spec_sha256 != b.spec_sha256:
        yield "the experiment was written differently: see what differs in its spec"
    if a.mesh.kind != b.mesh.kind:
        yield f"one ran in a lab, the other on a cluster: {visible(a.mesh.name)} and {visible(b.mesh.name)}"
    elif place_of(a.mesh.kind, a.mesh.name) != place_of(b.mesh.kind, b.mesh.name):
        yield f"they ran on two clusters: {visible(a.mesh.name)} and {visible(b.mesh.name)}"


def _facts(a: Outcome, b: Outcome) -> Iterator[tuple[str, str, str]]:
    for name, said in (
        ("verdict", lambda each: each.verdict + ("" if each.reason is None else f" ({visible(each.reason)})")),
        ("began", lambda each: visible(each.started_at)),
        ("mesh", lambda each: f"{each.mesh.kind} {visible(each.mesh.name)}"),
        ("istio", lambda each: visible(each.mesh.istio or ABSENT)),
        ("commit", lambda each: visible(each.context.commit or ABSENT)),
        ("branch", lambda each: visible(each.context.branch or ABSENT)),
        ("revision", lambda each: visible(each.context.revision or ABSENT)),
        ("image", lambda each: visible(each.context.image or ABSENT)),
        ("broken hop", lambda each: edge_words(each) or ABSENT),
        ("fault", lambda each: fault_words(each) or ABSENT),
        ("fault fired", _fired),
        ("routes", restore_words),
        ("luff", lambda each: visible(each.luff)),
    ):
        yield name, said(a), said(b)
    for arm in dict.fromkeys([*a.arms, *b.arms]):
        yield f"{visible(arm)} arm", _arm(a, arm), _arm(b, arm)


def _fired(outcome: Outcome) -> str:
    evidence = outcome.evidence
    if evidence is None:
        return ABSENT
    share = show_percent(evidence.exposure * 100)
    least = "at least " if evidence.per == "aggregate" else ""
    mean = evidence.calls_per_request
    calls = "" if mean is None else f", {mean:.3g} calls a request on average"
    return f"{least}{share} ({evidence.observed} of {evidence.expected}, {visible(evidence.source)}{calls})"


def _arm(outcome: Outcome, arm: str) -> str:
    found = outcome.arms.get(arm)
    if found is None:
        return ABSENT
    latency = found.latency_ms
    numbers = ", ".join(
        f"{name} {value:.4g} ms" for name, value in (("p50", latency.p50), ("p99", latency.p99)) if value is not None
    )
    return f"{found.sent} sent, {found.errors} errors" + (f", {numbers}" if numbers else "")


def _checks(a: Outcome, b: Outcome) -> Iterator[CheckDifference]:
    of_a, of_b = ({(check.id, check.arm): check for check in outcome.checks} for outcome in (a, b))
    for name, arm in dict.fromkeys([*of_a, *of_b]):
        yield CheckDifference(name, arm, of_a.get((name, arm)), of_b.get((name, arm)))


def _spec(a: Outcome, b: Outcome) -> Iterator[SpecDifference]:
    flat_a, flat_b = dict(_flat(a.spec, "")), dict(_flat(b.spec, ""))
    for path in dict.fromkeys([*flat_a, *flat_b]):
        value_a, value_b = flat_a.get(path, ABSENT), flat_b.get(path, ABSENT)
        if value_a != value_b:
            yield SpecDifference(path, value_a, value_b)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each leaf with its path. What stands in a list goes by its ``id`` or ``name`` where it has one."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flat(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            own = next((part[key] for key in ("id", "name") if part.get(key)), None) if isinstance(part, dict) else None
            yield from _flat(part, f"{path}[{number if own is None else own}]")
    else:
        yield path, value


def as_text(found: Difference) -> str:
    """Return *found* as lines for people; what is the same in both is said once."""
    lines = [f"a  {_named(found.a)}", f"b  {_named(found.b)}"]
    lines += [f"!  not to be compared as numbers: {caveat}" for caveat in found.caveats]
    lines += [
        "",
        *_columns([(_mark(a == b), name, a, "" if a == b else b) for name, a, b in found.facts if {a, b} != {ABSENT}]),
    ]
    if found.checks:
        rows = [
            (
                _mark(not check.turned),
                f"{visible(check.id)}{' (control)' if check.arm == 'control' else ''}",
                _check_words(check.a),
                _check_words(check.b),
            )
            for check in found.checks
        ]
        lines += ["", "checks", *_columns(rows)]
    if found.spec:
        spec = [("≠", visible(each.path), visible(each.a), visible(each.b)) for each in found.spec]
        lines += ["", "spec", *_columns(spec)]
    return "\n".join(lines)


def _named(outcome: Outcome) -> str:
    return f"{visible(outcome.run)}  {outcome.verdict:<12}  {visible(outcome.experiment)}"


def _mark(same: bool) -> str:
    return "=" if same else "≠"


def _check_words(check: CheckResult | None) -> str:
    if check is None:
        return ABSENT
    return f"{check.verdict}: {measured_words(check)} for {visible(check.expression)}, {sample_words(check)}"


_COLUMN_MOST = 60


def _columns(rows: list[tuple[str, str, str, str]]) -> list[str]:
    widths = [min(_COLUMN_MOST, max(len(row[place]) for row in rows)) for place in range(3)]
    return [
        "  ".join([row[0], *(f"{row[place]:<{widths[place]}}" for place in (1, 2)), row[3]]).rstrip() for row in rows
    ]
