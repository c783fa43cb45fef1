"""The scheduler over real SQLite with a clock of our own; APScheduler itself rings once, in real time moved."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import time_machine

from luff.errors import InvalidFile, LuffError, StoreError, UsageError
from luff.gameday_files import GameDays
from luff.model import GameDay
from luff.parse import parse_documents
from luff.policy import parse_hours
from luff.replica import is_gone, own_name
from luff.schedule import Held, Scheduler
from luff.store import Store
from luff.store.occurrences import LEASE_S, New, Occurrence, Occurrences, State
from luff.surroundings import Surroundings, prometheus
from luff.testing import SetClock

BASE = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: late, namespace: shop}
spec: {target: {host: details}, fault: {delay: 1s}, traffic: "GET http://shop/"}
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {name: core}
spec: {experiments: [late]}
"""
DAY = """\
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {name: NAME}
spec:
  schedule: {SCHEDULE}
  suites: [core]
  MORE
"""
DAILY = 'cron: "0 10 * * *", window: 1h'
START = datetime(2027, 1, 5, 9, 0, tzinfo=UTC)
TEN = START + timedelta(hours=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAYS = timedelta(days=1)


def read(folder: Path) -> GameDays:
    return GameDays(
        [folder],
        lambda: parse_documents([(str(each), each.read_text()) for each in sorted(folder.glob("*.yaml"))]),
    )


@dataclass
class Stage:
    """This is a folder, a database, and schedulers over them; *held* is what they have held."""

    folder: Path
    url: str
    clock: SetClock
    held: list[Occurrence] = field(default_factory=list)
    stores: list[Occurrences] = field(default_factory=list)
    opened: list[Store] = field(default_factory=list)

    def write(self, schedule: str = DAILY, more: str = "", name: str = "daily") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(DAY.replace("NAME", name).replace("SCHEDULE", schedule).replace("MORE", more))
        return path

    def scheduler(
        self,
        run: Callable[[GameDay, Occurrence], Awaitable[Held]] | None = None,
        surroundings: Surroundings | None = None,
        definitions: GameDays | None = None,
    ) -> Scheduler:
        return Scheduler(
            self.store(),
            definitions or read(self.folder),
            run or self.run,
            surroundings=surroundings,
            clock=self.clock,
            name=f"replica-{len(self.stores)}",
        )

    def store(self) -> Occurrences:
        """Open the database once more; whoever has the stage closes it."""
        self.opened.append(Store.open(self.url))
        self.stores.append(Occurrences.of(self.opened[-1]))
        return self.stores[-1]

    async def run(self, _: GameDay, occurrence: Occurrence) -> Held:
        self.held.append(occurrence)
        return Held(good=True, said="all as expected", runs=("r1",))

    async def at(self, now: datetime, *schedulers: Scheduler) -> None:
        """Set the clock, and let each look at the calendar and finish what it holds."""
        self.clock.at = now
        for each in schedulers:
            await each.tick()
            assert each.trouble is None
            await drained()

    @property
    def rows(self) -> list[tuple[str, str | None]]:
        """Return the state and the reason of every occurrence, oldest first."""
        return [(row.state, row.reason) for row in reversed(self.stores[0].between())]


async def drained() -> None:
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("luff-occurrence-")))


@pytest.fixture
def stage(database: str, tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "base.yaml").write_text(BASE)
    made = Stage(folder, database, SetClock(START))
    made.write()
    yield made
    for store in made.opened:
        store.close()


def play(stage: Stage, story: Callable[[Scheduler], Awaitable[None]], scheduler: Scheduler | None = None) -> None:
    """Run *story* with a scheduler that has been started, and stop it."""

    async def told() -> None:
        chosen = scheduler or stage.scheduler()
        await chosen.start()
        try:
            await story(chosen)
        finally:
            await chosen.stop()

    asyncio.run(told())


def test_a_firing_is_held_once_and_written_down(stage: Stage) -> None:
    async def story(scheduler: Scheduler) -> None:
        await stage.at(TEN - MINUTE, scheduler)
        assert stage.held == []
        await stage.at(TEN, scheduler)
        await stage.at(TEN + MINUTE, scheduler)
        assert scheduler.last_tick == TEN + MINUTE
        assert scheduler.tick_age_s() == 0

    play(stage, story)

    [row] = stage.stores[0].between()
    assert [each.scheduled_for for each in stage.held] == [TEN]
    assert (row.state, row.said, row.runs, row.who) == (State.PASSED, "all as expected", ("r1",), "replica-1")


