"""Outcomes go in whole and come back the same; lists page; ids may be shortened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luff.errors import OutcomeRefused, StoreError, UsageError
from luff.lifecycle import Phase
from luff.model import Verdict
from luff.outcome import Context, Edge, MeshIdentity, Outcome
from luff.store import Beginning, Role, RunFilter, Store
from luff.store.access import Actor
from tests.factories import EVERY_VERDICT, LAB, check, failed, outcome, passed, run_id, samples

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(minutes: float) -> str:
    return (NOON + timedelta(minutes=minutes)).isoformat()


@pytest.mark.parametrize("make", EVERY_VERDICT, ids=lambda make: make.__name__)
def test_an_outcome_comes_back_as_it_went_in(store: Store, make: Any) -> None:
    store.record(make())

    assert store.outcome(make().run) == make()


def test_an_outcome_that_was_kept_with_half_characters_can_be_read(store: Store) -> None:
    store.record(passed().model_copy(update={"explanation": "caf\udce9/x.yaml is slow"}))

    assert store.outcome(passed().run).explanation == "caf\ufffd/x.yaml is slow"


def test_the_row_says_what_the_outcome_says(store: Store) -> None:
    store.record(failed())

    row = store.run(failed().run)

    assert (row.verdict, row.phase, row.experiment) == (Verdict.FAILED, Phase.CLEAN, failed().experiment)
    assert (row.caller, row.dependency, row.fault) == ("reviews", "ratings", "delay")
    assert (row.namespace, row.mesh, row.labels) == ("bookinfo", LAB, failed().labels)
    assert row.context == failed().context.model_copy(update={"trace_id": None}), "nothing is searched by its trace"
    assert row.started_at == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert row.ended_at is not None
    assert (row.ended_at - row.started_at).total_seconds() == 74.8


HOSTILE = [
    "☃ żółć 𝄞 \u202e",
    "caf\udce9/x.yaml",
    "a\x00b",
    "\x1b[31m\x07",
    "'; DROP TABLE run; --",
    "%_\\",
    "x" * 100_000,
    "",
]


@pytest.mark.parametrize(
    "text", HOSTILE, ids=["unicode", "half", "nul", "escape", "quotes", "wildcards", "huge", "empty"]
)
def test_no_text_is_too_strange(store: Store, text: str) -> None:
    strange = outcome(
        experiment=text,
        actor=text,
        explanation=text,
        labels={text: text},
        reason=text,
        subject=text,
        edge=Edge(caller=text, dependency=text),
        context=Context(commit=text, branch=text, ci_url=text, image=text, revision=text),
        mesh=MeshIdentity(kind="cluster", name=text, uid=text),
        checks=[check(id=text, expression=text, explanation=text, unit=text, reason=text, kind=text)],
        spec={"spec": {"hypothesis": text, "target": {"namespace": text}}},
    )

    store.record(strange)

    assert store.outcome(strange.run) == strange
    assert [row.run for row in store.runs(RunFilter(experiment=text))] == [strange.run]
    assert store.trend(store.standings()[0].series)[0].checks[0].n == strange.checks[0].n
    assert len(store.coverage()) == 1


def test_a_number_that_no_database_holds_is_refused_and_nothing_is_written(store: Store) -> None:
    with pytest.raises(StoreError):
        store.record(outcome(seed=2**70))

    assert store.runs() == []


def test_a_time_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=r"'yesterday' where a time in ISO 8601"):
        store.record(outcome(started_at="yesterday"))


def test_what_json_cannot_hold_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        store.record(passed().model_copy(update={"spec": {"limit": object()}}))


def test_the_same_outcome_may_be_recorded_twice(store: Store) -> None:
    store.record(passed(), samples())

    store.record(passed(), samples())

    assert len(store.runs()) == 1


def test_another_outcome_for_the_same_run_is_refused(store: Store) -> None:
    store.record(passed())

    with pytest.raises(OutcomeRefused, match="has another outcome already"):
        store.record(passed(explanation="rewritten"))

    assert store.outcome(passed().run) == passed()


def test_a_run_that_was_begun_becomes_its_outcome(store: Store) -> None:
    store.begin(Beginning(passed().run, "to-be-replaced", "ada", LAB, NOON, labels={"a": "b"}))

    store.record(passed())

    assert store.run(passed().run).experiment == passed().experiment
    assert store.outcome(passed().run) == passed()


def test_a_run_without_an_outcome_is_listed_and_says_so(store: Store) -> None:
    store.begin(Beginning("ab" * 8, "killed", "ada", LAB, NOON, edge=Edge(caller="a", dependency="b"), fault="abort"))

    (row,) = store.runs()

    assert (row.run, row.verdict, row.phase, row.ended_at) == ("ab" * 8, None, Phase.PLANNED, None)
    with pytest.raises(StoreError, match="has no outcome"):
        store.outcome("ab" * 8)


def test_the_beginning_of_an_id_is_enough_when_it_is_unique(store: Store) -> None:
    store.record(outcome(run="abcd" + "0" * 12))
    store.record(outcome(run="abce" + "0" * 12))

    assert store.outcome("abcd").run == "abcd" + "0" * 12
    assert store.run("abce0").run == "abce" + "0" * 12


def test_an_ambiguous_beginning_names_what_it_could_mean(store: Store) -> None:
    for digit in range(8):
        store.record(outcome(run=f"abc{digit}" + "0" * 12))

    with pytest.raises(StoreError, match=r"'abc' is the beginning of several runs: .*abc7.* and more; write more"):
        store.outcome("abc")


@pytest.mark.parametrize("run", ["ffff", "", "%", "_" * 16, "'", "\x00", "x" * 1000])
def test_a_run_that_is_not_there_is_said_to_be_missing(store: Store, run: str) -> None:
    store.record(passed())

    with pytest.raises(StoreError, match="there is no run"):
        store.outcome(run)


def test_runs_are_listed_newest_first_page_by_page(store: Store) -> None:
    # Five of them share a time: a page must neither repeat nor skip one.
    made = [outcome(run=run_id(number), started_at=at(max(0, number - 4)), ended_at=at(99)) for number in range(12)]
    for each in made:
        store.record(each)

    first = store.runs(limit=5)
    second = store.runs(limit=5, before=first[-1].run)
    third = store.runs(limit=5, before=second[-1].run)

    listed = [row.run for row in (*first, *second, *third)]
    assert listed == [each.run for each in sorted(made, key=lambda o: (o.started_at, o.run), reverse=True)]
    assert store.runs(limit=5, before=third[-1].run) == []


def labelled() -> list[Outcome]:
    cluster = MeshIdentity(kind="cluster", name="prod")
    return [
        outcome(run=run_id(1), labels={"team": "books"}, started_at=at(1), ended_at=at(2)),
        outcome(run=run_id(2), labels={"team": "books", "luff.dev/tier": "1"}, mesh=cluster, started_at=at(2), ended_at=at(3)),
        failed(run=run_id(3), labels={}, context=Context(commit="c0ffee", branch="main"), started_at=at(3), ended_at=at(4)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (RunFilter(), {1, 2, 3}),
        (RunFilter(verdict="failed"), {3}),
        (RunFilter(verdict=Verdict.PASSED), {1, 2}),
        (RunFilter(experiment="productpage-survives-slow-ratings"), {3}),
        (RunFilter(mesh=MeshIdentity(kind="cluster", name="prod")), {2}),
        (RunFilter(mesh=MeshIdentity(kind="cluster", name="staging")), set()),
        (RunFilter(mesh=MeshIdentity(kind="lab", name="one of another name")), {1, 3}),
        (RunFilter(labels={"team": "books"}), {1, 2}),
        (RunFilter(labels={"team": "books", "luff.dev/tier": "1"}), {2}),
        (RunFilter(labels={"team": "cooks"}), set()),
        (RunFilter(commit="c0ffee", branch="main"), {3}),
        (RunFilter(phases=(Phase.STRANDED,)), set()),
        (RunFilter(since=NOON + timedelta(minutes=2)), {2, 3}),
        (RunFilter(until=NOON + timedelta(minutes=2)), {1}),
        (RunFilter(subject="productpage", dependency="ratings", namespace="bookinfo"), {3}),
    ],
    ids=str,
)
def test_a_list_can_be_narrowed(store: Store, where: RunFilter, expected: set[int]) -> None:
    for each in labelled():
        store.record(each)

    assert {row.run for row in store.runs(where)} == {run_id(number) for number in expected}


def test_samples_come_back_as_they_went_in(store: Store) -> None:
    made = samples(seconds=5)
    store.record(passed(), made)

    back = store.samples(passed().run[:6])

    assert back is not None
    assert vars(back) == vars(made)


def test_a_run_without_samples_has_none(store: Store) -> None:
    store.record(passed())

    assert store.samples(passed().run) is None


def test_the_newest_that_has_ended_is_found_behind_any_number_that_have_not(store: Store) -> None:
    store.record(passed())
    ended = store.run(passed().run)
    for number in range(30):
        at = ended.started_at + timedelta(minutes=1 + number)
        store.begin(Beginning(run_id(number), ended.experiment, "ada", ended.mesh, at))

    newest = store.runs(RunFilter(experiment=ended.experiment, ended=True), limit=1)

    assert [row.run for row in newest] == [ended.run]


ADA = Actor("ada", Role.OPERATOR)


def test_outcomes_of_another_machine_come_with_the_audit_or_not_at_all(store: Store) -> None:
    with pytest.raises(UsageError):
        store.bring([passed(), failed(started_at="soon")], actor=ADA)
    none = store.runs(), store.access.audits(limit=10)

    first = store.bring([passed(), failed()], actor=ADA)
    again = store.bring([passed(), failed()], actor=ADA)

    assert none == ([], [])
    assert (first, again) == ([passed(), failed()], [])
    assert [row.object for row in store.access.audits(limit=10)] == [failed().run, passed().run]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2**70},
        {"seed": -(2**63) - 1},
        {"started_at": "9999-12-31T23:59:59-12:00"},
        {"ended_at": "0001-01-01T00:00:00+12:00"},
        {"checks": [check().model_copy(update={"n": 2**70})]},
    ],
    ids=str,
)
def test_what_no_database_can_keep_is_refused_as_such(store: Store, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=passed().run):
        store.bring([passed().model_copy(update=changes)])

    assert store.runs() == []
