"""`luff gameday approve`, on the shipped game day."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine

from luff.cli import _run
from luff.shipped import shipped
from luff.store import Store
from luff.store.occurrences import Occurrences

GAME_DAYS = str(shipped("experiments") / "gamedays")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NEXT = datetime(2026, 12, 1, 9, tzinfo=UTC)
"""Ten o'clock in Berlin."""


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("LUFF_DEFINITIONS", "LUFF_POLICY", "LUFF_STORE"):
        monkeypatch.delenv(name, raising=False)
    return f"sqlite:///{tmp_path / 'luff.db'}"


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
