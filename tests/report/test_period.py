"""The report about a stretch of time: what it says, what it never mixes, how large it gets, and how it looks in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from luff.errors import UsageError
from luff.model import Verdict
from luff.report.difference import as_text, difference
from luff.report.period import RUNS_LISTED, Facts, period_html
from luff.report.trend import (
    CheckPoint,
    Coverage,
    Standing,
    TrendPoint,
    by_series,
    changes,
    check_lines,
    limit_in_unit,
    moment,
    sparkline,
    thinned,
)
from tests.factories import failed, outcome, passed, resolved

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<script>alert(1)</script>\x1b[31m"


def point(day: float, verdict: str = "passed", **changes: Any) -> TrendPoint:
    measured = changes.pop("measured", 900.0 if verdict == "passed" else 1900.0)
    at = NOON + timedelta(days=day)
    check = CheckPoint(
        "in-time", "latency", "fault", "p99 ≤ 1 s", Verdict(verdict), 200, 0, 0.01, 0.005, measured, "ms"
    )
    usual: dict[str, Any] = {
        "run": f"{round(day * 1000):016x}",
        "started_at": at,
        "verdict": Verdict(verdict),
        "reason": None,
        "spec_sha256": "a" * 64,
        "mesh_name": "prod",
        "commit": f"{round(day * 10):040x}",
        "branch": "main",
        "revision": None,
        "checks": (check,),
        "experiment": "cart-survives",
        "mesh_kind": "cluster",
    }
    return TrendPoint(**{**usual, **changes})


def standings(points: list[TrendPoint]) -> list[Standing]:
    found = []
    for series, own in by_series(points).items():
        passes = [each for each in own if each.verdict is Verdict.PASSED]
        fails = [each for each in own if each.verdict is Verdict.FAILED]
        last_pass = passes[-1].started_at if passes else None
        found.append(
            Standing(
                series, len(own), len(passes), len(fails), own[0].started_at, own[-1].started_at, own[-1].verdict,
                last_pass, fails[-1].started_at if fails else None,
            )
        )  # fmt: skip
    return found


def page(points: list[TrendPoint], *, since: float = 0, until: float = 30, **more: Any) -> str:
    begin, end = NOON + timedelta(days=since), NOON + timedelta(days=until)
    facts = Facts(
        since=begin,
        until=end,
        points=[each for each in points if begin <= each.started_at < end],
        before={each.series: each.holds for each in standings([each for each in points if each.started_at < begin])},
        after=standings([each for each in points if each.started_at < end]),
        coverage=more.pop("coverage", []),
        **more,
    )
    return period_html(facts, generated_at="now", now=end)


def part(text: str, title: str) -> str:
    """Return the text of the section under *title*, without its tags."""
    found = re.search(rf"<h2[^>]*>{title}</h2>(.*?)</section>", text, re.DOTALL)
    return "" if found is None else " ".join(re.sub(r"<[^>]*>", " ", found[1]).replace("\u00a0", " ").split())


def test_what_stopped_holding_is_said_with_the_runs_and_revisions_around_it() -> None:
    points = [point(day, "passed" if day < 3 else "failed") for day in range(6)]

    said = part(page(points), "What stopped holding")

    assert "cart-survives on prod Stopped holding on 26 November 2026, 12:00 UTC; still does not hold" in said
    assert f"first failed: {points[3].run} , last passed: {points[2].run}" in said
    assert f"{points[2].commit[:12]}..{points[3].commit[:12]}" in said  # type: ignore[index]
    assert "in-time 1.9 s, expected p99 ≤ 1 s" in said


def test_what_held_again_and_what_never_did_are_told_apart() -> None:
    ways = {"stays-whole": "ppp", "mends": "fpp", "never": "fff", "breaks-and-mends": "pfp", "unsure": "iii"}
    verdicts = {"p": "passed", "f": "failed", "i": "inconclusive"}
    points = [
        point(day, verdicts[letter], experiment=name, run=f"{name}-{day}")
        for day in range(3)
        for name, letters in ways.items()
        for letter in letters[day]
    ]

    text = page(points)

    assert "breaks-and-mends" in part(text, "What stopped holding")
    assert "holds again since 25 November" in part(text, "What stopped holding")
    assert part(text, "What holds again") == "✓ mends on prod"
    assert part(text, "What held") == "✓ stays-whole on prod"
    assert part(text, "What did not hold all along").endswith("✗ never on prod")
    assert "unsure on prod : never proven" in part(text, "What was not proven for long")


def test_a_break_on_the_first_day_is_seen_against_what_held_before_the_period() -> None:
    points = [point(0), point(5, "failed")]

    assert "28 November" in part(page(points, since=4), "What stopped holding")
    assert "all along" in page([point(0, "failed"), point(5, "failed")], since=4)


def test_lab_and_cluster_and_two_specs_never_meet() -> None:
    points = [
        point(0),
        point(1, "failed", mesh_kind="lab", mesh_name="lab-1"),
        point(2),
        point(3, "failed", spec_sha256="b" * 64),
        point(4, "failed", mesh_name="staging"),
        point(5, "failed", mesh_kind="lab", mesh_name="lab-2"),
    ]

    text = page(points)

    assert part(text, "What stopped holding") == "Nothing that held before stopped holding."
    assert text.count('<article class="card trend"') == 4
    assert text.count("as it was written earlier") == 1


def test_what_is_old_is_said() -> None:
    line = Coverage(
        None, "stock", "delay", "cluster", "prod", "slow-stock", "a" * 64, 1, Verdict.PASSED, "r", NOON, NOON
    )

    text = page([point(0)], since=50, until=90, coverage=[line])

    assert "Nothing was tested between 12 January 2027 and 21 February 2027" in text.replace("\u00a0", " ")
    assert part(text, "What was not proven for long").endswith("cart-survives on prod : 90 days ago, held then")
    assert "anyone → stock" in part(text, "Which hops were broken, and how")


def test_a_stranded_run_is_the_first_thing_on_the_page() -> None:
    text = page([point(0)], unrestored=["f" * 16])

    assert 'role="alert"' in text
    assert "f" * 16 in text[: text.index("What stopped holding")]


def test_text_from_outside_stays_text() -> None:
    text = page([point(0, "failed", experiment=EVIL, mesh_name=EVIL, run=EVIL, commit=EVIL)])

    assert "<script" not in text
    assert "\x1b" not in text


def test_the_page_stays_small_and_keeps_every_failure() -> None:
    points = [
        point(
            number / 400, "failed" if number % 100 == 7 else "passed", run=f"{number:016x}", experiment=f"e-{number % 200}"
        )
        for number in range(10_000)
    ]  # fmt: skip

    text = page(points)

    assert len(text.encode()) < 2_000_000
    assert f"2 500 of 10 000" in text  # noqa: F541
    assert RUNS_LISTED == 2500
    assert all(each.run in text for each in points if each.verdict is Verdict.FAILED)


def test_thinning_keeps_the_worst() -> None:
    values = [float(number % 7) for number in range(1000)] + [99.0, 0.5]

    assert max(thinned(values, 40)) == 99.0
    assert min(thinned([5.0] * 500 + [1.0] + [5.0] * 500, 40, worst=min)) == 1.0
    assert len(sparkline(values, most=40)) == 40
    assert sparkline([], most=4) == ""
    assert sparkline([0.0, 0.0], most=4) == "▁▁"


@pytest.mark.parametrize(
    ("expression", "unit", "limit"),
    [
        ("p95 ≤ 1 s", "ms", 1000.0),
        ("p99 ≤ 2.8 s", "ms", 2800.0),
        ("p99 ≤ 2m05s", "ms", 125_000.0),
        ("p99 ≤ 250 ms", "ms", 250.0),
        ("errors ≤ 5 %", "%", 5.0),
        ("fallback ≥ 99.5 %", "%", 99.5),
        ("recovers within 10 s", "s", 10.0),
        ("attempts on stock ≤ 3", None, 3.0),
        ("errors ≤ 5 %", "ms", None),
        ("p95 ≤ 1 s", None, None),
        ("no worse than control by 5 %", "%", None),
        ("nonsense", "ms", None),
    ],
)
def test_a_limit_is_read_in_the_unit_of_what_was_measured(
    expression: str, unit: str | None, limit: float | None
) -> None:
    assert limit_in_unit(expression, unit) == limit


def test_runs_that_could_not_tell_change_nothing() -> None:
    points = [point(0), point(1, "inconclusive"), point(2, "failed"), point(3, "error"), point(4, "failed"), point(5)]

    found = changes(points)

    assert [(change.point.run, change.broke) for change in found] == [(points[2].run, True), (points[5].run, False)]
    assert found[0].before is points[0]
    assert changes(points[4:5], held_before=True)[0].before is None
    assert changes([]) == []


def test_a_check_line_has_what_was_measured_oldest_first() -> None:
    (line,) = check_lines([point(0, measured=1.0), point(1, measured=None), point(2, measured=3.0)])

    assert (line.measured, line.limit, line.at_most) == ((1.0, 3.0), 1000.0, True)


@pytest.mark.parametrize(
    ("text", "end", "at"),
    [
        ("2026-11-01", False, datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01", True, datetime(2026, 11, 2, tzinfo=UTC)),
        ("2026-11-01T18:00", True, datetime(2026, 11, 1, 18, tzinfo=UTC)),
        ("2026-11-01T18:00+02:00", False, datetime(2026, 11, 1, 16, tzinfo=UTC)),
        ("7d", False, NOON - timedelta(days=7)),
        ("90m", True, NOON - timedelta(minutes=90)),
    ],
)
def test_a_time_is_read(text: str, end: bool, at: datetime) -> None:
    assert moment(text, "--since", now=NOON, end=end) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026-13-01", "7", "7x", "9999-12-31", "-1d", "1e9d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--until"):
        moment(text, "--until", now=NOON, end=True)


def test_a_difference_says_what_turned_and_where_the_spec_differs() -> None:
    other = failed(experiment=passed().experiment)

    found = difference(passed(), other)

    assert {check.id for check in found.checks if check.turned} >= {"gives-up-in-time", "recovers"}
    assert ("spec.fault.delay.duration", "5s", "7s") in [(each.path, each.a, each.b) for each in found.spec]
    assert ("spec.expect[gives-up-in-time].latency.p99", "2800ms", "3s") in [
        (each.path, each.a, each.b) for each in found.spec
    ]
    assert found.caveats == ("the experiment was written differently: see what differs in its spec",)
    assert "≠" in as_text(found)
    assert found.as_json()["comparable"] is False


def test_a_run_does_not_differ_from_itself() -> None:
    found = difference(passed(), passed())

    assert (found.caveats, found.spec) == ((), ())
    assert "≠" not in as_text(found)
    assert found.as_json()["comparable"] is True


def test_a_difference_says_how_many_calls_a_request_made_on_average() -> None:
    one = passed()
    assert one.evidence is not None
    other = one.model_copy(update={"evidence": one.evidence.model_copy(update={"calls_per_request": 2.584})})

    text = as_text(difference(one, other))

    assert "2.58 calls a request on average" in text


def test_a_difference_takes_whatever_a_spec_holds() -> None:
    strange = outcome(spec={"spec": [1, {"name": EVIL}, [], {}, None]}, labels={})

    text = as_text(difference(strange, outcome(spec=resolved())))

    assert "\x1b" not in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium once."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs chromium")
        pytest.skip("there is no chromium here; install it to test pages (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fits_and_asks_for_nothing(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    points = [point(day, "passed" if day < 3 else "failed") for day in range(6)]
    points += [point(day, experiment="a-name-that-is-as-long-as-a-name-may-be-" + "x" * 23, run=f"l{day}") for day in range(3)]  # fmt: skip
    path = tmp_path / "period.html"
    path.write_text(page(points))
    opened = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)

    opened.goto(path.as_uri())

    assert said == []
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert opened.locator("h1").count() == 1
    assert opened.locator("svg.measure").count() == 2
    opened.close()
