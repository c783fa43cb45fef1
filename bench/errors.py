"""How often the sequential test is wrong, over many seeded runs, and how many requests it needs. Printed, never asserted."""

from __future__ import annotations

import math
import random
import time

from luff import stats

RUNS = 20_000
CAP = 5_000
THRESHOLD = 0.01
RATES = (0.0, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3, 1.0)
CONTROL_ERRORS = 0.05


def positions(rng: random.Random, rate: float, requests: int) -> list[int]:
    """Return the places of independent violations at *rate* among *requests*."""
    found: list[int] = []
    at = 0
    while rate:
        at += 1 + (math.floor(math.log(rng.random()) / math.log1p(-rate)) if rate < 1 else 0)
        if at > requests:
            break
        found.append(at)
    return found


def main() -> None:
    """Print a row for each true rate of violations."""
    rng = random.Random(7)
    print(f"a claim of at most {THRESHOLD:.0%}, {RUNS:,} runs of up to {CAP:,} requests each")
    print(f"{'true rate':>10} {'mean n':>8} {'passed':>9} {'failed':>9} {'undecided':>10}")
    began_s = time.monotonic()
    for rate in RATES:
        sizes = passed = failed = 0
        for _ in range(RUNS):
            decided = stats.decide_sequentially(
                positions(rng, rate, CAP), CAP, THRESHOLD, alpha_pass=0.05, alpha_fail=stats.ALPHA_FAIL
            )
            sizes += CAP if decided is None else decided[1]
            passed += decided is not None and decided[0] == "passed"
            failed += decided is not None and decided[0] == "failed"
        undecided = RUNS - passed - failed
        print(
            f"{rate:>10.2%} {sizes / RUNS:>8.0f} {passed / RUNS:>9.3%} {failed / RUNS:>9.3%} {undecided / RUNS:>10.3%}"
        )
    tripped = 0
    for _ in range(RUNS):
        places = positions(rng, CONTROL_ERRORS, CAP)
        tripped += any(n <= stats.fails_until(k, CONTROL_ERRORS, 0.001) for k, n in enumerate(places, start=1))
    print(f"the tripwire at its own rate of {CONTROL_ERRORS:.0%}: {tripped / RUNS:.3%} of runs stopped for nothing")
    print(f"{time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
