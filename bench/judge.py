"""A million samples judged by the real pipeline: how much processor time and memory it takes, and how long one look holds the event loop."""

from __future__ import annotations

import random
import resource
import sys
import time

from luff.checks import PlannedCheck, plan_checks
from luff.model import Experiment
from luff.outcome import Generator
from luff.samples import Evidence, Flag, Samples
from luff.tallies import Judge
from luff.verdicts import Situation, judge
from luff.words import Arm, Phase

REQUESTS = 1_000_000
MS = 1_000_000
EXPECT = (
    {"id": "in-time", "kind": "latency", "quantile": 0.99, "limit_s": 1.0},
    {"id": "few-errors", "kind": "errors", "at_most_percent": 1.0},
    {"id": "falls-back", "kind": "fallback", "answer": {"status": ["200"]}},
    {"id": "bystanders", "kind": "latency", "arm": "control", "quantile": 0.95, "limit_s": 0.3},
)


def experiment() -> Experiment:
    """Return an experiment with the usual expectations."""
    return Experiment.model_validate(
        {
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"delay": {"duration": "3s"}},
                "traffic": {"requests": [{"url": "http://checkout/cart/42"}], "duration": "500s"},
                "expect": list(EXPECT),
            },
        }
    )


def a_run(bad: float) -> tuple[Samples, Evidence]:
    """Return a million requests of a run, a share *bad* of which violates on the fault arm."""
    rng = random.Random(7)
    samples, evidence = Samples(), Evidence("lab-log", "request")
    for place in range(REQUESTS):
        arm = Arm.FAULT if place % 2 else Arm.CONTROL
        number = samples.open(arm, Phase.FAULT, 0, place * MS // 2)
        samples.sent_ns[number] = samples.due_ns[number]
        fault = arm is Arm.FAULT
        slow = fault and rng.random() < bad
        samples.close(
            number,
            done_ns=samples.due_ns[number] + (3000 if slow else 10) * MS,
            status=200,
            holds=int(fault and not slow),
        )
        evidence.attempts.append(int(fault))
        evidence.fired.append(int(Flag.TWIN) if fault else 0)
    evidence.attempts_total = evidence.fired_total = REQUESTS // 2
    evidence.settled_through = REQUESTS
    return samples, evidence


def longest_look_ms(checks: tuple[PlannedCheck, ...], samples: Samples, evidence: Evidence) -> float:
    """Return how long the longest look held its thread, with everything there to be read at once."""
    reading, longest_s, before = Judge(checks), 0.0, -1
    while reading.read != before:
        before, began_s = reading.read, time.thread_time()
        reading.feed(samples, evidence)
        longest_s = max(longest_s, time.thread_time() - began_s)
    return longest_s * 1000


def main() -> None:
    """Print a row for each share of violations."""
    chaos = experiment()
    checks = plan_checks(chaos, rate_hz=1000.0)
    print(f"{REQUESTS:,} samples, {len(checks)} checks")
    print(f"{'violations':>10} {'judged in':>10} {'longest look':>13} {'verdict':>14}")
    for bad in (0.0, 0.002, 0.0098, 0.5):
        samples, evidence = a_run(bad)
        began_s = time.thread_time()
        found = judge(
            checks,
            samples,
            evidence,
            experiment=chaos,
            situation=Situation(live_ns=0, removed_ns=REQUESTS * MS),
            generator=Generator(late_p99_ms=0.4, healthy=True),
        )
        took_s = time.thread_time() - began_s
        held_ms = longest_look_ms(checks, samples, evidence)
        print(f"{bad:>10.2%} {took_s:>8.2f} s {held_ms:>10.1f} ms {found.verdict:>14}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{peak / (1024 * (1024 if sys.platform == 'darwin' else 1)):.0f} MB at most")


if __name__ == "__main__":
    main()
