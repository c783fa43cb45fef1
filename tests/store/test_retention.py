"""What may be forgotten, and what never is: on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from luff.errors import StoreError, UsageError
from luff.lifecycle import Intent, Phase
from luff.outcome import MeshIdentity, Outcome
from luff.store import Beginning, Keep, Store
from luff.store.engine import connect, parse_url
from tests.factories import LAB, failed, inconclusive, passed, resolved, run_id, samples, stranded

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CLUSTER = MeshIdentity(kind="cluster", name="prod")
MAKERS = {"passed": passed, "failed": failed, "inconclusive": inconclusive}


@pytest.fixture
def old(url: str) -> Iterator[Store]:
    """Open a store that believes it is day 100."""
    Store.open(url).close()
    with Store(connect(parse_url(url)), now=lambda: NOON + timedelta(days=100)) as opened:
        yield opened


def on_day(day: float, verdict: str, *, mesh: MeshIdentity = LAB, name: str = "slow", spec: str = "5s") -> Outcome:
    began = NOON + timedelta(days=day)
    return MAKERS[verdict](
        run=run_id((day, verdict, mesh.name, name, spec)),
        experiment=name,
        mesh=mesh,
        spec=resolved(fault={"delay": {"duration": spec}}),
        started_at=began.isoformat(),
        ended_at=(began + timedelta(minutes=1)).isoformat(),
    )


def kept(store: Store) -> list[str]:
    return [row.run for row in store.runs(limit=1000)]


def test_old_runs_go_whole_and_young_ones_stay(old: Store) -> None:
    runs = [on_day(day, "passed") for day in (1, 2, 50, 95)]
    for run in runs:
        old.record(run, samples(seconds=3))

    pruned = old.prune(Keep(days=30))

    assert pruned.runs == tuple(run.run for run in runs[:3])
    assert kept(old) == [runs[3].run]
    assert (pruned.protected, pruned.left) == (0, 1)
    with pytest.raises(StoreError, match="there is no run"):
        old.outcome(runs[0].run)
    old.record(runs[0])  # as if it had never been there


def test_a_dry_run_says_what_would_go_and_deletes_nothing(old: Store) -> None:
    for day in range(5):
        old.record(on_day(day, "passed"))

    said = old.prune(Keep(days=30), dry_run=True)

    assert len(said.runs) == 4
    assert len(kept(old)) == 5
    assert old.prune(Keep(days=30)) == said


def test_the_last_pass_and_the_last_fail_of_each_question_in_each_place_stay(old: Store) -> None:
    questions = [
        {"mesh": mesh, "name": name, "spec": spec}
        for mesh in (LAB, CLUSTER, MeshIdentity(kind="cluster", name="staging"))
        for name in ("slow", "other")
        for spec in ("5s", "6s")
    ]
    for asked in questions:
        for day in range(1, 5):
            old.record(on_day(day, "passed", **asked))  # type: ignore[arg-type]
            old.record(on_day(day + 0.5, "failed", **asked))  # type: ignore[arg-type]
            old.record(on_day(day + 0.7, "inconclusive", **asked))  # type: ignore[arg-type]

    old.prune(Keep(days=30))

    expected = {
        on_day(*last, **asked).run  # type: ignore[arg-type]
        for asked in questions
        for last in ((4, "passed"), (4.5, "failed"))
    }
    assert set(kept(old)) == expected


def test_a_lab_under_another_name_is_the_same_lab(old: Store) -> None:
    for day in range(3):
        old.record(on_day(day, "passed", mesh=MeshIdentity(kind="lab", name=f"lab-{day}")))

    old.prune(Keep(days=30))

    assert kept(old) == [on_day(2, "passed", mesh=MeshIdentity(kind="lab", name="lab-2")).run]


def test_the_newest_of_each_experiment_stay(old: Store) -> None:
    for name in ("one", "two"):
        for day in range(6):
            old.record(on_day(day, "failed" if day == 0 else "passed", name=name))

    pruned = old.prune(Keep(last=2))

    for name in ("one", "two"):
        days = [round((row.started_at - NOON).days) for row in old.runs() if row.experiment == name]
        assert days == [5, 4, 0]
    assert (len(pruned.runs), pruned.protected, pruned.left) == (6, 2, 6)


def test_a_stranded_run_stays(old: Store) -> None:
    lost = stranded(started_at=NOON.isoformat(), ended_at=NOON.isoformat())
    old.record(lost)

    for keep in (Keep(days=0), Keep(last=0)):
        assert old.prune(keep).runs == ()
    assert kept(old) == [lost.run]


@pytest.mark.parametrize("left", [Phase.ARMED, Phase.LIVE, Phase.WITHDRAWING, Phase.STRANDED])
def test_a_run_whose_routes_are_not_known_to_be_back_stays_until_they_are(old: Store, left: Phase) -> None:
    run = run_id("killed")
    journal = old.journal(LAB)
    old.begin(Beginning(run, "slow", "ada", LAB, NOON))

    async def kill() -> None:
        await journal.arm(Intent(run, "bookinfo", "ratings", "u", "1", ("twin",), 0, "a" * 64))
        ways = {Phase.ARMED: (), Phase.LIVE: (Phase.LIVE,), Phase.WITHDRAWING: (Phase.WITHDRAWING,)}
        for phase in ways.get(left, (Phase.WITHDRAWING, Phase.STRANDED)):
            await journal.mark(run, phase)

    async def restore() -> None:
        await journal.mark(run, Phase.WITHDRAWING)
        await journal.mark(run, Phase.CLEAN)

    asyncio.run(kill())
    assert old.prune(Keep(days=0)).runs == ()
    assert [intent.intent.run for intent in old.open_intents()] == [run]

    asyncio.run(restore())
    assert old.prune(Keep(days=0)).runs == (run,)
    assert old.timeline(run) == []


def test_a_run_that_may_be_going_on_stays_and_a_killed_one_goes(old: Store) -> None:
    now = NOON + timedelta(days=100)
    for run, began in (("11" * 8, now - timedelta(hours=23)), ("22" * 8, now - timedelta(hours=25))):
        old.begin(Beginning(run, "slow", "ada", LAB, began))

    assert old.prune(Keep(last=0)).runs == ("22" * 8,)
    assert kept(old) == ["11" * 8]


def test_a_time_before_all_times_keeps_everything(old: Store) -> None:
    old.record(on_day(1, "inconclusive"))

    assert old.prune(Keep(days=10**9)).runs == ()


@pytest.mark.parametrize("both", [{}, {"days": 1, "last": 1}])
def test_what_to_keep_is_said_in_one_way(both: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="in one way"):
        Keep(**both)


def test_standings_never_mix_lab_and_cluster_or_two_specs(old: Store) -> None:
    for mesh in (LAB, CLUSTER):
        for spec in ("5s", "6s"):
            old.record(on_day(1, "passed", mesh=mesh, spec=spec))
    for day in (2, 3):
        old.record(on_day(day, "failed", mesh=CLUSTER, spec="6s"))

    found = old.standings(experiment="slow")

    assert [(each.series.place, each.runs, each.passed, each.failed) for each in found if each.holds] == [
        ("prod", 1, 1, 0),
        ("lab", 1, 1, 0),
        ("lab", 1, 1, 0),
    ]
    (broken,) = [each for each in found if not each.holds]
    assert (broken.series.place, broken.runs, broken.pass_ratio) == ("prod", 3, 1 / 3)
    assert broken.broken is not None
    assert broken.good is not None
    assert broken.broken.at == NOON + timedelta(days=2)
    assert broken.broken.run == on_day(2, "failed", mesh=CLUSTER, spec="6s").run
    assert broken.good.run == on_day(1, "passed", mesh=CLUSTER, spec="6s").run
    assert broken.good.commit == passed().context.commit
    assert old.standings(experiment="slow", until=NOON + timedelta(days=1)) == []
    assert all(each.holds for each in old.standings(until=NOON + timedelta(days=2)))


def test_a_period_has_the_runs_in_it_with_their_checks(old: Store) -> None:
    for day in range(5):
        old.record(on_day(day, "passed"))

    found = old.period(since=NOON + timedelta(days=1), until=NOON + timedelta(days=3))

    assert [point.started_at for point in found] == [NOON + timedelta(days=day) for day in (1, 2)]
    assert [check.id for check in found[0].checks] == [check.id for check in passed().checks]
    assert [each.run for each in old.coverage(until=NOON + timedelta(days=3))] == [on_day(2, "passed").run]
