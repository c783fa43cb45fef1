"""`luff schedule`: in words, with what is skipped and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine

from luff.cli import _run
from luff.shipped import shipped
from luff.store import Store
from luff.store.occurrences import New, Occurrences, Rule

GAME_DAYS = str(shipped("experiments") / "gamedays")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HEAD = "apiVersion: luff.dev/v1alpha1\n"


@pytest.fixture(autouse=True)
def _in_november(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LUFF_DEFINITIONS", "LUFF_POLICY", "LUFF_STORE"):
        monkeypatch.delenv(name, raising=False)


def luff(*arguments: str, at: datetime = NOW) -> int:
    with time_machine.travel(at, tick=False):
        return _run(["schedule", *arguments])


def test_the_shipped_game_day_is_listed_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert luff("list", "--definitions", GAME_DAYS) == 0

    said = capsys.readouterr().out
    assert "bookinfo-monthly: At 10:00 on the first Tuesday of the month (Europe/Berlin)" in said
    assert "holds bookinfo-core (2 experiments)" in said
    assert "1 approval(s) by 1h00m before" in said
    assert "next: Tue 2026-12-01 10:00 CET" in said


def test_what_is_skipped_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert luff("simulate", "--definitions", GAME_DAYS, "--from", "2026-12-01", "--to", "2027-03-01") == 0

    said = capsys.readouterr()
    assert "Tue 2027-01-05 10:00 CET skipped: 'Year-end freeze' in freeze.ics lasts until 2027-01-07" in said.out
    assert said.err == "3 firings, 1 skipped\n"


def test_next_looks_as_far_as_it_has_to_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert luff("next", "--definitions", GAME_DAYS, "--limit", "14", "-o", "json") == 0

    found = json.loads(capsys.readouterr().out)["occurrences"]
    assert [each["scheduled_for"][:10] for each in found][:2] == ["2026-12-01", "2027-01-05"]
    assert [each["skipped"] and each["skipped"]["reason"] for each in found][:2] == [None, "blackout"]
    assert len(found) == 14


def test_a_list_is_json_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert luff("list", "--definitions", GAME_DAYS, "-o", "json") == 0

    [found] = json.loads(capsys.readouterr().out)["game_days"]
    assert found["experiments"] == ["details-answers-late-delay-500ms", "details-answers-late-delay-1s"]
    assert found["next"]["skipped"] is None


def test_a_policys_hours_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text(
        f"{HEAD}kind: Policy\nmetadata: {{name: p}}\nspec: {{hours: '12:00-13:00 Europe/Berlin'}}\n"
    )

    assert luff("next", "--definitions", GAME_DAYS, "--policy", str(tmp_path / "policy.yaml")) == 2

    said = capsys.readouterr().err
    assert "could be held: it is outside the hours that the policy allows (12:00-13:00 Europe/Berlin)" in said


@pytest.mark.parametrize(
    ("spec", "place", "said"),
    [
        ('{schedule: {cron: "0 0 30 2 *"}, suites: [core]}', "3:25", "is no cron expression"),
        ('{schedule: {cron: "0 0 * * *", timeZone: Nowhere/City}, suites: [core]}', "3:48", "no time zone"),
        ('{schedule: {cron: "0 0 * * *", window: 0s}, suites: [core]}', "3:46", "excludes every firing"),
        ('{schedule: {cron: "0 0 * * *"}, suites: [core]}', "3:48", "no suite named 'core'"),
        ('{schedule: {cron: "0 0 * * *"}, suites: [core], skipWhen: [{ics: no.ics}]}', "3:72", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str, place: str, said: str
) -> None:
    file = tmp_path / "day.yaml"
    file.write_text(f"{HEAD}kind: GameDay\nspec: {spec}\nmetadata: {{name: d}}\n")

    assert luff("list", "--definitions", str(tmp_path)) == 2

    errors = capsys.readouterr().err
    assert f"{file}:{place}: " in errors
    assert said in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "tomorrow"],
        ["--from", "2026-12-02", "--to", "2026-12-01"],
        ["--from", "2026-12-02", "--to", "2999-12-01"],
        ["--from", "9999-12-20"],
        ["--from", "0001-01-01"],
    ],
)
def test_a_span_that_is_none_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert luff("simulate", "--definitions", GAME_DAYS, *arguments) == 2
    assert capsys.readouterr().err.startswith("luff: ")


def test_a_folder_without_game_days_is_nothing_selected(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"{HEAD}kind: Policy\nmetadata: {{name: p}}\nspec: {{}}\n")

    assert luff("list", "--definitions", str(tmp_path)) == 6


def test_history_says_why_what_was_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'luff.db'}"
    with Store.open(url) as store:
        kept = Occurrences.of(store)
        kept.sync({"daily": Rule("0 12 * * *", "UTC")}, NOW)
        kept.settle([New("a", "daily", NOW, NOW, "missed", "nobody was there")], who="a", now=NOW)

    assert luff("history", "--store", url) == 0
    assert luff("history", "--store", url, "-o", "json") == 0

    said = capsys.readouterr().out
    assert said.startswith("2026-11-24 12:00 UTC  daily  skipped: nobody was there\n")
    assert '"reason": "missed"' in said