def test_two_replicas_hold_each_firing_once(stage: Stage) -> None:
    async def story(first: Scheduler) -> None:
        second = stage.scheduler()
        await second.start()
        try:
            for day in range(6):
                pair = (first, second) if day % 2 else (second, first)
                stage.clock.at = TEN + day * DAYS
                await asyncio.gather(*(each.tick() for each in pair))
                await drained()
        finally:
            await second.stop()

    play(stage, story)

    assert sorted(each.scheduled_for for each in stage.held) == [TEN + day * DAYS for day in range(6)]
    assert stage.rows == [("passed", None)] * 6


def replica(folder: str, url: str, rounds: int, together: threading.Barrier) -> list[str]:
    """Be a server of its own for *rounds* days, each begun together with the others, and return what it has held."""
    stage = Stage(Path(folder), url, SetClock(START))

    async def days() -> None:
        scheduler = stage.scheduler()
        await scheduler.start()
        for day in range(rounds):
            together.wait(60)
            await stage.at(TEN + day * DAYS, scheduler)
        await scheduler.stop()

    asyncio.run(days())
    stage.opened[0].close()
    return [each.id for each in stage.held]


def test_processes_on_one_database_hold_each_firing_once(stage: Stage) -> None:
    days, replicas = 10, 3
    spawned = multiprocessing.get_context("spawn")
    with spawned.Manager() as manager, ProcessPoolExecutor(replicas, mp_context=spawned) as pool:
        together = manager.Barrier(replicas)
        done = [pool.submit(replica, str(stage.folder), stage.url, days, together) for _ in range(replicas)]
        held = [each for future in done for each in future.result()]

    assert len(held) == len(set(held)) == days


def test_what_passed_while_the_server_was_down_has_a_reason(stage: Stage) -> None:
    async def nothing(_: Scheduler) -> None: ...

    play(stage, nothing)
    stage.clock.at = TEN + 3 * DAYS + 2 * HOUR
    play(stage, nothing)

    assert stage.held == []
    assert stage.rows == [("skipped", "missed")] * 4
    assert "2h00m later its window of 1h00m was over" in str(stage.stores[0].between()[0].said)


@pytest.mark.parametrize(("late", "misfire", "held"), [(59, "skip", 1), (61, "skip", 0), (61, "run", 1)])
def test_the_window_is_how_late_it_may_begin(stage: Stage, late: int, misfire: str, held: int) -> None:
    stage.write(f"{DAILY}, misfire: {misfire}")

    async def story(scheduler: Scheduler) -> None:
        await stage.at(TEN + late * MINUTE, scheduler)

    play(stage, story)

    assert len(stage.held) == held
    assert len(stage.rows) == 1


def test_of_many_missed_only_the_newest_is_held(stage: Stage) -> None:
    stage.write('cron: "*/10 10 * * *", window: 35m')

    async def story(scheduler: Scheduler) -> None:
        await stage.at(TEN + 50 * MINUTE, scheduler)

    play(stage, story)

    assert stage.rows == [("skipped", "missed")] * 2 + [("skipped", "superseded")] * 3 + [("passed", None)]


def test_years_of_missed_minutes_are_bounded_and_counted(stage: Stage) -> None:
    stage.write('cron: "* * * * *"')

    async def story(scheduler: Scheduler) -> None:
        await stage.at(START + 3 * DAYS, scheduler)

    play(stage, story)

    rows = stage.stores[0].between(limit=10_000)
    assert len(rows) == 1000
    assert f"{3 * 24 * 60 - 1000} before it" in str(rows[-1].said)


def test_a_clock_that_jumps_back_and_forth_fires_nothing_twice(stage: Stage) -> None:
    async def story(scheduler: Scheduler) -> None:
        for now in (TEN, TEN - HOUR, TEN, TEN + 2 * DAYS, TEN - 5 * MINUTE, TEN + DAYS, TEN + 2 * DAYS, TEN + 3 * DAYS):
            await stage.at(now, scheduler)

    play(stage, story)

    assert [each.scheduled_for for each in stage.held] == [TEN, TEN + 2 * DAYS, TEN + 3 * DAYS]
    assert stage.rows == [("passed", None), ("skipped", "missed"), ("passed", None), ("passed", None)]


