"""How fast the calendar is with 10,000 game days: from files to ready, and from a firing's time to its claim."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from luff.gameday_files import GameDays
from luff.model import API_VERSION, GameDay
from luff.parse import Documents, parse_documents
from luff.schedule import Held, Scheduler
from luff.store import upgrade
from luff.store.occurrences import New, Occurrence, Occurrences, State

SCHEDULES = 10_000
AT_ONCE = 100
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


async def measure(url: str, minute: datetime) -> None:
    """Print how long it takes to start, for the first time and again, and how late the firings of *minute* are claimed."""
    held: list[float] = []
    all_held = asyncio.Event()
    everything = documents(minute)

    async def run(_: GameDay, occurrence: Occurrence) -> Held:
        held.append((datetime.now(UTC) - occurrence.scheduled_for).total_seconds())
        if len(held) == AT_ONCE:
            all_held.set()
        return Held(good=True)

    for what in ("start with an empty store", "start again"):
        store = Occurrences.open(url)
        scheduler = Scheduler(store, GameDays([], lambda: everything), run)
        began = time.perf_counter()
        await scheduler.start()
        print(f"{f'{SCHEDULES} schedules: {what}':<58} {time.perf_counter() - began:9.2f} s")
        if what == "start again":
            await all_held.wait()
            await asyncio.sleep(1)  # until the last is written down
        await scheduler.stop()
        rows = store.between(limit=1000)
        store.close()
    assert len(rows) == AT_ONCE
    assert {row.state for row in rows} == {State.PASSED}
    print(f"{f'{AT_ONCE} firings of one minute: the first is held after':<58} {min(held) * 1000:9.1f} ms")
    print(f"{f'{AT_ONCE} firings of one minute: the last is held after':<58} {max(held) * 1000:9.1f} ms")


def claims(url: str, minute: datetime) -> None:
    """Print how long it takes to claim all schedules at once."""

    store = Occurrences.open(url)
    later = minute + timedelta(days=400)
    new = [New(f"{n:016x}", f"day-{n}", later, later) for n in range(SCHEDULES)]
    began = time.perf_counter()
    store.settle(new, who="bench", now=later)
    print(f"{f'{SCHEDULES} firings at once: claimed in':<58} {(time.perf_counter() - began) * 1000:9.1f} ms")
    store.close()


def main() -> None:
    """Measure on SQLite; it waits for the next minute but one at most."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'luff.db'}"
        upgrade(url)
        now = datetime.now(UTC)
        minute = (now + timedelta(seconds=80)).replace(second=0, microsecond=0)
        asyncio.run(measure(url, minute))
        claims(url, minute)


if __name__ == "__main__":
    sys.exit(main())
