"""
The whole proof: ``python -m tests.crash.prove --minutes M``.

Plays everything that can be enumerated, then ever deeper schedules until the
time is over, on every core; then kills each mutant. Writes a report in JSON
and Markdown, and ends with 1 when anything was violated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.crash import schedules as every
from tests.crash.extras import EXTRAS
from tests.crash.plays import play
from tests.crash.slice import SEED, explain
from tests.crash.test_mutants import Tried, table, try_all
from tests.crash.world import Schedule, Violation

__all__ = ["main"]

FAILURES_MOST = 10
"""A worker stops at so many: more tell nothing more."""

KINDS: dict[str, Callable[[], Iterator[Schedule]]] = {
    "one trouble at each call, each writer at each boundary": every.singles,
    "a kill at each await, each writer at each boundary, with and without a guard": every.kills,
    "a kill at each await, one trouble at each call, with and without a guard": every.kills_in_trouble,
    "all pairs of troubles, with nobody and with a drawn writer": lambda: every.pairs(seed=SEED),
}
DEEPER = "two to five troubles, a kill, a writer, drawn by seed"


@dataclass(slots=True)
class Part:
    """This is what one worker did of one kind."""

    kind: str
    played: int = 0
    distinct: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    complete: bool = True


def _work(number: int, of: int, seed: int, end_s: float) -> list[Part]:
    parts = []
    for left, (kind, make) in zip(range(len(KINDS) + 1, 1, -1), KINDS.items(), strict=True):
        # Each kind has its share of what is left, so that a short proof looks at all of them.
        now_s = time.monotonic()
        parts.append(_play(kind, itertools.islice(make(), number, None, of), seed, now_s + (end_s - now_s) / left))
    deeper_seed = seed * 1000 + number
    return [*parts, _play(DEEPER, every.deeper(seed=deeper_seed), deeper_seed, end_s)]


def _play(kind: str, schedules: Iterator[Schedule], seed: int, end_s: float) -> Part:
    part, began_s = Part(kind), time.process_time()
    for schedule in schedules:
        if time.monotonic() > end_s or len(part.failures) >= FAILURES_MOST:
            part.complete = False
            break
        try:
            part.distinct.add(_stable_hash(play(schedule).happened))
        except Violation as violation:
            part.failures.append(explain(violation, schedule, seed=seed))
        part.played += 1
    part.cpu_s = time.process_time() - began_s
    return part


def _stable_hash(schedule: Schedule) -> int:
    """Return a number for *schedule*; workers are forked, so that theirs are the same."""
    return hash(schedule)


def _merge(all_parts: list[list[Part]]) -> list[Part]:
    merged = []
    for parts in zip(*all_parts, strict=True):
        whole = Part(parts[0].kind)
        for part in parts:
            whole.played += part.played
            whole.distinct |= part.distinct
            whole.failures += part.failures
            whole.cpu_s += part.cpu_s
            whole.complete = whole.complete and part.complete
        merged.append(whole)
    return merged


def _extras() -> dict[str, str]:
    """Return what became of what no schedule says, by its name."""
    said = {}
    for extra in EXTRAS:
        try:
            extra()
            said[extra.__name__] = "holds"
        except AssertionError as error:
            said[extra.__name__] = f"VIOLATED: {error}"
    return said


def _report(
    parts: list[Part], extras: dict[str, str], tried: list[Tried], *, seed: int, took_s: float
) -> dict[str, object]:
    distinct: set[int] = set().union(*(part.distinct for part in parts))
    return {
        "seed": seed,
        "seconds": round(took_s, 1),
        "played": sum(part.played for part in parts),
        "distinct": len(distinct),
        "violations": sum(len(part.failures) for part in parts),
        "kinds": [
            {
                "kind": part.kind,
                "played": part.played,
                "distinct": len(part.distinct),
                "per_second_and_core": round(part.played / part.cpu_s) if part.cpu_s else 0,
                "complete": part.complete if part.kind != DEEPER else None,
                "failures": part.failures,
            }
            for part in parts
        ],
        "extras": extras,
        "mutants": [asdict(each) for each in tried],
    }


def _markdown(parts: list[Part], extras: dict[str, str], tried: list[Tried], report: dict[str, object]) -> str:
    counted = (
        "{played} schedules were played, {distinct} of them distinct in what happened, with {violations} violations"
    )
    lines = ["# Proof of the restore protocol", ""]
    lines += [counted.format(**report) + ", in {seconds} s (seed {seed}).".format(**report), ""]
    lines += ["| kind | played | distinct | violations | all of it |", "|---|---|---|---|---|"]
    for part in parts:
        whole = "without end" if part.kind == DEEPER else "yes" if part.complete else "NO"
        lines.append(f"| {part.kind} | {part.played} | {len(part.distinct)} | {len(part.failures)} | {whole} |")
    lines += ["", "| beside the schedules | |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {said} |" for name, said in extras.items()]
    lines += ["", "## Mutants", "", table(tried), ""]
    for failure in [failure for part in parts for failure in part.failures]:
        lines += ["```", failure, "```", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prove, write the report, and return 1 when anything was violated or a mutant lives."""
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long schedules are played")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("proof"), help="the folder of the report")
    chosen = parser.parse_args(arguments)
    began_s = time.monotonic()
    end_s = began_s + 60 * chosen.minutes
    shares = [(number, chosen.workers, chosen.seed, end_s) for number in range(chosen.workers)]
    with multiprocessing.get_context("fork").Pool(chosen.workers) as pool:
        parts = _merge(pool.starmap(_work, shares))
    took_s = time.monotonic() - began_s
    extras = _extras()
    with tempfile.TemporaryDirectory(prefix="luff-mutants-") as folder:
        tried = try_all(Path(folder))
    report = _report(parts, extras, tried, seed=chosen.seed, took_s=took_s)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "crash.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    text = _markdown(parts, extras, tried, report)
    (chosen.out / "crash.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    lives = [each.name for each in tried if not each.killed]
    return 1 if report["violations"] or lives or any(said != "holds" for said in extras.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