# --- what speaks against it --------------------------------------------------------------------------------------


async def says(text: str) -> str:
    return text


async def fails(*_: object) -> None:
    raise LuffError("no answer")


async def value(query: str) -> float | None:
    return {"high": 2.0, "low": 1.0}.get(query)


@pytest.mark.parametrize(
    ("more", "surroundings", "reason"),
    [
        ("", Surroundings(lever=lambda _: says("the lever is on")), "lever"),
        ("", Surroundings(lever=fails), "cannot_tell"),
        ("skipWhen: [canaryProgressing]", Surroundings(), "cannot_tell"),
        ("skipWhen: [{prometheus: {query: high, above: 1}}]", Surroundings(metric=value), "metric"),
        ("skipWhen: [{prometheus: {query: low, above: 1}}]", Surroundings(metric=value), None),
        ("skipWhen: [{prometheus: {query: none, above: 1}}]", Surroundings(metric=value), None),
        ("skipWhen: [{prometheus: {query: low, above: 1}}]", Surroundings(metric=fails), "cannot_tell"),
        ("skipWhen: [{prometheus: {query: low, above: 1}}]", Surroundings(), "cannot_tell"),
        ("people: {owner: a, approvers: [a, b], approvals: 1}", Surroundings(), "not_approved"),
    ],
)
def test_what_speaks_against_it_is_its_reason(
    stage: Stage, more: str, surroundings: Surroundings, reason: str | None
) -> None:
    stage.write(more=more)

    async def story(scheduler: Scheduler) -> None:
        await stage.at(TEN, scheduler)

    play(stage, story, stage.scheduler(surroundings=surroundings))

    assert stage.rows == [("passed", None) if reason is None else ("skipped", reason)]
    assert len(stage.held) == (reason is None)
    assert reason is None or stage.stores[0].between()[0].said


def test_an_event_of_a_calendar_file_and_hours_rule_it_out(stage: Stage) -> None:
    event = "DTSTART;VALUE=DATE:20270105\nSUMMARY:Freeze"
    (stage.folder / "f.ics").write_text(f"BEGIN:VCALENDAR\nBEGIN:VEVENT\n{event}\nEND:VEVENT\nEND:VCALENDAR\n")
    stage.write(more="skipWhen: [{ics: f.ics}]")
    stage.write('cron: "0 10,12 * * *"', name="hours")
    definitions = read(stage.folder)
    definitions.hours = parse_hours("11:00-13:00")
    stage.write('cron: "0 12 * * *"', more="skipWhen: [{ics: f.ics}]")

    async def story(scheduler: Scheduler) -> None:
        foreseen = scheduler.upcoming(START, START + 4 * HOUR)
        assert [each.skipped and each.skipped.code for each in foreseen] == ["outside_hours", "blackout", None]
        await stage.at(TEN, scheduler)
        await stage.at(TEN + 2 * HOUR, scheduler)

    play(stage, story, stage.scheduler(definitions=definitions))

    assert sorted(stage.rows, key=str) == sorted(
        [("skipped", "outside_hours"), ("skipped", "blackout"), ("passed", None)], key=str
    )


def test_approvals_in_time_of_those_who_are_asked_let_it_begin(stage: Stage) -> None:
    stage.write(more="people: {owner: a, approvers: [ann, bob], approvals: 2, approveBy: 30m}")

    async def story(scheduler: Scheduler) -> None:
        await scheduler.approve("daily", TEN, "ann")
        for name, at, who, said in [
            ("daily", TEN, "eve", "no approver"),
            ("none", TEN, "ann", "no game day"),
            ("daily", TEN + MINUTE, "ann", "does not fire at"),
        ]:
            with pytest.raises(UsageError, match=said):
                await scheduler.approve(name, at, who)
        stage.clock.at = TEN - 29 * MINUTE
        with pytest.raises(UsageError, match="due by 2027-01-05 09:30"):
            await scheduler.approve("daily", TEN, "bob")
        await scheduler.approve("daily", TEN + DAYS, "ann")
        await scheduler.approve("daily", TEN + DAYS, "bob")
        await stage.at(TEN, scheduler)
        await stage.at(TEN + DAYS, scheduler)

    play(stage, story)

    assert stage.rows == [("skipped", "not_approved"), ("passed", None)]


