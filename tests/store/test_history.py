"""Trends, the last pass, and what was never tried."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from luff.lifecycle import Phase
from luff.model import Verdict
from luff.outcome import Context, Edge, MeshIdentity, Outcome
from luff.report.trend import NamedRun, Series
from luff.store import Beginning, Store
from tests.factories import LAB, failed, outcome, passed, resolved, run_id

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CLUSTER = MeshIdentity(kind="cluster", name="prod")
SLOW = Series("slow-ratings", "lab", "lab", passed().spec_sha256)


def on_day(day: int, verdict: str, *, mesh: MeshIdentity = LAB, name: str = "slow-ratings", seed: int = 0) -> Outcome:
    make = passed if verdict == "passed" else failed
    began = NOON + timedelta(days=day)
    return make(
        run=run_id((day, verdict, mesh.name, name, seed)),
        experiment=name,
        mesh=mesh,
        started_at=began.isoformat(),
        ended_at=(began + timedelta(minutes=1)).isoformat(),
    )


@pytest.fixture
def week(store: Store) -> Store:
    """Return a store in which slow-ratings held until day 3 in the lab, and always on the cluster."""
    for day in range(6):
        store.record(on_day(day, "passed" if day < 3 else "failed"))
        store.record(on_day(day, "passed", mesh=CLUSTER))
    store.record(on_day(1, "failed", name="another"))
    return store


@pytest.fixture
def one_way(week: Store) -> Store:
    """Return the week's store in which slow-ratings was written one way in the lab, whatever came of it."""
    for day in range(3, 6):
        week.record(on_day(day, "failed", seed=1).model_copy(update={"spec_sha256": SLOW.spec_sha256}))
    return week


def test_a_trend_has_one_place_and_one_spec_oldest_first(one_way: Store) -> None:
    points = one_way.trend(SLOW)

    assert [point.verdict for point in points] == [Verdict.PASSED] * 3 + [Verdict.FAILED] * 3
    assert [check.id for check in points[0].checks] == [check.id for check in passed().checks]
    assert points[0].checks[0].measured == passed().checks[0].measured


def test_a_trend_is_cut_at_its_old_end(one_way: Store) -> None:
    points = one_way.trend(SLOW, limit=2)

    assert [point.started_at for point in points] == [NOON + timedelta(days=4), NOON + timedelta(days=5)]


def test_an_unfinished_run_is_in_no_trend_and_covers_nothing(store: Store) -> None:
    edge = Edge(caller="a", dependency="b")
    store.begin(Beginning("ab" * 8, "slow-ratings", "ada", LAB, NOON, edge=edge, fault="delay"))

    assert store.trend(SLOW) == []
    assert store.coverage() == []


def test_coverage_has_a_line_for_each_hop_fault_and_kind_of_mesh(week: Store) -> None:
    week.record(
        outcome(
            run=run_id("abort"),
            edge=Edge(caller=None, dependency="details"),
            spec=resolved(fault={"abort": {"http": 503}}),
        )
    )

    lines = week.coverage()

    assert [(line.caller, line.dependency, line.fault, line.mesh_kind, line.runs) for line in lines] == [
        (None, "details", "abort", "lab", 1),
        ("reviews", "ratings", "delay", "cluster", 6),
        ("reviews", "ratings", "delay", "lab", 3),
    ]
    assert [line.verdict for line in lines] == [Verdict.PASSED, Verdict.PASSED, Verdict.FAILED]
    assert lines[2].last_pass_at is None  # it was written otherwise when it passed
    assert lines[2].run == on_day(5, "failed").run


def test_two_runs_of_one_moment_are_one_line_of_coverage(store: Store) -> None:
    for seed in range(3):
        store.record(on_day(1, "passed", seed=seed))

    (line,) = store.coverage()

    assert (line.runs, line.verdict) == (3, Verdict.PASSED)
    assert store.run(line.run).phase is Phase.CLEAN


def test_what_held_is_what_the_standings_say(week: Store) -> None:
    for day in range(7):
        until = NOON + timedelta(days=day)

        assert week.held(until=until) == {each.series: each.holds for each in week.standings(until=until)}


def test_a_standing_names_the_runs_around_its_break_and_what_was_tested_in_them(store: Store) -> None:
    def ran(day: int, verdict: str, seed: int = 0) -> Outcome:
        made = on_day(day, verdict, mesh=CLUSTER, seed=seed)
        context = Context(commit=f"{day:x}" * 40, revision=f"v{day}")
        return made.model_copy(update={"spec_sha256": "a" * 64, "context": context})

    # Two passes of one moment, of which the last by its id counts, and a failure that another one follows.
    passes = sorted([ran(1, "passed", 1), ran(1, "passed", 2)], key=lambda each: each.run)
    for each in (ran(0, "failed"), *passes, ran(2, "failed"), ran(3, "failed")):
        store.record(each)

    (found,) = store.standings()

    broken = NamedRun(ran(2, "failed").run, NOON + timedelta(days=2), "2" * 40, "v2")
    assert (found.broken, found.good) == (broken, NamedRun(passes[1].run, NOON + timedelta(days=1), "1" * 40, "v1"))


def test_numbers_over_many_runs_are_read_without_the_models_of_an_outcome() -> None:
    script = "import sys, luff.store, luff.report.words, luff.cli.trend; sys.exit('pydantic' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b""), "importing pydantic costs a sixth of a second"


def test_the_verdict_before_is_of_the_same_experiment_written_the_same_way_in_the_same_place(store: Store) -> None:
    def ran(day: int, verdict: str, *, mesh: MeshIdentity = CLUSTER, spec: str = "a" * 64) -> Outcome:
        return on_day(day, verdict, mesh=mesh).model_copy(update={"spec_sha256": spec})

    newest = ran(3, "failed")
    for each in (ran(0, "passed"), ran(1, "failed"), ran(2, "passed"), newest, ran(4, "failed")):
        store.record(each)

    assert store.verdict_before(newest) is Verdict.PASSED
    assert store.verdict_before(ran(5, "passed")) is Verdict.FAILED
    assert store.verdict_before(ran(0, "passed")) is None
    assert store.verdict_before(ran(5, "failed", mesh=MeshIdentity(kind="cluster", name="other"))) is None
    assert store.verdict_before(ran(5, "failed", mesh=LAB)) is None
    assert store.verdict_before(ran(5, "failed", spec="b" * 64)) is None
