"""How fast the calendar is with 10,000 game days: from files to ready, and from a firing's time to its claim."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from luff.gameday_files import GameDays
from luff.model import API_VERSION, GameDay
from luff.parse import Documents, parse_documents
from luff.schedule import Held, Scheduler
from luff.store import Store, upgrade
from luff.store.occurrences import New, Occurrence, Occurrences, State

SCHEDULES = 10_000
AT_ONCE = 100
MOST_S = 240.0
BASE = f"""\
apiVersion: {API_VERSION}
kind: Experiment
metadata: {{name: late, namespace: shop}}
spec: {{target: {{host: details}}, fault: {{delay: 1s}}, traffic: "GET http://shop/"}}
---
apiVersion: {API_VERSION}
kind: Suite
metadata: {{name: core}}
spec: {{experiments: [late]}}
---
apiVersion: {API_VERSION}
kind: GameDay
metadata: {{name: one}}
spec: {{schedule: {{cron: "0 10 * * TUE#1", timeZone: Europe/Berlin}}, suites: [core]}}
"""


def documents(minute: datetime) -> Documents:
    """Return `SCHEDULES` game days all over the year, `AT_ONCE` of which fire at *minute*."""
    read = parse_documents([("bench.yaml", BASE)])
    [one] = read.game_days

    def day(n: int) -> GameDay:
        cron = (
            f"{minute.minute} {minute.hour} * * *" if n < AT_ONCE else f"{n % 60} {n % 24} {1 + n % 28} {1 + n % 12} *"
        )
        zone = "UTC" if n < AT_ONCE else ("Europe/Berlin", "America/New_York", "Asia/Tokyo")[n % 3]
        schedule = one.spec.schedule.model_copy(update={"cron": cron, "time_zone": zone})
        spec = one.spec.model_copy(update={"schedule": schedule})
        return one.model_copy(update={"metadata": one.metadata.model_copy(update={"name": f"day-{n}"}), "spec": spec})

    return Documents(
        experiments=read.experiments, suites=read.suites, game_days=tuple(day(n) for n in range(SCHEDULES))
    )


class Timed(Occurrences):
    """This is the store that also remembers how long after its time each firing was claimed: its row is committed."""

    late_s: list[float]

    def settle(self, firings: Sequence[New], *, who: str, now: datetime) -> list[str]:
        mine = super().settle(firings, who=who, now=now)
        written = datetime.now(UTC)
        self.late_s += [(written - each.due).total_seconds() for each in firings if each.id in mine]
        return mine


async def all_over(store: Occurrences) -> list[Occurrence]:
    """Return the rows once every firing of the minute has ended."""
    while True:
        rows = await asyncio.to_thread(store.between, limit=AT_ONCE + 1)
        if len(rows) == AT_ONCE and all(row.ended_at is not None for row in rows):
            return rows
        await asyncio.sleep(0.1)


async def measure(url: str, minute: datetime) -> None:
    """Print how long it takes to start, for the first time and again, and how late the firings of *minute* are claimed."""
    everything = documents(minute)

    async def run(_: GameDay, occurrence: Occurrence) -> Held:
        return Held(good=True)

    for what in ("start with an empty store", "start again"):
        opened = Store.open(url)
        store = Timed.of(opened)
        assert isinstance(store, Timed)
        store.late_s = []
        scheduler = Scheduler(store, GameDays([], lambda: everything), run)
        began, began_cpu = time.perf_counter(), time.process_time()
        await scheduler.start()
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        print(f"{f'{SCHEDULES} schedules: {what}':<58} {wall_s:9.2f} s  ({cpu_s:.2f} s of CPU)")
        if what == "start again":
            rows = await asyncio.wait_for(all_over(store), MOST_S)
            assert {row.state for row in rows} == {State.PASSED}
            claimed = sorted(store.late_s)
            began_late = [(row.began_at - row.due).total_seconds() for row in rows if row.began_at is not None]
            ended_late = [(row.ended_at - row.due).total_seconds() for row in rows if row.ended_at is not None]
            for said, value in (
                ("the last is claimed after", claimed[-1]),
                ("the first begins after", min(began_late)),
                ("the last begins after", max(began_late)),
                ("the last is written down after", max(ended_late)),
            ):
                print(f"{f'{AT_ONCE} firings of one minute: {said}':<58} {value * 1000:9.1f} ms")
        await scheduler.stop()
        opened.close()


def claims(url: str, minute: datetime) -> None:
    """Print how long it takes to claim all schedules at once."""

    opened = Store.open(url)
    store = Occurrences.of(opened)
    later = minute + timedelta(days=400)
    new = [New(f"{n:016x}", f"day-{n}", later, later) for n in range(SCHEDULES)]
    began = time.perf_counter()
    store.settle(new, who="bench", now=later)
    print(f"{f'{SCHEDULES} firings at once: claimed in':<58} {(time.perf_counter() - began) * 1000:9.1f} ms")
    opened.close()


def main() -> None:
    """Measure on SQLite; it waits for a minute that is one or two from now."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'luff.db'}"
        upgrade(url)
        now = datetime.now(UTC)
        minute = (now + timedelta(seconds=120)).replace(second=0, microsecond=0)
        asyncio.run(measure(url, minute))
        claims(url, minute)


if __name__ == "__main__":
    main()