@pytest.mark.parametrize(("overlap", "second"), [("forbid", ("skipped", "overlap")), ("allow", ("passed", None))])
def test_one_that_is_not_over_may_forbid_the_next(stage: Stage, overlap: str, second: tuple[str, str | None]) -> None:
    stage.write(f'cron: "*/10 10 * * *", overlap: {overlap}')

    async def told() -> None:
        over, began = asyncio.Event(), asyncio.Event()

        async def long(_: GameDay, occurrence: Occurrence) -> Held:
            began.set()
            if occurrence.scheduled_for == TEN:
                await over.wait()
            return Held(good=True)

        first, other = stage.scheduler(long), stage.scheduler(long)
        await first.start()
        await other.start()
        stage.clock.at = TEN
        await first.tick()
        await began.wait()
        stage.clock.at = TEN + 10 * MINUTE
        await first.tick()  # renews its claim
        await other.tick()
        waiting = stage.stores[0].between()[-1].id
        others = [
            t for t in asyncio.all_tasks() if t.get_name().startswith("luff-occ") and not t.get_name().endswith(waiting)
        ]
        await asyncio.gather(*others)
        over.set()
        await drained()
        await first.stop()
        await other.stop()

    asyncio.run(told())

    assert stage.rows == [("passed", None), second]


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_run_that_raises_is_an_error_with_its_words(stage: Stage) -> None:
    async def broken(_: GameDay, __: Occurrence) -> Held:
        raise ValueError("no such thing")

    async def story(scheduler: Scheduler) -> None:
        await stage.at(TEN, scheduler)
        await stage.at(TEN + DAYS, scheduler)

    play(stage, story, stage.scheduler(broken))

    assert stage.rows == [("error", "error")] * 2
    assert stage.stores[0].between()[0].said == "ValueError: no such thing"


def test_stopping_cancels_what_runs_and_says_so(stage: Stage) -> None:
    cancelled: list[str] = []

    async def story(scheduler: Scheduler) -> None:
        stage.clock.at = TEN
        await scheduler.tick()
        await began.wait()

    async def endless(_: GameDay, occurrence: Occurrence) -> Held:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(occurrence.id)
            raise
        return Held(good=True)

    began = asyncio.Event()
    play(stage, story, stage.scheduler(endless))

    assert len(cancelled) == 1
    assert stage.rows == [("lost", "stopped")]


def test_a_claim_that_had_not_begun_is_taken_over(stage: Stage) -> None:
    asked = asyncio.Event()

    async def silent(_: GameDay) -> str | None:
        asked.set()
        await asyncio.Event().wait()
        return None

    async def story(scheduler: Scheduler) -> None:
        stage.clock.at = TEN
        await scheduler.tick()
        await asked.wait()

    async def nothing(scheduler: Scheduler) -> None:
        await drained()

    play(stage, story, stage.scheduler(surroundings=Surroundings(lever=silent)))
    assert stage.rows == [("claimed", None)]
    stage.clock.at = TEN + 5 * MINUTE
    play(stage, nothing)

    assert stage.rows == [("passed", None)]
    assert [each.who for each in stage.held] == ["replica-2"]


def test_what_a_killed_server_ran_is_lost_with_a_reason(stage: Stage) -> None:
    stage.write('cron: "*/10 10 * * *", window: 5m')
    dead = stage.store()

    async def story(scheduler: Scheduler) -> None:
        await stage.at(TEN, scheduler)
        [row] = dead.between()
        assert row.state is State.PASSED
        new = next(iter(scheduler.upcoming(TEN, TEN + HOUR)))
        dead.settle([New(new.id, "daily", new.at, new.due)], who="dead", now=new.at)
        dead.begin(new.id, who="dead", now=new.at, alone=True)
        await stage.at(new.at + timedelta(seconds=LEASE_S + 1), scheduler)

    play(stage, story)

    assert stage.rows == [("passed", None), ("lost", "server_died")]


