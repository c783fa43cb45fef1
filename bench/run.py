"""
What a run costs beyond its traffic, what a plan of a large object costs, and what `luff --help` costs.

Printed, never asserted. The run's figures are medians over several runs of one
experiment against a lab on this machine.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

RUNS = 7
ROUTES = 5_000
TARGETED = 10
LUFF = str(Path(sys.executable).parent / "luff")
EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: bench, namespace: bookinfo}
spec:
  target: {host: ratings, from: {app: reviews}}
  fault: {abort: 503}
  traffic:
    requests: [{url: "http://reviews.bookinfo:9080/reviews/0", headers: {end-user: jason}}]
    rate: 40/s
    duration: 20s
    warmup: 1s
  expect:
    - {latency: {p95: 1s}}
"""


def line(name: str, figure: str) -> None:
    """Print one figure."""
    print(f"{name:<72} {figure:>14}")


def bench_run(folder: Path) -> None:
    """Print the overhead of a run, and its two ways through the data plane."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "LUFF_LAB_DIR": str(folder / "lab")}
    (folder / "bench.yaml").write_text(EXPERIMENT)

    def luff(*arguments: str) -> None:
        done = subprocess.run(
            [LUFF, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"luff {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")

    luff("lab", "up", "--detach", "--dir", "lab")
    rows = []
    try:
        for number in range(RUNS):
            began_s = time.monotonic()
            try:
                luff("run", "--lab", "bench.yaml", "--json", f"{number}.json")
            except RuntimeError as error:
                # On a busy machine a run is inconclusive now and then: the others still say something.
                print(f"run {number} is left out: {error}")
                continue
            rows.append(_parts(json.loads((folder / f"{number}.json").read_text()), time.monotonic() - began_s))
    finally:
        luff("lab", "down")
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        line(name, f"{statistics.median(values) * 1000:.0f} ms")


def _parts(report: dict[str, Any], whole_s: float) -> dict[str, float]:
    [outcome] = report["outcomes"]
    at = {step["phase"]: datetime.fromisoformat(step["at"]).timestamp() for step in reversed(outcome["timeline"])}
    began, ended = (datetime.fromisoformat(outcome[key]).timestamp() for key in ("started_at", "ended_at"))
    traffic_s = (at["armed"] - at["warm-up"]) + (at["withdrawing"] - at["live"])
    return {
        f"inject → seen in every proxy, median of {RUNS}": at["live"] - at["armed"],
        "withdraw → verified in the API and the proxies": outcome["restore"]["seconds"],
        "run beyond warm-up and traffic": (ended - began) - traffic_s,
        "command beyond warm-up and traffic (with its start and the guard's)": whole_s - traffic_s,
    }


def bench_plan() -> None:
    """Print what planning and showing a large object costs, in a process of its own."""
    code = f"""
import json, resource, time
from luff.parse import parse_documents
from luff.plan import MeshView, Stamp, make_plan
from luff.routes import difference
from luff.scope import Scope
from tests.factories import large_virtual_service
[experiment] = parse_documents([("bench", {_EXPERIMENT_FOR_PLAN!r})]).experiments
thing = large_virtual_service({ROUTES}, {TARGETED})
began, cpu = time.perf_counter(), time.process_time()
stamp = Stamp("0" * 16, Scope("a" * 32, "b" * 32), created_s=1, expires_s=601)
plan = make_plan(experiment, MeshView("cluster", "shop", (thing,)), stamp)
lines = len(list(difference(thing, plan.injection)))
took = time.perf_counter() - began
print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(plan.injection.twins), lines]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT)
    took_s, peak_mb, twins, _ = json.loads(done.stdout)
    line(f"plan and diff of {ROUTES:,} routes, {twins} of them targeted", f"{took_s * 1000:.0f} ms")
    line("  its process at its largest", f"{peak_mb:.0f} MB")


_ROOT = Path(__file__).parent.parent
_EXPERIMENT_FOR_PLAN = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: bench, namespace: shop}
spec:
  target: target
  subject: front
  fault: {delay: 1s}
  traffic: GET http://front/
  expect: [{latency: {p95: 3s}}]
"""


def bench_help() -> None:
    """Print the CPU time of `luff --help`, the best of a few."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([LUFF, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    line("luff --help, CPU", f"{min(spent) * 1000:.0f} ms")


def main() -> None:
    """Print everything."""
    bench_help()
    bench_plan()
    with tempfile.TemporaryDirectory() as folder:
        bench_run(Path(folder))


if __name__ == "__main__":
    main()
