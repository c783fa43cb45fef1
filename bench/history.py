"""How fast history answers over 100,000 runs with 500,000 checks, and how large the page about 10,000 runs is."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.store import BATCH, EXPERIMENTS, FIRST, RUNS, timed

from luff.outcome import MeshIdentity
from luff.store import Keep, RunFilter, Store, tables, upgrade
from luff.store.runs import _check_rows, _outcome_columns
from luff.testing import Cluster
from tests.factories import failed, passed, run_id
from tests.web.conftest import serving

LUFF = Path(sys.executable).parent / "luff"
PAGE_RUNS = 10_000
MINUTES_BETWEEN = 4


def fill(store: Store) -> None:
    """Write `RUNS` runs with five checks each; an experiment breaks for a while now and then, and is rewritten once."""
    chance = random.Random(7)
    usual = [(_outcome_columns(make()), _check_rows(make())) for make in (passed, failed)]
    for first in range(0, RUNS, BATCH):
        runs, checks = [], []
        for number in range(first, first + BATCH):
            experiment = chance.randrange(EXPERIMENTS)
            broken = experiment % 5 == 0 and number // 7000 % 4 == 3
            columns, rows = usual[broken or chance.random() < 0.01]
            run, began = run_id(number), FIRST + timedelta(minutes=MINUTES_BETWEEN * number)
            runs.append(
                {
                    **columns,
                    "id": run,
                    "caller": f"caller-{experiment % 12}",
                    "dependency": f"dependency-{experiment % 17}",
                    "experiment": f"experiment-{experiment}",
                    "spec_sha256": run_id((experiment, number > 0.7 * RUNS)) * 4,
                    "mesh_kind": "cluster" if experiment % 2 else "lab",
                    "mesh_name": "prod" if experiment % 2 else f"lab-{number}",
                    "started_at": began,
                    "ended_at": began,
                }
            )
            checks += [
                {**rows[place % len(rows)], "run": run, "position": place, "id": f"check-{place}", "measured": 2500 + 100 * chance.random()}
                for place in range(5)
            ]  # fmt: skip
        with store._database.write() as connection:
            connection.execute(insert(tables.run), runs)
            connection.execute(insert(tables.check_result), checks)


def command(*arguments: str, url: str) -> None:
    """Run luff as a user does and print what it took."""
    began = time.perf_counter()
    environment = {**os.environ, "LUFF_STORE": url}
    done = subprocess.run([LUFF, *arguments], capture_output=True, text=True, check=False, env=environment)
    took = time.perf_counter() - began
    print(f"{'luff ' + ' '.join(arguments)[:52]:<58} {took * 1000:9.1f} ms   exit {done.returncode}")
    if done.returncode:
        print(done.stderr[-2000:])


def pages(store: Store) -> None:
    """Ask a server over *store* for its pages, without a socket: the CPU of all of it, and the time."""

    async def whole() -> None:
        mesh = MeshIdentity(kind="cluster", name="prod")
        async with serving(store, Cluster(), identity=mesh) as server, server.browser() as browser:
            for path in ("/", "/runs", "/api/v1/trends?experiment=experiment-7"):
                await browser.get(path)
                began, spent = time.perf_counter(), time.process_time()
                answer = await browser.get(path)
                took, cpu = time.perf_counter() - began, time.process_time() - spent
                print(f"{f'GET {path}':<58} {took * 1000:9.1f} ms, {cpu * 1000:.0f} of CPU   {answer.status_code}")

    asyncio.run(whole())


def main() -> None:
    """Measure SQLite, and PostgreSQL at the addresses that are given."""
    with tempfile.TemporaryDirectory() as folder:
        for url in (f"sqlite:///{folder}/luff.db", *sys.argv[1:]):
            upgrade(url)
            print(f"\n{url.split(':')[0]}: {RUNS} runs, {5 * RUNS} checks")
            with Store.open(url) as store:
                fill(store)
                timed("runs: the newest 50", store.runs)
                timed("runs: 1000 with a label", lambda: store.runs(RunFilter(labels={"team": "books"}), limit=1000))
                timed("standings of all series", store.standings)
                timed("standings of one experiment", lambda: store.standings(experiment="experiment-7"))
                series = store.standings(experiment="experiment-7")[0].series
                timed("trend: the newest 1000 runs", partial(store.trend, series))
                timed("coverage", store.coverage)
                pages(store)
                timed("prune, dry: keep 90 days", lambda: store.prune(Keep(days=90), dry_run=True))
                timed("prune, dry: keep the last 100", lambda: store.prune(Keep(last=100), dry_run=True))
            command("runs", "list", url=url)
            command("runs", "list", "-l", "team=books", "--limit", "1000", url=url)
            command("runs", "coverage", url=url)
            command("trend", url=url)
            command("trend", "experiment-7", url=url)
            command("trend", "experiment-7", "-o", "json", url=url)
            page = Path(folder) / "period.html"
            for runs in (PAGE_RUNS, RUNS):
                since = FIRST + timedelta(minutes=MINUTES_BETWEEN * (RUNS - runs))
                command("report", "--since", since.isoformat(), "--until", "2027-01-01", "--html", str(page), url=url)
                size = page.stat().st_size / 1e6 if page.exists() else float("nan")
                print(f"{f'the page about {runs} runs':<58} {size:9.2f} MB")


if __name__ == "__main__":
    main()