def test_what_a_process_that_is_gone_ran_is_lost_at_once(stage: Stage) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from luff.replica import own_name; print(own_name())"], stdout=-1
    ) as gone:
        assert gone.stdout is not None
        name = gone.stdout.read().decode().strip()
    dead = stage.store()

    async def story(scheduler: Scheduler) -> None:
        new = next(iter(scheduler.upcoming(START, START + DAYS)))
        dead.settle([New(new.id, "daily", new.at, new.due)], who=name, now=START)
        dead.begin(new.id, who=name, now=START, alone=True)
        await stage.at(START + timedelta(seconds=1), scheduler)

    play(stage, story)

    assert stage.rows == [("lost", "server_died")]


def test_of_who_may_live_nothing_is_taken() -> None:
    for name in ("", "x", "host:1:place.token", f"host:{os.getpid()}:", own_name(), "host:x:y"):
        assert not is_gone(name), name


def test_a_store_that_fails_is_trouble_and_nothing_is_forgotten(stage: Stage, tmp_path: Path) -> None:
    async def story(scheduler: Scheduler) -> None:
        database = tmp_path / "luff.db"
        stage.clock.at = TEN
        aside = stage.stores[0]._database.url
        with stage.stores[0]._database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE occurrence RENAME TO elsewhere")
        await scheduler.tick()
        assert scheduler.trouble is not None
        assert scheduler.last_tick == START
        assert aside.database == str(database)
        with stage.stores[0]._database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO occurrence")
        await stage.at(TEN + MINUTE, scheduler)

    play(stage, story)

    assert stage.rows == [("passed", None)]


def test_without_a_store_it_does_not_start(stage: Stage) -> None:
    scheduler = stage.scheduler()
    with stage.stores[0]._database.write() as connection:
        connection.exec_driver_sql("DROP TABLE schedule")

    async def nothing(_: Scheduler) -> None: ...

    with pytest.raises(StoreError):
        play(stage, nothing, scheduler)


# --- files that change -------------------------------------------------------------------------------------------


