"""The rules of the calendar: firings through changes of clocks, blackouts, hours, and what could never be held."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.blackouts import Blackout, parse_ics
from luff.errors import InvalidFile, UsageError
from luff.gameday import (
    Known,
    check_game_days,
    due_at,
    firings,
    in_words,
    occurrence_id,
    planned,
    ruled_out,
    suites_under,
)
from luff.model import GameDay, Schedule
from luff.parse import Documents, parse_documents
from luff.policy import Hours, parse_hours
from luff.yaml_nodes import Place

BERLIN = "Europe/Berlin"
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)

EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: late, namespace: shop}
spec:
  target: {host: details}
  fault: {delay: 1s}
  traffic: GET http://shop/
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {name: core}
spec: {experiments: [late]}
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {name: whole}
spec: {experiments: [core]}
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {name: other}
spec: {experiments: [late]}
"""


def documents(schedule: str, more: str = "", suite: str = "core") -> Documents:
    text = f"""\
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {{name: monthly}}
spec:
  schedule: {{{schedule}}}
  suites: [{suite}]
  {more}
"""
    return parse_documents([("a.yaml", EXPERIMENT + text)])


def game_day(schedule: str, more: str = "") -> GameDay:
    return documents(schedule, more).game_days[0]


def local(cron: str, zone: str, after: str, until: str) -> list[str]:
    tz = ZoneInfo(zone)
    found = firings(
        Schedule(cron=cron, time_zone=zone),
        datetime.fromisoformat(after).replace(tzinfo=tz),
        datetime.fromisoformat(until).replace(tzinfo=tz),
    )
    return [each.at.astimezone(tz).isoformat(timespec="minutes") for each in found]


