"""Claims: one firing is one row, whoever is first, and what did not run says why."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from luff.store import Store
from luff.store.occurrences import LEASE_S, Known, New, Occurrences, Rule, State

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAILY = Rule("0 12 * * *", "UTC")
SECOND = timedelta(seconds=1)


@pytest.fixture
def occurrences(store: Store) -> Occurrences:
    made = Occurrences.of(store)
    made.sync({"daily": DAILY}, NOON - timedelta(days=1))
    return made


def firing(day: int = 0, reason: str | None = None) -> New:
    at = NOON + timedelta(days=day)
    return New(f"{day:016x}", "daily", at, at, reason, None if reason is None else "because")


def claimed(occurrences: Occurrences, day: int = 0, who: str = "a") -> str:
    [mine] = occurrences.settle([firing(day)], who=who, now=NOON)
    return mine


def test_who_comes_second_gets_nothing(occurrences: Occurrences) -> None:
    first = occurrences.settle([firing()], who="a", now=NOON)
    second = occurrences.settle([firing()], who="b", now=NOON)

    assert (first, second) == ([firing().id], [])
    assert [each.who for each in occurrences.between()] == ["a"]


def test_many_threads_claim_each_firing_once(url: str) -> None:
    """Each has connections of its own, as processes have."""
    with Store.open(url) as store:
        Occurrences.of(store).sync({"daily": DAILY}, NOON)
    ready = threading.Barrier(4)

    def claim(who: str) -> list[str]:
        with Store.open(url) as store:
            ready.wait()
            return [
                mine for day in range(20) for mine in Occurrences.of(store).settle([firing(day)], who=who, now=NOON)
            ]

    with ThreadPoolExecutor(4) as pool:
        won = [each for claims in pool.map(claim, "abcd") for each in claims]

    assert sorted(won) == [firing(day).id for day in range(20)]


def test_what_is_skipped_has_a_reason_and_is_nobodys(occurrences: Occurrences) -> None:
    assert occurrences.settle([firing(reason="missed")], who="a", now=NOON) == []

    [row] = occurrences.between()
    assert (row.state, row.reason, row.said) == (State.SKIPPED, "missed", "because")


def test_a_new_schedule_is_settled_until_now_and_then_until_its_last_firing(occurrences: Occurrences) -> None:
    later = NOON + timedelta(days=9)

    assert occurrences.sync({"daily": DAILY}, later) == {"daily": Known(NOON - timedelta(days=1))}
    claimed(occurrences, 3)
    assert occurrences.sync({"daily": DAILY}, later) == {"daily": Known(NOON + timedelta(days=3))}


def test_another_rule_starts_anew_and_the_former_one_is_told(occurrences: Occurrences) -> None:
    other = Rule("0 13 * * *", "UTC")

    known = occurrences.sync({"daily": other}, NOON)

    assert known == {"daily": Known(NOON, (DAILY, NOON - timedelta(days=1)))}
    assert occurrences.sync({"daily": other}, NOON + SECOND) == {"daily": Known(NOON)}


def test_nothing_is_held_against_a_schedule_that_was_away(occurrences: Occurrences) -> None:
    occurrences.sync({}, NOON)

    assert occurrences.sync({"daily": DAILY}, NOON + timedelta(days=7)) == {"daily": Known(NOON + timedelta(days=7))}


def test_only_the_claimant_begins_and_not_what_is_over(occurrences: Occurrences) -> None:
    mine = claimed(occurrences)

    assert occurrences.begin(mine, who="b", now=NOON, alone=True) == "taken"
    assert occurrences.begin(mine, who="a", now=NOON, alone=True) is None
    assert occurrences.begin(mine, who="b", now=NOON, alone=True) == "taken"
    occurrences.end(mine, State.PASSED, who="a", now=NOON)
    assert occurrences.begin(mine, who="a", now=NOON, alone=True) == "taken"


def test_who_did_not_hear_that_it_began_may_ask_again(occurrences: Occurrences) -> None:
    mine = claimed(occurrences)
    occurrences.begin(mine, who="a", now=NOON, alone=True)

    answer = occurrences.begin(mine, who="a", now=NOON + SECOND, alone=True)

    row = occurrences.get(mine)
    assert row is not None
    assert (answer, row.state, row.began_at) == (None, State.RUNNING, NOON)


@pytest.mark.parametrize(("alone", "answer"), [(True, "overlap"), (False, None)])
def test_overlap_is_seen_across_replicas(occurrences: Occurrences, alone: bool, answer: str | None) -> None:
    occurrences.begin(claimed(occurrences, 0, "a"), who="a", now=NOON, alone=True)

    assert occurrences.begin(claimed(occurrences, 1, "b"), who="b", now=NOON + SECOND, alone=alone) == answer


def test_a_dead_replicas_run_is_lost_and_its_claim_is_taken_over(occurrences: Occurrences) -> None:
    running, waiting = claimed(occurrences, 0), claimed(occurrences, 1)
    occurrences.begin(running, who="a", now=NOON, alone=True)
    gone = NOON + timedelta(seconds=LEASE_S + 1)

    assert occurrences.reap(who="b", now=NOON + SECOND) == []
    taken = occurrences.reap(who="b", now=gone)

    assert [(each.id, each.who) for each in taken] == [(waiting, "b")]
    lost = occurrences.get(running)
    assert lost is not None
    assert (lost.state, lost.reason) == (State.LOST, "server_died")
    assert occurrences.begin(waiting, who="a", now=gone, alone=True) == "taken"


def test_a_claim_that_is_renewed_is_nobody_elses(occurrences: Occurrences) -> None:
    mine = claimed(occurrences)
    later = NOON + timedelta(seconds=LEASE_S - 1)

    occurrences.renew([mine], who="a", now=later)

    assert occurrences.reap(who="b", now=later + 2 * SECOND) == []


def test_an_end_is_written_once_by_who_had_it(occurrences: Occurrences) -> None:
    mine = claimed(occurrences)
    occurrences.begin(mine, who="a", now=NOON, alone=True)

    assert not occurrences.end(mine, State.PASSED, who="b", now=NOON)
    assert occurrences.end(mine, State.PASSED, who="a", now=NOON + SECOND, runs=["r1"])
    assert not occurrences.end(mine, State.FAILED, who="a", now=NOON + SECOND)
    row = occurrences.get(mine)
    assert row is not None
    assert (row.state, row.runs, row.ended_at) == (State.PASSED, ("r1",), NOON + SECOND)
    assert occurrences.counts() == {("daily", State.PASSED): 1}


def test_agreeing_twice_is_agreeing_once(occurrences: Occurrences) -> None:
    for at in (NOON, NOON + SECOND):
        occurrences.approve("daily", NOON, who="ann", now=at)

    assert occurrences.approvals("daily", NOON) == {"ann": NOON}
    assert occurrences.approvals("daily", NOON + SECOND) == {}


def test_a_list_is_newest_first_and_bounded(occurrences: Occurrences) -> None:
    occurrences.settle([firing(day) for day in range(5)], who="a", now=NOON)

    listed = occurrences.between(NOON + timedelta(days=1), NOON + timedelta(days=3), limit=2)

    assert [each.scheduled_for for each in listed] == [NOON + timedelta(days=3), NOON + timedelta(days=2)]


def test_ten_thousand_firings_are_one_claim(occurrences: Occurrences) -> None:
    many = [New(f"{n:016x}", f"s{n}", NOON, NOON) for n in range(10_000)]

    assert len(occurrences.settle(many, who="a", now=NOON)) == 10_000