def touched(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_what_will_always_be_skipped_is_said_when_it_is_read(stage: Stage) -> None:
    stage.write(more="skipWhen: [canaryProgressing]")
    stage.write(more="skipWhen: [{prometheus: {query: up, above: 0}}]", name="asks")
    definitions = read(stage.folder)
    definitions.load(START)

    [warning] = definitions.warnings
    [foreseen] = definitions.planned(START, TEN, of=[definitions.all["daily"]])

    assert (warning.line, warning.column) == (7, 14)
    assert "every firing of daily will be skipped" in warning.message
    assert foreseen.skipped is not None
    assert foreseen.skipped.code == "cannot_tell"
    assert definitions.warnings_of("asks") == ()


def test_an_expectation_of_what_a_suite_makes_is_known(stage: Stage) -> None:
    base = BASE.replace("[late]", "[{ref: late, matrix: {fault: [{delay: 2s}]}}]")
    (stage.folder / "base.yaml").write_text(base)
    stage.write(more="expected: {late-delay-2s: failed}")
    definitions = read(stage.folder)

    definitions.load(START)

    assert [each.name for each in definitions.experiments(definitions.all["daily"])] == ["late-delay-2s"]


def test_a_reading_that_somebody_else_has_noticed_is_taken_over(stage: Stage) -> None:
    async def story(scheduler: Scheduler) -> None:
        touched(stage.write('cron: "0 11 * * *"'), START)
        scheduler.definitions.refresh(START)
        await stage.at(TEN, scheduler)
        assert stage.held == []
        await stage.at(TEN + HOUR, scheduler)

    play(stage, story)

    assert [each.scheduled_for for each in stage.held] == [TEN + HOUR]


def test_a_changed_file_is_picked_up_and_a_wrong_one_is_reported(stage: Stage) -> None:
    async def story(scheduler: Scheduler) -> None:
        touched(stage.write('cron: "0 11 * * *"'), START)
        await stage.at(TEN, scheduler)
        assert stage.held == []
        touched(stage.write('cron: "99 11 * * *"'), TEN)
        await stage.at(TEN + MINUTE, scheduler)
        problem = scheduler.definitions.problem
        assert isinstance(problem, InvalidFile)
        assert (problem.problems[0].line, problem.problems[0].column) == (5, 20)
        await stage.at(TEN + HOUR, scheduler)
        touched(stage.write('cron: "0 12 * * *"'), TEN + HOUR)
        await stage.at(TEN + 2 * HOUR, scheduler)
        assert scheduler.definitions.problem is None

    play(stage, story)

    assert [each.scheduled_for for each in stage.held] == [TEN + HOUR, TEN + 2 * HOUR]


def test_what_the_former_rule_missed_has_a_reason(stage: Stage) -> None:
    async def nothing(_: Scheduler) -> None: ...

    play(stage, nothing)
    stage.write('cron: "0 15 * * *"')
    stage.clock.at = TEN + HOUR
    play(stage, nothing)

    assert stage.rows == [("skipped", "changed")]


def test_a_game_day_that_comes_and_goes_has_nothing_held_against_it(stage: Stage) -> None:
    async def story(scheduler: Scheduler) -> None:
        path = stage.write(name="second")
        await stage.at(START + MINUTE, scheduler)
        path.unlink()
        await stage.at(TEN, scheduler)
        stage.write(name="second")
        await stage.at(TEN + 3 * HOUR, scheduler)

    play(stage, story)

    assert [(row.schedule, row.state) for row in stage.stores[0].between()] == [("daily", State.PASSED)]


@pytest.mark.parametrize(
    ("schedule", "more", "place", "said"),
    [
        ('cron: "0 10 * * *", window: 0s', "", ":5:", "excludes every firing"),
        (DAILY, "skipWhen: [{ics: none.ics}]", ":7:20", "cannot be read"),
        (DAILY, "expected: {lat: passed}", ":7:19", "no suite of this game day has an experiment named 'lat'"),
        (DAILY, "announce: {to: [slack-shop]}", ":7:19", "there is no channel named 'slack-shop'"),
        ('cron: "0 0 30 2 *"', "", ":5:", "no cron expression"),
        ('cron: "0 10 * * *", timeZone: Nowhere/City', "", ":5:", "no time zone"),
    ],
)
def test_a_wrong_file_keeps_it_from_starting(stage: Stage, schedule: str, more: str, place: str, said: str) -> None:
    stage.write(schedule, more)

    async def nothing(_: Scheduler) -> None: ...

    with pytest.raises(InvalidFile) as caught:
        play(stage, nothing)

    assert said in str(caught.value)
    assert place in str(caught.value)


# --- the clock and Prometheus ------------------------------------------------------------------------------------


def test_apscheduler_rings_at_the_minute(stage: Stage) -> None:
    """Half a second before it, by the machine's own clock moved there."""

    async def told() -> float:
        begun: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def run(_: GameDay, occurrence: Occurrence) -> Held:
            begun.set_result((datetime.now(UTC) - occurrence.scheduled_for).total_seconds())
            return Held(good=True)

        scheduler = Scheduler(stage.store(), read(stage.folder), run)
        await scheduler.start()
        late_s = await asyncio.wait_for(begun, 20)
        await drained()
        await scheduler.stop()
        return late_s

    with time_machine.travel(TEN - timedelta(seconds=0.5), tick=True):
        late_s = asyncio.run(told())

    assert late_s >= 0
    assert stage.rows == [("passed", None)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            '{"data": {"resultType": "vector", "result": [{"value": [1, "2"]}, {"value": [1, "NaN"]}, {"value": [1, "1"]}]}}',
            2.0,
        ),
        ('{"data": {"resultType": "scalar", "result": [1, "3"]}}', 3.0),
        ('{"data": {"resultType": "vector", "result": []}}', None),
    ],
)
def test_prometheus_answers_with_its_highest_value(body: str, expected: float | None) -> None:
    assert asyncio.run(_asked(200, body)) == expected


@pytest.mark.parametrize(("status", "body"), [(500, "{}"), (200, "{}"), (200, "<html>"), (200, '{"data": []}')])
def test_another_answer_of_prometheus_is_an_error(status: int, body: str) -> None:
    with pytest.raises(LuffError, match="Prometheus answers"):
        asyncio.run(_asked(status, body))


async def _asked(status: int, body: str) -> float | None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
    async with httpx.AsyncClient(transport=transport) as client:
        return await prometheus("http://prometheus/", client)("up")
