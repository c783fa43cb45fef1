"""How fast the store answers over 100,000 runs with 500,000 checks, and how small a million samples are."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).parents[1]))

from luff.store import RunFilter, Store, tables, upgrade
from luff.store.runs import _check_rows, _outcome_columns
from luff.store.samples import encode
from tests.factories import LAB, failed, passed, run_id, samples

RUNS = 100_000
EXPERIMENTS = 50
BATCH = 5_000
SAMPLE_SECONDS = 2000
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def fill(store: Store) -> None:
    """Write the rows of `RUNS` runs with five checks each, without their outcomes."""
    chance = random.Random(7)
    usual = [(make(), _outcome_columns(make()), _check_rows(make())) for make in (passed, failed)]
    for first in range(0, RUNS, BATCH):
        runs, checks = [], []
        for number in range(first, first + BATCH):
            _, columns, rows = usual[chance.random() < 0.1]
            run = run_id(number)
            experiment = chance.randrange(EXPERIMENTS)
            began = FIRST + timedelta(minutes=4 * number)
            edge = {"caller": f"caller-{experiment % 12}", "dependency": f"dependency-{experiment % 17}"}
            runs.append({**columns, **edge, "id": run, "experiment": f"experiment-{experiment}", "started_at": began, "ended_at": began})  # fmt: skip
            checks += [{**rows[place % len(rows)], "run": run, "position": place} for place in range(5)]
        with store._database.write() as connection:
            connection.execute(insert(tables.run), runs)
            connection.execute(insert(tables.check_result), checks)


def timed(name: str, act: Callable[[], object]) -> None:
    """Print how long *act* takes, the best of three."""
    best = min(_seconds(act) for _ in range(3))
    print(f"{name:<58} {best * 1000:9.1f} ms")


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(url: str) -> None:
    """Fill the database at *url* and ask it what people ask."""
    upgrade(url)
    print(f"\n{url.split(':')[0]}")
    with Store.open(url) as store:
        print(f"{'filling':<58} {_seconds(lambda: fill(store)):9.1f} s")
        middle = store.runs(RunFilter(until=FIRST + timedelta(minutes=2 * RUNS)), limit=1)[0].run
        timed("runs list: the newest 50", store.runs)
        timed("runs list: 50 from the middle", lambda: store.runs(before=middle))
        timed("runs list: the newest 1000", lambda: store.runs(limit=1000))
        timed("runs list: failed, of one experiment", lambda: store.runs(RunFilter(experiment="experiment-7", verdict="failed")))  # fmt: skip
        timed("runs list: by a label that none has", lambda: store.runs(RunFilter(labels={"team": "nobody"})))
        timed("runs show: by 8 digits", lambda: store.run(middle[:8]))
        series = store.standings(experiment="experiment-7")[0].series
        timed("trend: the newest 1000 runs of an experiment", lambda: store.trend(series))
        timed("trend: all its 2000 runs", lambda: store.trend(series, limit=RUNS))
        for name in ("experiment-7", "experiment-none"):
            newest = partial(store.runs, RunFilter(experiment=name, verdict="passed"), limit=1)
            timed(f"newest pass of {name}", newest)
        timed("coverage", store.coverage)
        made, kept = passed(run="f" * 16, mesh=LAB), samples(seconds=60)
        timed("record an outcome with 2800 samples (again: nothing)", lambda: store.record(made, kept))
        numbers = iter(range(100))
        timed("record an outcome with 2800 samples", lambda: store.record(passed(run=run_id(("new", next(numbers)))), kept))  # fmt: skip


def size_of_samples() -> None:
    """Print how small the samples of a long run are in the store."""
    kept = samples(seconds=SAMPLE_SECONDS)
    blocks = list(encode(kept))
    rows = sum(count for count, _ in blocks)
    size = sum(len(body) for _, body in blocks)
    print(f"{f'a million samples as the store keeps them ({rows} made)':<58} {size / rows:9.1f} MB")


def main() -> None:
    """Measure SQLite, and PostgreSQL at the address that is given."""
    with tempfile.TemporaryDirectory() as folder:
        measure(f"sqlite:///{folder}/luff.db")
        size = sum(part.stat().st_size for part in Path(folder).iterdir())
        print(f"{'size of the database without outcomes':<58} {size / 1e6:9.1f} MB")
    size_of_samples()
    for url in sys.argv[1:]:
        measure(url)


if __name__ == "__main__":
    main()
