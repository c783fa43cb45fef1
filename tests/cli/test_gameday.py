"""`luff gameday`, on the shipped game day."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from luff.cli import _run
from luff.shipped import shipped
from luff.store import Store
from luff.store.occurrences import New, Occurrences, Rule, State

GAME_DAYS = str(shipped("experiments") / "gamedays")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NEXT = datetime(2026, 12, 1, 9, tzinfo=UTC)
"""Ten o'clock in Berlin."""


@pytest.fixture
def url(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("LUFF_DEFINITIONS", "LUFF_POLICY", "LUFF_STORE"):
        monkeypatch.delenv(name, raising=False)
    return database


def approve(url: str, *arguments: str, name: str = "bookinfo-monthly", at: datetime = NOW) -> int:
    with time_machine.travel(at, tick=False):
        return _run(["gameday", "approve", name, "--definitions", GAME_DAYS, "--store", url, *arguments])


@pytest.mark.parametrize("at", [(), ("--at", "2026-12-01T10:00"), ("--at", "2026-12-01T09:00+00:00")])
def test_the_shipped_game_day_can_be_approved(
    url: str, at: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert approve(url, *at, "--as", "team-bookinfo") == 0

    with Store.open(url) as store:
        assert list(Occurrences.of(store).approvals("bookinfo-monthly", NEXT)) == ["team-bookinfo"]
        [row] = store.access.audits(limit=2)
    assert (row.action, row.object) == ("gameday.approve", "bookinfo-monthly")
    assert row.note == "2026-12-01T09:00:00+00:00 as team-bookinfo"
    assert "bookinfo-monthly of Tue 2026-12-01 10:00 CET: 1 of 1 approvals" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name", "at", "said"),
    [
        ((), "bookinfo-monthly", NOW, "say --as platform-oncall or --as team-bookinfo"),
        (("--as", "eve"), "bookinfo-monthly", NOW, "'eve' is no approver"),
        (("--as", "team-bookinfo"), "bookinfo-mnthly", NOW, "bookinfo-monthly"),
        (("--as", "team-bookinfo", "--at", "2026-12-02T10:00"), "bookinfo-monthly", NOW, "2026-12-01T10:00:00+01:00"),
        (("--as", "team-bookinfo"), "bookinfo-monthly", NEXT.replace(hour=8, minute=30), "due by 2026-12-01 08:00 UTC"),
        (("--as", "team-bookinfo", "--at", "soon"), "bookinfo-monthly", NOW, "no date or time"),
    ],
)
def test_what_cannot_be_approved_says_what_to_do(
    url: str, arguments: tuple[str, ...], name: str, at: datetime, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert approve(url, *arguments, name=name, at=at) == 2

    assert said in capsys.readouterr().err
    with Store.open(url) as store:
        assert store.access.audits(limit=2) == []


# --- what else people do ------------------------------------------------------------------------------------------


def luff(url: str, *arguments: str) -> int:
    with time_machine.travel(NOW, tick=False):
        return _run(["gameday", *arguments, "--store", url])


def fired(url: str) -> str:
    """Let the shipped game day have fired once, and return the id of that."""
    at = NEXT - timedelta(days=28)
    with Store.open(url) as store:
        occurrences = Occurrences.of(store)
        occurrences.sync({"bookinfo-monthly": Rule("0 10 * * TUE#1", "Europe/Berlin")}, at)
        [mine] = occurrences.settle([New("1" * 16, "bookinfo-monthly", at, at)], who="a", now=at)
        occurrences.end(mine, State.PASSED, who="a", now=at, said="all as expected")
    return mine


def test_a_game_day_is_paused_and_resumed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fired(url)

    paused = luff(url, "pause", "bookinfo-monthly", "--why", "black friday")
    again = luff(url, "pause", "bookinfo-monthly", "--why", "other")
    resumed = luff(url, "resume", "bookinfo-monthly")
    twice = luff(url, "resume", "bookinfo-monthly")

    said = capsys.readouterr().err
    assert (paused, again, resumed, twice) == (0, 2, 0, 2)
    assert "paused already" in said
    assert "2026-11-24 12:00 UTC: black friday" in said
    with Store.open(url) as store:
        assert [row.action for row in store.access.audits(limit=9)] == ["gameday.resume", "gameday.pause"]


def test_a_name_that_no_server_has_is_not_paused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fired(url)

    assert luff(url, "pause", "bookinfo-mnthly", "--why", "x") == 2

    assert "bookinfo-monthly" in capsys.readouterr().err


@pytest.mark.parametrize("at", [(), ("--at", "2026-11-03T10:00"), ("--at", "2026-11-03T09:00Z")])
def test_what_is_said_of_an_occurrence_is_in_history_until_it_is_finished(
    url: str, at: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    fired(url)

    done = [
        luff(url, "note", "bookinfo-monthly", "the cache is cold", *at),
        luff(url, "finding", "bookinfo-monthly", "no timeout", *at),
        luff(url, "finish", "bookinfo-monthly", *at),
        luff(url, "note", "bookinfo-monthly", "late", *at),
    ]
    _run(["schedule", "history", "--store", url, "-o", "json"])
    [row] = json.loads(capsys.readouterr().out)["occurrences"]
    _run(["schedule", "history", "--store", url])
    text = capsys.readouterr().out

    assert done == [0, 0, 0, 2]
    assert [(each["kind"], each["said"]) for each in row["remarks"]] == [
        ("note", "the cache is cold"),
        ("finding", "no timeout"),
    ]
    assert row["finished_by"] == row["remarks"][0]["who"]
    assert ": no timeout" in text
    assert "finished by" in text


def test_of_what_has_not_fired_nothing_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fired(url)

    assert luff(url, "note", "bookinfo-monthly", "x", "--at", "2026-11-04T10:00") == 2

    assert "no occurrence of 'bookinfo-monthly' has fired at 2026-11-04T10:00" in capsys.readouterr().err


def test_who_approves_a_game_day_can_begin_it_by_hand(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused = luff(url, "start", "bookinfo-monthly", "--definitions", GAME_DAYS, "--as", "eve")
    begun = luff(url, "start", "bookinfo-monthly", "--definitions", GAME_DAYS, "--as", "team-bookinfo")

    assert (refused, begun) == (2, 0)
    assert "'eve' is no approver" in capsys.readouterr().err
    with Store.open(url) as store:
        [row] = Occurrences.of(store).between()
        [audit] = store.access.audits(limit=9)
    assert (row.scheduled_for, row.state, row.started_by) == (NOW, State.CLAIMED, "team-bookinfo")
    assert (audit.action, audit.object, audit.note) == ("gameday.start", "bookinfo-monthly", row.id)