@pytest.mark.parametrize(
    ("cron", "zone", "day", "fired"),
    [
        # 02:00 becomes 03:00 on 28 March 2027, 03:00 becomes 02:00 on 31 October.
        ("30 2 * * *", BERLIN, "2027-03-28", ["2027-03-28T03:00+02:00"]),
        ("30 2 * * *", BERLIN, "2027-10-31", ["2027-10-31T02:30+02:00"]),
        ("*/30 2 * * *", BERLIN, "2027-03-28", ["2027-03-28T03:00+02:00"]),
        ("*/30 2 * * *", BERLIN, "2027-10-31", ["2027-10-31T02:00+02:00", "2027-10-31T02:30+02:00"]),
        ("0 2,3 * * *", BERLIN, "2027-03-28", ["2027-03-28T03:00+02:00"]),
        ("0 2,3 * * *", BERLIN, "2027-10-31", ["2027-10-31T02:00+02:00", "2027-10-31T03:00+01:00"]),
        ("0 10 * * *", BERLIN, "2027-03-28", ["2027-03-28T10:00+02:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2027-10-03", ["2027-10-03T02:30+11:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-04", ["2027-04-04T01:45+11:00"]),
    ],
)
def test_a_day_of_changing_clocks_has_each_firing_once(cron: str, zone: str, day: str, fired: list[str]) -> None:
    assert local(cron, zone, f"{day}T00:00", f"{day}T23:59") == fired


def test_a_day_that_a_zone_left_out_fires_once_after_it() -> None:
    assert local("0 12 29-31 12 *", "Pacific/Apia", "2011-12-29T00:00", "2011-12-31T23:59") == [
        "2011-12-29T12:00-10:00",
        "2011-12-31T00:00+14:00",
        "2011-12-31T12:00+14:00",
    ]


def test_every_hour_follows_elapsed_time() -> None:
    night = list(
        firings(
            Schedule(cron="0 * * * *", time_zone=BERLIN),
            datetime(2027, 10, 30, 22, tzinfo=UTC),
            datetime(2027, 10, 31, 4, tzinfo=UTC),
        )
    )

    assert {later.at - earlier.at for earlier, later in itertools.pairwise(night)} == {timedelta(hours=1)}


@pytest.mark.parametrize(
    ("at", "note"), [("2027-03-27", "left out"), ("2027-10-30", "comes twice"), ("2027-06-01", None)]
)
def test_a_firing_that_was_moved_says_so(at: str, note: str | None) -> None:
    after = datetime.fromisoformat(f"{at}T12:00+00:00")

    firing = next(firings(Schedule(cron="30 2 * * *", time_zone=BERLIN), after))

    assert (firing.note is None) == (note is None)
    assert note is None or note in str(firing.note)


def test_the_first_tuesday_is_one_day_a_month() -> None:
    found = list(firings(Schedule(cron="0 10 * * TUE#1", time_zone=BERLIN), NEW_YEAR, NEW_YEAR.replace(year=2028)))

    assert len(found) == 12
    assert all(each.at.strftime("%a") == "Tue" and each.at.day <= 7 for each in found)


def test_the_end_of_the_calendar_is_the_end_of_the_firings() -> None:
    yearly = Schedule(cron="0 0 1 1 *", time_zone=BERLIN)

    assert len(list(firings(yearly, datetime(9995, 6, 1, tzinfo=UTC)))) == 4


CRONS = st.sampled_from(
    ["30 2 * * *", "*/20 1-3 * * *", "0 * * * *", "15,45 2 * * SUN", "0 0 * * *", "0 10 * * TUE#1", "59 1 28-31 3,10 *"]
)
ZONES = st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana"])
MINUTES = st.integers(0, 366 * 24 * 60)


@given(CRONS, ZONES, MINUTES, st.integers(0, 4000), st.integers(0, 4000))
def test_two_spans_side_by_side_have_the_firings_of_the_whole(
    cron: str, zone: str, start: int, first: int, second: int
) -> None:
    schedule = Schedule(cron=cron, time_zone=zone)
    begin = NEW_YEAR + timedelta(minutes=start)
    middle = begin + timedelta(minutes=first)
    end = middle + timedelta(minutes=second)

    whole = list(firings(schedule, begin, end))

    assert whole == [*firings(schedule, begin, middle), *firings(schedule, middle, end)]
    assert all(earlier.at < later.at for earlier, later in itertools.pairwise(whole))


@given(st.integers(0, 10**9))
def test_jitter_is_the_same_everywhere_and_bounded(second: int) -> None:
    day = game_day('cron: "0 10 * * *", jitter: 10m')
    at = NEW_YEAR + timedelta(seconds=second)

    assert at <= due_at(day, at) == due_at(day, at.astimezone(ZoneInfo(BERLIN))) <= at + timedelta(minutes=10)


def test_jitter_spreads() -> None:
    day = game_day('cron: "0 10 * * *", jitter: 10m')
    ats = [NEW_YEAR + timedelta(days=n) for n in range(100)]

    assert len({due_at(day, at) - at for at in ats}) == len({occurrence_id("monthly", at) for at in ats}) == 100


def test_a_schedule_is_said_in_words() -> None:
    assert in_words(Schedule(cron="0 10 * * TUE#1", time_zone=BERLIN)) == (
        "At 10:00 on the first Tuesday of the month (Europe/Berlin)"
    )


# --- blackouts and hours -----------------------------------------------------------------------------------------


def ics(*lines: str) -> str:
    return "\r\n".join(["BEGIN:VCALENDAR", "BEGIN:VEVENT", *lines, "END:VEVENT", "END:VCALENDAR", ""])


@pytest.mark.parametrize(
    ("lines", "begin", "end"),
    [
        (["DTSTART:20261224T120000Z", "DTEND:20261224T130000Z"], "2026-12-24T12:00+00:00", "2026-12-24T13:00+00:00"),
        (["DTSTART;VALUE=DATE:20261224", "DTEND;VALUE=DATE:20261227"], "2026-12-24T00:00", "2026-12-27T00:00"),
        (["DTSTART;VALUE=DATE:20261224"], "2026-12-24T00:00", "2026-12-25T00:00"),
        (["DTSTART;TZID=Europe/Berlin:20261224T120000", "DURATION:P1DT2H"], "2026-12-24T12:00+01:00", "2026-12-25T14:00+01:00"),
        (['DTSTART;TZID="Europe/Berlin":20261224T1', " 20000", "DURATION:PT1H"], "2026-12-24T12:00+01:00", "2026-12-24T13:00+01:00"),
        (["DTSTART:20261224T120000", "DTEND:20261224T130000", "BEGIN:VALARM", "DURATION:PT9H", "END:VALARM"], "2026-12-24T12:00", "2026-12-24T13:00"),
    ],
)  # fmt: skip
def test_events_are_read(lines: list[str], begin: str, end: str) -> None:
    [event] = parse_ics("a.ics", ics(*lines, "SUMMARY:Freeze\\, all"))

    assert event == Blackout(datetime.fromisoformat(begin), datetime.fromisoformat(end), "Freeze, all")


def test_a_cancelled_event_rules_nothing_out() -> None:
    assert parse_ics("a.ics", ics("STATUS:CANCELLED", "DTSTART:20261224T120000Z", "RRULE:FREQ=DAILY")) == ()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "no iCalendar file"),
        ("name: freeze\n", 1, "no iCalendar file"),
        (ics("DTSTART:20261224T120000Z", "DTEND:20261224T130000Z", "RRULE:FREQ=WEEKLY"), 5, "repeat (RRULE)"),
        (ics("SUMMARY:x"), 2, "no DTSTART"),
        (ics("DTSTART:tomorrow"), 3, "no date or time"),
        (ics("DTSTART:20261399"), 3, "no date or time"),
        (ics("DTSTART;TZID=Nowhere/City:20261224T120000", "DURATION:PT1H"), 3, "no time zone"),
        (ics("DTSTART:20261224T120000Z"), 2, "neither DTEND nor DURATION"),
        (ics("DTSTART:20261224T120000Z", "DTEND:20261223T120000Z"), 2, "ends before it begins"),
        (ics("DTSTART:20261224T120000Z", "DTEND:20261225T120000"), 2, "both have a time zone"),
        (ics("DTSTART:20261224T120000Z", "DURATION:PT"), 4, "no duration"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20261224", 2, "never ends"),
    ],
)
def test_what_is_wrong_with_a_calendar_is_said_at_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_ics("a.ics", text)

    [problem] = caught.value.problems
    assert (problem.file, problem.line) == ("a.ics", line)
    assert said in problem.message


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(ics("DTSTART:20261224", 'X;A=":":').split("\r\n")), max_size=12).map("\n".join)
)
def test_any_text_is_a_calendar_or_invalid(text: str) -> None:
    with contextlib.suppress(InvalidFile):
        parse_ics("a.ics", text)


