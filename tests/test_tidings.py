"""When people are told of game days: over real SQLite, with a clock that is set, by two servers on one database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from luff.gameday import due_at
from luff.gameday_files import GameDays
from luff.notify import Channel, Notifier, Shape
from luff.parse import parse_documents
from luff.store import Store
from luff.store.access import Actor
from luff.store.diary import Diary
from luff.store.occurrences import New, Occurrences, Rule
from luff.testing import SetClock
from luff.tidings import LOOKED_AHEAD_MOST, GameDayTidings
from tests.notify.conftest import receiving

DOCUMENTS = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: late, namespace: shop}
spec: {target: {host: details}, fault: {delay: 1s}, traffic: "GET http://shop/"}
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {name: core}
spec: {experiments: [late]}
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {name: monthly}
spec:
  schedule: {cron: "0 10 * * TUE#1", timeZone: UTC, window: 2h}
  suites: [core]
  people: {owner: team-shop}
  announce: {before: [7d, 10m], to: [slack-shop]}
"""
DUE = datetime(2027, 3, 2, 10, tzinfo=UTC)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def told_at(
    store: Store, *moments: datetime, servers: int = 1, documents: str = DOCUMENTS
) -> dict[str, list[dict[str, Any]]]:
    """Let *servers* look at each of *moments*, and return what each channel was told."""

    async def whole() -> dict[str, list[dict[str, Any]]]:
        clock = SetClock(DUE)
        read = parse_documents([("days.yaml", documents)])
        game_days = GameDays([], lambda: read, channels=["slack-shop"])
        game_days.load(moments[0])
        async with receiving() as shop, receiving() as others:
            secret = "a secret of enough length"
            channels = [
                Channel("slack-shop", Shape.JSON, shop.url, secret, frozenset()),
                Channel("others", Shape.JSON, others.url, secret),
            ]
            untold: list[object] = []
            for _ in range(servers):
                notifier = Notifier(channels, untold=untold.append)
                tidings = GameDayTidings(store, notifier, game_days, clock)
                for clock.at in moments:
                    await tidings.look()
                await notifier.close(within_s=30)
            assert untold == []
            return {
                name: [json.loads(each.body) for each in receiver.got]
                for name, receiver in (("slack-shop", shop), ("others", others))
            }

    return asyncio.run(whole())


def before(**how: float) -> datetime:
    return DUE - timedelta(**how)


def test_a_game_day_ahead_is_told_at_each_mark_once_to_whom_it_names(store: Store) -> None:
    moments = [before(days=8), before(days=7), before(days=6), before(minutes=10), before(minutes=9), DUE]

    told = told_at(store, *moments, servers=2)

    assert [each["text"] for each in told["slack-shop"]] == [
        "Game day monthly begins in 7 days, at 2027-03-02 10:00 UTC. Owner: team-shop.",
        "Game day monthly begins in 10 minutes, at 2027-03-02 10:00 UTC. Owner: team-shop.",
    ]
    assert told["others"] == []
    assert len({each["id"] for each in told["slack-shop"]}) == 2


def test_who_comes_late_tells_only_the_nearest_mark(store: Store) -> None:
    told = told_at(store, before(minutes=5))

    assert [each["text"].split(",")[0] for each in told["slack-shop"]] == ["Game day monthly begins in 5 minutes"]


def test_with_a_jitter_the_marks_go_by_when_it_begins(store: Store) -> None:
    documents = DOCUMENTS.replace("window: 2h", "window: 2h, jitter: 2h")
    [game_day] = parse_documents([("days.yaml", documents)]).game_days
    due = due_at(game_day, DUE)
    assert due - DUE > timedelta(minutes=11)

    told = told_at(store, *(due - timedelta(minutes=left) for left in (11, 10, 9, 0)), documents=documents)

    assert [each["text"].partition(",")[0] for each in told["slack-shop"]] == [
        "Game day monthly begins in 11 minutes",
        "Game day monthly begins in 10 minutes",
    ]


def test_one_that_is_paused_is_told_with_why(store: Store) -> None:
    Diary.of(store).pause("monthly", "black friday", actor=Actor("ann"), now=before(days=9))

    told = told_at(store, before(minutes=5))

    assert "ann paused it at 2027-02-21 10:00 UTC: black friday" in told["slack-shop"][0]["text"]


def missed(store: Store, name: str, *, at: datetime, count: int = 1) -> None:
    occurrences = Occurrences.of(store)
    occurrences.sync({name: Rule("0 10 * * *", "UTC")}, before(days=40))
    days = [DUE - timedelta(days=day) for day in reversed(range(count))]
    occurrences.settle(
        [New(f"{name}-{day:%d}", name, day, day, "missed", "nobody was there") for day in days], who="x", now=at
    )


def test_what_was_not_held_is_told_once_and_many_of_one_game_day_in_one_line(store: Store) -> None:
    missed(store, "monthly", at=DUE, count=3)

    told = told_at(store, DUE + timedelta(minutes=1), DUE + timedelta(minutes=2), servers=2)

    (only,) = told["slack-shop"]
    assert only["text"] == (
        "Game day monthly of 2027-03-02 10:00 UTC was not held: nobody was there (2 before it were not held either)"
    )
    assert (only["event"], only["state"], only["reason"]) == ("occurrence", "skipped", "missed")
    assert told["others"] == []


def test_a_game_day_that_names_nobody_is_told_to_who_wants_it(store: Store) -> None:
    missed(store, "nobodys", at=DUE)

    told = told_at(store, DUE + timedelta(minutes=1))

    assert [each["game_day"] for each in told["others"]] == ["nobodys"]
    assert told["slack-shop"] == []


def test_what_ended_long_ago_is_no_news(store: Store) -> None:
    missed(store, "nobodys", at=before(hours=1))

    assert told_at(store, DUE)["others"] == []


def test_of_a_game_day_of_every_minute_only_the_nearest_are_looked_at(tmp_path: Path, store: Store) -> None:
    text = DOCUMENTS.replace("0 10 * * TUE#1", "* * * * *")
    game_days = GameDays([], lambda: parse_documents([("days.yaml", text)]), channels=["slack-shop"])
    game_days.load(DUE)

    asyncio.run(GameDayTidings(store, Notifier([], untold=print), game_days, SetClock(DUE)).look())

    with sqlite3.connect(tmp_path / "luff.db") as database:
        told = [row[0] for row in database.execute("SELECT scheduled_for FROM telling ORDER BY scheduled_for")]
    assert len(told) == LOOKED_AHEAD_MOST
    assert told[-1] == str(DUE + timedelta(minutes=LOOKED_AHEAD_MOST))[:-6] + ".000000"
