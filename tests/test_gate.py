"""Go or stop: outcomes, a baseline and waivers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.errors import InvalidFile, UsageError
from luff.exit_codes import exit_code
from luff.gate import Baseline, Decision, Waiver, decide, newest_each, parse_waivers, spec_sha256, why_no_proof
from luff.model import Experiment, Verdict
from luff.outcome import MeshIdentity, Outcome
from luff.parse import parse_documents
from luff.report.document import read_outcomes, render, report
from luff.report.findings import findings
from luff.report.github import commands
from luff.report.gitlab import code_quality
from luff.report.junit import junit
from luff.report.markdown import markdown
from tests.factories import EVERY_VERDICT, check, errored, failed, inconclusive, passed, resolved, run_id, stranded

TODAY = date(2026, 11, 23)
NAME = "productpage-survives-slow-ratings"


def waiver(experiment: str = NAME, until: str = "2026-12-31") -> Waiver:
    return Waiver(experiment, "SHOP-7", date.fromisoformat(until), "waivers.yaml:1")


def baseline(*outcomes: Outcome) -> Baseline:
    return Baseline("main.json", newest_each(outcomes))


def before(outcome: Outcome, **changes: Any) -> Outcome:
    """Return *outcome* as it might have been the day before."""
    at = {"run": run_id("before"), "started_at": "2026-11-22T10:00:00.000Z", **changes}
    return outcome.model_copy(update=at)


def decided(outcomes: Sequence[Outcome], **more: Any) -> Decision:
    return decide(outcomes, today=TODAY, **more)


@given(st.lists(st.sampled_from([make() for make in EVERY_VERDICT])), st.booleans(), st.sampled_from([None, 2, 15]))
def test_without_baseline_and_waivers_the_code_is_that_of_the_table(
    outcomes: list[Outcome], soft: bool, signal: int | None
) -> None:
    made = decided(outcomes, soft_fail=soft, signal=signal)

    assert made.exit_code == exit_code(outcomes, today=TODAY, soft_fail=soft, signal=signal)
    assert made.go == (made.exit_code == 0)
    assert not made.waivers_used


def test_nothing_at_all_is_no_go() -> None:
    assert decided([]).exit_code == 6


def test_every_stop_has_its_sentence() -> None:
    made = decided([failed(), inconclusive(), errored(), stranded(), passed()])

    assert made.exit_code == 7
    said = "\n".join(made.said)
    assert f"{NAME} is failed: gives-up-in-time, shows-reviews" in said
    assert "the turn of the team of the calling service: forward" in said
    assert "reviews-survives-slow-ratings is error (plan_refused:no_virtual_service)" in said
    assert "a fault may still be live" in said


def test_a_verdict_that_does_not_count_is_still_said() -> None:
    made = decided([inconclusive()], fail_on={"fail"})

    assert made.go
    assert made.said == ("details-with-lost-scope is inconclusive, which does not count here",)


# --- the baseline


def test_passed_before_and_failed_now_is_a_stop_that_says_so() -> None:
    now = failed()

    made = decided([now], baseline=baseline(before(passed(), experiment=NAME, spec_sha256=now.spec_sha256)))

    assert made.exit_code == 1
    (said,) = made.said
    assert said.startswith(f"{NAME} passed in run {run_id('before')} (2026-11-22, commit 4f1c2d9e8) and fails now")
    assert said.endswith("(gives-up-in-time, shows-reviews)")


def test_failed_in_the_same_way_before_is_no_stop() -> None:
    made = decided([failed()], baseline=baseline(before(failed())))

    assert made.go
    assert made.quarantined == (NAME,)
    assert "it failed in the same way in run" in made.said[0]


def test_a_new_way_to_fail_is_a_stop() -> None:
    then = before(failed(checks=[check(verdict=Verdict.FAILED)]))

    made = decided([failed()], baseline=baseline(then))

    assert made.exit_code == 1
    assert made.said[0].endswith("already, but not in shows-reviews")


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ([], "has no baseline yet in main.json: judged absolutely"),
        ([before(failed(), spec_sha256="e" * 64)], "its spec has changed since: judged absolutely"),
        ([before(failed(), mesh=MeshIdentity(kind="cluster", name="prod"))], "not comparable, judged absolutely"),
        ([before(inconclusive(), experiment=NAME)], "which is no baseline: judged absolutely"),
        ([before(failed(), reason="isolation_breach")], "which is no baseline: judged absolutely"),
    ],
)
def test_without_something_to_compare_with_a_run_is_judged_absolutely_and_that_is_said(
    then: list[Outcome], words: str
) -> None:
    made = decided([failed()], baseline=baseline(*then))

    assert made.exit_code == 1
    assert words in made.said[0]
    assert not made.quarantined


def _on(outcome: Outcome, kind: Literal["lab", "cluster"], name: str, uid: str | None = None) -> Outcome:
    return outcome.model_copy(update={"mesh": MeshIdentity(kind=kind, name=name, uid=uid)})


def test_another_cluster_is_no_baseline_and_excuses_nothing() -> None:
    made = decided([_on(failed(), "cluster", "prod")], baseline=baseline(_on(before(failed()), "cluster", "staging")))

    assert made.exit_code == 1
    assert (
        "ran on cluster staging in main.json and on cluster prod now: not comparable, judged absolutely" in made.said[0]
    )


def test_what_passed_on_another_cluster_is_no_regression_here() -> None:
    now = _on(failed(), "cluster", "prod")
    then = before(_on(passed(), "cluster", "staging"), experiment=NAME, spec_sha256=now.spec_sha256)

    made = decided([now], baseline=baseline(then))

    assert made.exit_code == 1
    assert not any("fails now" in said for said in made.said)


@pytest.mark.parametrize(("kind", "then", "now"), [("lab", "lab-1", "lab-2"), ("cluster", "prod", "prod")])
def test_any_lab_and_the_same_cluster_are_a_baseline(kind: Literal["lab", "cluster"], then: str, now: str) -> None:
    made = decided([_on(failed(), kind, now, "u1")], baseline=baseline(_on(before(failed()), kind, then, "u2")))

    assert made.go


def test_a_first_pass_needs_no_baseline() -> None:
    assert decided([passed()], baseline=baseline()).go


@pytest.mark.parametrize(
    ("outcome", "code"), [(inconclusive(), 3), (errored(), 5), (stranded(), 7), (failed(reason="isolation_breach"), 1)]
)
def test_a_baseline_excuses_nothing_but_a_failed_expectation(outcome: Outcome, code: int) -> None:
    assert decided([outcome], baseline=baseline(before(outcome))).exit_code == code


def test_of_several_outcomes_the_newest_is_the_baseline() -> None:
    old, new = before(passed(), started_at="2026-11-20T10:00:00.000Z"), before(passed(), run=run_id("new"))

    assert newest_each([new, old])[new.experiment].run == run_id("new")


# --- waivers


@pytest.mark.parametrize("name", [NAME, "productpage-*"])
def test_a_waiver_holds_through_its_last_day(name: str) -> None:
    made = decided([failed()], waivers=[waiver(name, until="2026-11-23")])

    assert made.go
    assert made.waivers_used == (NAME,)
    assert made.said == (f"{NAME} does not count: waived until 2026-11-23: SHOP-7",)


def test_a_waiver_that_is_over_does_not_count_and_is_said() -> None:
    made = decided([failed()], waivers=[waiver(until="2026-11-22")])

    assert made.exit_code == 1
    assert not made.waivers_used
    assert made.said[0] == f"the waiver of {NAME} (SHOP-7) at waivers.yaml:1 is over since 2026-11-22"


def test_a_waiver_of_what_passes_is_not_used() -> None:
    made = decided([passed()], waivers=[waiver("*")])

    assert (made.go, made.waivers_used, made.said) == (True, (), ())


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (errored(), 5),
        (stranded(), 7),
        (failed(reason="isolation_breach"), 1),
        (failed(phase="stranded"), 7),
        (passed(known_failure={"reason": "LUFF-12"}), 1),
    ],
)
def test_a_waiver_cannot_cover_what_nobody_can_accept(outcome: Outcome, code: int) -> None:
    assert decided([outcome], waivers=[waiver("*")]).exit_code == code


def test_a_known_failure_is_quarantined_and_listed() -> None:
    made = decided([failed(known_failure={"reason": "LUFF-12", "until": "2027-01-31"})])

    assert made.go
    assert made.quarantined == (NAME,)
    assert made.said == (f"{NAME} does not count: known failure: LUFF-12 (until 2027-01-31)",)


def test_waivers_are_read_with_their_places() -> None:
    text = "- {experiment: cart-*, reason: SHOP-7, until: 2027-01-31}\n- experiment: page\n  reason: x\n  until: '2026-01-01'\n"

    first, second = parse_waivers(text, "waivers.yaml")

    assert (first.experiment, first.until, first.place) == ("cart-*", date(2027, 1, 31), "waivers.yaml:1")
    assert second.place == "waivers.yaml:2"
    assert parse_waivers("", "waivers.yaml") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("experiment: x", "w.yaml:1:1: waivers are a list"),
        ("- x", "w.yaml:1:3: a waiver is a mapping"),
        ("- {experiment: x, reason: y}", "a waiver needs 'until'"),
        ("- {experiment: x, reason: y, until: soon}", "w.yaml:1:37: 'soon' is not a date"),
        ("- {experiment: x, reason: y, until: 2027-02-30}", "'2027-02-30' is not a date"),
        ("- {experiment: x, reason: '', until: 2027-01-31}", "reason must be text"),
        ("- {experiment: [x], reason: y, until: 2027-01-31}", "experiment must be text"),
        ("- {experiment: x, reasn: y, until: 2027-01-31}", "did you mean 'reason'?"),
        ("- {", "w.yaml:1"),
        ("a: *b", "w.yaml:1"),
    ],
)
def test_a_broken_file_of_waivers_is_refused_at_its_place(text: str, words: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_waivers(text, "w.yaml")

    assert words in str(caught.value)


# --- from history


def experiment() -> Experiment:
    [made] = parse_documents([("e.yaml", json.dumps(resolved()))]).experiments
    return made


def proof(age: timedelta = timedelta(hours=1), **changes: Any) -> str | None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    changes = {"spec_sha256": spec_sha256(experiment()), "ended_at": (now - age).isoformat(), **changes}
    return why_no_proof(experiment(), passed(**changes), now=now, max_age_s=86400.0)


def test_a_stored_outcome_of_the_same_spec_is_proof_while_it_is_young() -> None:
    assert proof() is None
    assert "25h00m old" in (proof(timedelta(hours=25)) or "")
    assert "it was changed since" in (proof(spec_sha256="e" * 64) or "")
    assert why_no_proof(experiment(), None, now=datetime.now(UTC), max_age_s=1) is not None


def test_what_was_never_run_is_as_inconclusive_as_can_be() -> None:
    assert decided([passed()], missing={"cart": "never run"}).exit_code == 3
    assert decided([failed()], missing={"cart": "never run"}).exit_code == 1
    assert decided([], missing={"cart": "never run"}).exit_code == 3
    assert decided([passed()], missing={"cart": "never run"}, soft_fail=True).exit_code == 0


@pytest.mark.parametrize("flags", [{"soft_fail": True}, {"fail_on": {"fail", "error"}}])
def test_what_was_selected_and_never_run_is_not_nothing_selected(flags: dict[str, Any]) -> None:
    made = decided([], missing={"cart": "never run"}, **flags)

    assert (made.exit_code, made.said) == (0, ("cart: never run",))
    assert decided([], missing={"cart": "never run"}, signal=2, **flags).exit_code == 130
    assert decided([], missing={}, **flags).exit_code == 6


# --- what code hosts are told


def levels(made: Decision, outcomes: Sequence[Outcome]) -> list[str]:
    return [each.level for each in findings(outcomes, level=made.level, excused=made.excused)]


def test_what_stops_is_an_error_and_what_is_excused_a_notice() -> None:
    outcomes = [failed(run=run_id("waived")), failed(experiment="other"), inconclusive(), passed()]
    made = decided(outcomes, waivers=[waiver()], fail_on={"fail"})

    assert levels(made, outcomes) == ["error", "error", "warning", "notice", "notice"]


def test_a_run_without_an_expectation_to_blame_is_shown_at_its_experiment() -> None:
    outcomes = [errored()]
    places = {errored().experiment: ("shop.yaml", 5)}

    (found,) = findings(outcomes, level=decided(outcomes).level, places=places)

    assert (found.level, found.file, found.line, found.check) == ("error", "shop.yaml", 5, None)


def test_a_route_that_is_not_back_is_an_error_beside_everything_else() -> None:
    outcomes = [stranded()]

    found = findings(outcomes, level=decided(outcomes).level)

    assert [each.kind for each in found] == ["error", "restore-not-verified"]


def test_nothing_in_an_outcome_ends_a_workflow_command() -> None:
    nasty = "a,b:c%\r\n::set-env name=X::y\x1b[31m\u202e"
    outcomes = [failed(explanation=nasty, checks=[check(id=nasty, verdict=Verdict.FAILED, explanation=nasty)])]

    written = commands(findings(outcomes, level=decided(outcomes).level))

    (line,) = written.splitlines()
    properties, _, message = line.removeprefix("::error ").partition("::")
    assert dict(each.split("=", 1) for each in properties.split(",")).keys() == {"file", "line", "title"}
    assert "a%2Cb%3Ac%25" in properties
    assert "%0A" in message
    assert "\x1b" not in written


def test_annotations_stand_on_the_line_of_the_expectation() -> None:
    outcomes = [failed()]

    first, *_ = commands(
        findings(outcomes, level=decided(outcomes).level), locate=lambda file: f"sub/{file}"
    ).splitlines()

    assert first.startswith(
        f"::error file=sub/experiments/bookinfo/reviews.yaml,line=23,title={NAME}%3A gives-up-in-time failed::p99 ≤ 3 s"
    )


def test_gitlab_knows_a_finding_again_whatever_was_measured() -> None:
    def fingerprints(**changes: Any) -> list[str]:
        checks = [check(verdict=Verdict.FAILED, **changes), check(verdict=Verdict.FAILED, **changes)]
        outcomes = [failed(checks=checks)]
        found = json.loads(code_quality(findings(outcomes, level=decided(outcomes).level)))
        assert {each["severity"] for each in found} == {"critical"}
        assert found[0]["location"]["path"].endswith("reviews.yaml")
        return [each["fingerprint"] for each in found]

    assert fingerprints() == fingerprints(measured=1.0, line=99)
    assert len(set(fingerprints())) == 2


def test_junit_skips_what_is_waived() -> None:
    outcomes = [failed()]
    made = decided(outcomes, waivers=[waiver()])

    text = junit(outcomes, today=TODAY, excused=made.excused)

    assert "<failure" not in text
    assert 'message="waived until 2026-12-31: SHOP-7"' in text


def test_markdown_begins_with_the_decision_and_stays_within_what_is_left() -> None:
    made = decided([failed()], waivers=[waiver(until="2026-11-22")])

    text = markdown([failed()], today=TODAY, decision=made.words, said=made.said)
    short = markdown([failed()] * 50, today=TODAY, decision=made.words, said=made.said * 80, bytes_most=12_000)

    assert "\n**stop (exit 1)**\n" in text
    assert "is over since 2026-11-22" in text
    assert len(short.encode()) <= 12_000


def test_the_report_says_what_did_not_count() -> None:
    made = decided([failed()], waivers=[waiver()])

    document = report([failed()], made.exit_code, waivers_used=made.waivers_used, quarantined=made.quarantined)

    assert (document.decision, document.waivers_used) == ("go", [NAME])
    assert read_outcomes(render(document), "report.json") == [failed()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema": "luff.dev/report/v2"}', "newer luff"),
        ('{"schema": "cyclonedx"}', "no outcome of luff"),
        ("[]", "no outcome of luff"),
        ('{"schema": "luff.dev/report/v1"}', "not a whole outcome"),
    ],
)
def test_a_baseline_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_outcomes(text, "main.json")

    assert caught.value.next_step
