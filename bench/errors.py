"""
How often a verdict is wrong, over many seeded runs, and how many requests it takes.

Every run is judged as while traffic runs: requests as rows in due order, read
look by look by the Judge. Printed, never asserted.
"""

from __future__ import annotations

import random
import time
from operator import add

from luff.checks import PlannedCheck, plan_checks
from luff.model import Experiment
from luff.samples import PHASES, Evidence, Samples
from luff.tallies import Judge, sequential_verdict
from luff.words import Arm, Phase

RUNS = 20_000
CAP = 2_000
LOOK = 20
"""Requests of the fault arm between two looks: at 200/s, ten looks a second."""
MS = 1_000_000
RATES = {1.0: RUNS, 0.3: RUNS, 0.05: RUNS, 0.02: 2_000, 0.01: RUNS, 0.003: 2_000, 0.001: RUNS, 0.0: 2_000}
"""True rates, and the runs for each. A pass is wrong from 1 % on, a fail up to 1 %."""
CONTROL_ERRORS = 0.05


def a_check() -> PlannedCheck:
    """Return a claim that at most 1 % of requests are slower than a second."""
    experiment = Experiment.model_validate(
        {
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"delay": {"duration": "3s"}},
                "traffic": {"requests": [{"url": "http://checkout/cart/42"}], "duration": "100s"},
                "expect": [{"id": "in-time", "kind": "latency", "quantile": 0.99, "limit_s": 1.0}],
            },
        }
    )
    return plan_checks(experiment, rate_hz=20.0)[0]


def one_run(check: PlannedCheck, rng: random.Random, rate: float) -> tuple[str | None, int]:
    """Return what a run is judged to be at a true *rate* of violations, and after how many requests."""
    samples, evidence = Samples(), Evidence("lab-log", "request", settled_through=CAP)
    judge = Judge((check,))
    while len(samples) < CAP:
        add_look(samples, evidence, [3000 * MS if rng.random() < rate else 10 * MS for _ in range(LOOK)])
        if judge.feed(samples, evidence):
            break
    return sequential_verdict(check, judge.tallies[check.id], alpha_fail=check.alpha_fail), len(samples)


def add_look(samples: Samples, evidence: Evidence, latencies_ns: list[int]) -> None:
    """Add answers of the fault arm by whole columns: one by one, making them costs more than judging them."""
    zeros = bytes(LOOK)
    for column in (samples.arm, samples.request, samples.failure, samples.flags):
        column.frombytes(zeros)
    samples.phase.frombytes(bytes([PHASES.index(Phase.FAULT)]) * LOOK)
    due_ns = [(len(samples) + place) * 10 * MS for place in range(LOOK)]
    samples.due_ns.extend(due_ns)
    samples.sent_ns.extend(due_ns)
    samples.done_ns.extend(map(add, due_ns, latencies_ns))
    samples.status.extend([200] * LOOK)
    samples.holds.extend([0] * LOOK)
    evidence.attempts.extend([1] * LOOK)


def stopped_for_nothing(check: PlannedCheck, rng: random.Random) -> bool:
    """Return whether the tripwire on control stops a run at the rate of errors that was declared as normal."""
    samples, judge = Samples(), Judge((check,), control_errors_most=CONTROL_ERRORS)
    for place in range(CAP):
        number = samples.open(Arm.CONTROL, Phase.FAULT, 0, place * MS)
        samples.close(number, done_ns=place * MS + MS, status=500 if rng.random() < CONTROL_ERRORS else 200)
    judge.feed_all(samples, Evidence("lab-log", "request", settled_through=CAP))
    return judge.breached


def main() -> None:
    """Print a row for each true rate of violations."""
    check, began_s = a_check(), time.monotonic()
    print(
        f"a claim of at most {check.threshold:.0%}, {RUNS:,} runs of up to {CAP:,} requests each, judged as they come"
    )
    print(f"{'true rate':>10} {'mean n':>8} {'most n':>8} {'passed':>9} {'failed':>9} {'undecided':>10}")
    for rate, runs in RATES.items():
        rng = random.Random(7)
        found = [one_run(check, rng, rate) for _ in range(runs)]
        sizes, said = [size for _, size in found], [verdict for verdict, _ in found]
        shares = [said.count(verdict) / runs for verdict in ("passed", "failed", None)]
        print(
            f"{rate:>10.2%} {runs:>8,} {sum(sizes) / runs:>8.0f} {max(sizes):>8} {shares[0]:>9.3%} {shares[1]:>9.3%} {shares[2]:>10.3%}",
            flush=True,
        )
    rng = random.Random(7)
    tripped = sum(stopped_for_nothing(check, rng) for _ in range(RUNS // 4))
    print(f"the tripwire at its own rate of {CONTROL_ERRORS:.0%}: {4 * tripped / RUNS:.3%} of runs stopped for nothing")
    print(f"{time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
