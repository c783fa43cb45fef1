"""What people do on game days is written down with who did it, and what is finished stays as it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from luff.errors import UsageError
from luff.store import Store
from luff.store.access import Actor
from luff.store.diary import Diary, RemarkKind
from luff.store.occurrences import New, Occurrences, Rule, State

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ANN = Actor("ann", "operator", "127.0.0.1")
ID = f"{1:016x}"


@pytest.fixture
def occurrences(store: Store) -> Occurrences:
    made = Occurrences.of(store)
    made.sync({"daily": Rule("0 12 * * *", "UTC")}, NOON - timedelta(days=1))
    made.settle([New(ID, "daily", NOON, NOON)], who="a", now=NOON)
    return made


@pytest.fixture
def diary(store: Store, occurrences: Occurrences) -> Diary:
    return Diary.of(store)


def audited(store: Store) -> list[tuple[str, str, str, str | None]]:
    return [(row.actor, row.action, row.object, row.note) for row in store.access.audits(limit=10)]


def test_a_pause_lasts_until_it_is_resumed(store: Store, diary: Diary) -> None:
    diary.pause("daily", "black friday", actor=ANN, now=NOON)
    during = diary.pauses()
    diary.resume("daily", actor=ANN, now=NOON)

    assert during["daily"].said == "ann paused it at 2026-11-23 12:00 UTC: black friday"
    assert diary.pauses() == {}
    assert [row[:3] for row in audited(store)] == [
        ("ann", "gameday.resume", "daily"),
        ("ann", "gameday.pause", "daily"),
    ]


def test_a_second_pause_does_not_hide_the_first_and_there_is_one_to_resume(store: Store, diary: Diary) -> None:
    diary.pause("daily", "black friday", actor=ANN, now=NOON)

    with pytest.raises(UsageError, match="paused already: ann paused it"):
        diary.pause("daily", "other", actor=Actor("eve"), now=NOON)
    with pytest.raises(UsageError, match="weekly is not paused"):
        diary.resume("weekly", actor=ANN, now=NOON)
    with pytest.raises(UsageError, match="say why"):
        diary.pause("weekly", " ", actor=ANN, now=NOON)

    assert len(audited(store)) == 1


def test_what_is_said_is_kept_in_order_with_who_said_it(store: Store, diary: Diary) -> None:
    diary.remark(ID, RemarkKind.NOTE, "the cache is cold", actor=ANN, now=NOON)
    diary.remark(ID, RemarkKind.FINDING, " no timeout\n", actor=Actor("bob"), now=NOON)

    said = diary.remarks([ID, "0" * 16])

    assert [(each.kind, each.who, each.said) for each in said[ID]] == [
        ("note", "ann", "the cache is cold"),
        ("finding", "bob", "no timeout"),
    ]
    assert list(said) == [ID]
    assert audited(store) == [
        ("bob", "occurrence.finding", ID, "no timeout"),
        ("ann", "occurrence.note", ID, "the cache is cold"),
    ]


def test_only_what_is_over_is_finished_once_and_nothing_is_added_after(
    store: Store, occurrences: Occurrences, diary: Diary
) -> None:
    with pytest.raises(UsageError, match="not over: it is claimed"):
        diary.finish(ID, actor=ANN, now=NOON)
    occurrences.end(ID, State.PASSED, who="a", now=NOON)

    diary.finish(ID, actor=ANN, now=NOON)

    for again in (
        lambda: diary.finish(ID, actor=ANN, now=NOON),
        lambda: diary.remark(ID, RemarkKind.NOTE, "late", actor=ANN, now=NOON),
    ):
        with pytest.raises(UsageError, match="was finished by ann at 2026-11-23 12:00 UTC"):
            again()
    found = occurrences.get(ID)
    assert found is not None
    assert (found.finished_by, found.finished_at) == ("ann", NOON)
    assert audited(store) == [("ann", "occurrence.finish", ID, "daily")]


def test_nothing_is_said_of_what_has_not_fired(store: Store, diary: Diary) -> None:
    with pytest.raises(UsageError, match=r"no occurrence .f+. has fired"):
        diary.remark("f" * 16, RemarkKind.NOTE, "early", actor=ANN, now=NOON)

    assert audited(store) == []


def test_what_is_begun_by_hand_is_held_by_whoever_looks_next(store: Store, occurrences: Occurrences) -> None:
    at = NOON + timedelta(seconds=1)
    occurrences.start(New("2" * 16, "daily", at, at, started_by="ann"), actor=ANN, now=at)

    [taken] = occurrences.reap(who="b", now=at)

    assert (taken.id, taken.started_by, taken.state) == ("2" * 16, "ann", State.CLAIMED)
    assert occurrences.begin(taken.id, who="b", now=at, alone=True) is None
    assert audited(store) == [("ann", "gameday.start", "daily", "2" * 16)]