def test_a_date_is_a_day_in_the_schedules_zone() -> None:
    day = game_day('cron: "0 0 * * *", timeZone: Pacific/Auckland', "skipWhen: [{ics: f.ics}]")
    freeze = {"f.ics": parse_ics("f.ics", ics("DTSTART;VALUE=DATE:20270105", "SUMMARY:Freeze"))}

    held = [each.skipped is None for each in planned(day, NEW_YEAR + timedelta(days=1, hours=12), NEW_YEAR + timedelta(days=4, hours=12), lambda at: ruled_out(day, at, freeze, None))]  # fmt: skip

    assert held == [True, False, True]


@pytest.mark.parametrize(
    ("hours", "at", "inside"),
    [
        ("09:00-17:00 Europe/Berlin", "08:00", True),
        ("09:00-17:00 Europe/Berlin", "16:00", False),
        ("09:00-17:00", "08:59", False),
        ("22:00-06:00", "23:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
    ],
)
def test_hours_rule_out_what_is_outside(hours: str, at: str, inside: bool) -> None:
    instant = datetime.fromisoformat(f"2027-01-05T{at}+00:00")

    why = ruled_out(game_day('cron: "0 10 * * *"'), instant, {}, parse_hours(hours))

    assert (why is None) == inside
    assert why is None or why.code == "outside_hours"


@pytest.mark.parametrize("text", ["", "9-17", "09:00", "09:00-17:00 Nowhere/City", "25:00-26:00"])
def test_what_are_no_hours_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_hours(text)


# --- what could never be held ------------------------------------------------------------------------------------


def known(read: Documents, *, hours: Hours | None = None, freeze: tuple[Blackout, ...] = ()) -> Known:
    return Known(
        {suite.metadata.name for suite in read.suites},
        NEW_YEAR,
        hours,
        blackouts=lambda _: {"f.ics": freeze},
        first=lambda day: next(firings(day.spec.schedule, NEW_YEAR), None),
        experiments=lambda _: (),
        channels=(),
    )


def wrong(read: Documents, **how: Any) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        check_game_days(read.game_days, known(read, **how), place=lambda _, path: Place(".".join(map(str, path)), 1, 1))
    return [f"{each.file}: {each.message}" for each in caught.value.problems]


@pytest.mark.parametrize(
    ("schedule", "place", "said"),
    [
        ('cron: "* 0 10 * * *"', "spec.schedule.cron", "begins at a minute"),
        ('cron: "0 10 * * *", window: 0s', "spec.schedule.window", "excludes every firing"),
        ('cron: "0 10 * * *", window: 5m, jitter: 6m', "spec.schedule.jitter", "longer than the window"),
        ('cron: "0 8 * * *"', "spec.schedule.cron", "none of its next"),
        ('cron: "*/10 * * * *", jitter: 11m', "spec.schedule.jitter", "longer than the 10m00s between two firings"),
        ('cron: "0 10,12 * * TUE", window: 3h, jitter: 150m', "spec.schedule.jitter", "the 2h00m between two firings"),
    ],
)
def test_a_schedule_that_holds_nothing_is_refused(schedule: str, place: str, said: str) -> None:
    [found] = wrong(documents(schedule), hours=parse_hours("09:00-17:00"))

    assert found.startswith(f"{place}: ")
    assert said in found


def test_a_blackout_over_everything_is_refused() -> None:
    for_ever = Blackout(NEW_YEAR, NEW_YEAR.replace(year=2999), "Retired")

    [found] = wrong(documents('cron: "0 8 * * *"', "skipWhen: [{ics: f.ics}]"), freeze=(for_ever,))

    assert "Retired" in found


def test_a_missing_suite_is_refused_with_what_may_be_meant() -> None:
    read = documents('cron: "0 8 * * *"', suite="cora")

    with pytest.raises(InvalidFile) as caught:
        check_game_days(read.game_days, known(read), place=lambda *_: Place("a.yaml", 4, 5))

    [problem] = caught.value.problems
    assert "no suite named 'cora'" in problem.message
    assert problem.suggestion is not None
    assert "core" in problem.suggestion


def test_two_game_days_of_one_name_are_refused() -> None:
    read = documents('cron: "0 8 * * *"')

    [found] = wrong(Documents(suites=read.suites, game_days=read.game_days * 2))

    assert "already" in found


@pytest.mark.parametrize(("names", "found"), [(["core"], ["core"]), (["whole"], ["core", "whole"]), (["none"], [])])
def test_a_game_day_has_its_suites_and_what_stands_in_them(names: list[str], found: list[str]) -> None:
    assert [each.metadata.name for each in suites_under(names, documents('cron: "0 8 * * *"').suites)] == found
