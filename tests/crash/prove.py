"""
The whole proof: ``python -m tests.crash.prove --minutes M``.

Kills each mutant; then plays everything that can be enumerated, and ever deeper
schedules until the time is over, on every core. Writes a report in JSON
and Markdown. Ends with 1 when anything was violated, a mutant lives, a kind was
not played to its end, or fewer schedules were distinct than are asked for: a
proof that fell short is none.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.crash import schedules as every
from tests.crash.extras import EXTRAS
from tests.crash.plays import play
from tests.crash.slice import SEED, explain
from tests.crash.test_mutants import Tried, table, try_all
from tests.crash.world import Schedule, Violation

__all__ = ["DEEPER", "DISTINCT_LEAST", "Part", "main", "shortfalls"]

FAILURES_MOST = 10
"""A worker stops at so many: more tell nothing more."""

DISTINCT_LEAST = 500_000
"""So many schedules that differ in what happened make a proof."""
LITTER_MOST = 500
"""So many plays between two looks for garbage: looking costs more than it frees."""


@dataclass(frozen=True, slots=True)
class Kind:
    """This is a kind of schedules: what is enumerated to the last one, and what of it is only drawn."""

    says: str
    make: Callable[[int], Iterator[Schedule]]
    drawn: str = ""


KINDS = (
    Kind("one trouble at each call, each writer at each boundary", lambda _: every.singles()),
    Kind("a kill at each await, each writer at each boundary, with and without a guard", lambda _: every.kills()),
    Kind(
        "a kill at each await, one trouble at each call, with and without a guard", lambda _: every.kills_in_trouble()
    ),
    Kind(
        "a kill at each await of the other process, or one trouble at each of its calls: a reaper, a restore of all or "
        "a second luff begun at each boundary; the guard or a reaper of a run killed at each await",
        lambda seed: every.others(seed=seed),
        drawn="the boundary at which another begins where both are killed",
    ),
    Kind(
        "a whole run with its verdict: one trouble at each call, a stop at each, access denied from each on, both, "
        "a kill at each await, each writer at each boundary",
        lambda seed: every.wholes(seed=seed),
        drawn="whether its proxies are unseen, seen or stale",
    ),
    Kind(
        "all pairs of troubles with nobody, and each pair with drawn writers",
        lambda seed: every.pairs(seed=seed),
        drawn=every.how_pairs_are_drawn(),
    ),
)
DEEPER = "three to six troubles, a kill, a writer, a kill and troubles of another process"


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
    gc.disable()
    for left, kind in zip(range(len(KINDS) + 1, 1, -1), KINDS, strict=True):
        # Each kind has its share of what is left, so that a short proof looks at all of them.
        now_s = time.monotonic()
        schedules = itertools.islice(kind.make(seed), number, None, of)
        parts.append(_play(kind.says, schedules, seed, now_s + (end_s - now_s) / left))
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
        if part.played % LITTER_MOST == 0:
            gc.collect()
    part.cpu_s = time.process_time() - began_s
    return part


def _stable_hash(schedule: Schedule) -> int:
    """Return a number for *schedule* that is the same in every process: those of all workers are merged by it."""
    return int.from_bytes(hashlib.blake2b(repr(schedule).encode(), digest_size=8).digest(), "big")


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


def shortfalls(parts: Sequence[Part], extras: Mapping[str, str], tried: Sequence[Tried]) -> list[str]:
    """Return in sentences why this is no proof; nothing when it is one."""
    said = [f"{len(part.failures)} violations: {part.kind}" for part in parts if part.failures]
    said += [f"not played to its end: {part.kind}" for part in parts if part.kind != DEEPER and not part.complete]
    distinct = len(_all_distinct(parts))
    if distinct < DISTINCT_LEAST:
        said.append(f"{distinct} distinct schedules are fewer than {DISTINCT_LEAST}")
    said += [f"beside the schedules: {name.replace('_', ' ')}" for name, found in extras.items() if found != "holds"]
    said += [f"a mutant lives: {each.name}" for each in tried if not each.killed]
    return said


def _all_distinct(parts: Sequence[Part]) -> set[int]:
    return set().union(*(part.distinct for part in parts))


def _report(
    parts: list[Part], extras: dict[str, str], tried: list[Tried], *, seed: int, took_s: float
) -> dict[str, object]:
    return {
        "proven": not shortfalls(parts, extras, tried),
        "shortfalls": shortfalls(parts, extras, tried),
        "seed": seed,
        "seconds": round(took_s, 1),
        "played": sum(part.played for part in parts),
        "distinct": len(_all_distinct(parts)),
        "distinct_least": DISTINCT_LEAST,
        "violations": sum(len(part.failures) for part in parts),
        "kinds": [
            {
                "kind": part.kind,
                "played": part.played,
                "distinct": len(part.distinct),
                "per_second_and_core": round(part.played / part.cpu_s) if part.cpu_s else 0,
                "complete": part.complete if part.kind != DEEPER else None,
                "drawn": _drawn(part.kind),
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
    lines += [f"**NOT PROVEN**: {said}" for said in shortfalls(parts, extras, tried)] or ["Proven: nothing fell short."]
    lines += ["", "| kind | played | distinct | violations | all of it | drawn by seed |", "|---|---|---|---|---|---|"]
    for part in parts:
        whole = "without end" if part.kind == DEEPER else "yes" if part.complete else "NO"
        counts = f"{part.played} | {len(part.distinct)} | {len(part.failures)}"
        lines.append(f"| {part.kind} | {counts} | {whole} | {_drawn(part.kind) or 'nothing'} |")
    lines += ["", "| beside the schedules | |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {said} |" for name, said in extras.items()]
    lines += ["", "## Mutants", "", table(tried), ""]
    for failure in [failure for part in parts for failure in part.failures]:
        lines += ["```", failure, "```", ""]
    return "\n".join(lines)


def _drawn(kind: str) -> str:
    return "everything" if kind == DEEPER else next(each.drawn for each in KINDS if each.says == kind)


def main(arguments: list[str] | None = None) -> int:
    """Prove, write the report, and return 1 when it fell short in anything."""
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("--minutes", type=float, default=45.0, help="how long schedules are played")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("proof"), help="the folder of the report")
    chosen = parser.parse_args(arguments)
    # First, since a patch that is out of date ends this with an error.
    with tempfile.TemporaryDirectory(prefix="luff-mutants-") as folder:
        tried = try_all(Path(folder))
    began_s = time.monotonic()
    end_s = began_s + 60 * chosen.minutes
    shares = [(number, chosen.workers, chosen.seed, end_s) for number in range(chosen.workers)]
    with multiprocessing.get_context("fork").Pool(chosen.workers) as pool:
        parts = _merge(pool.starmap(_work, shares))
    took_s = time.monotonic() - began_s
    extras = _extras()
    report = _report(parts, extras, tried, seed=chosen.seed, took_s=took_s)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "crash.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    text = _markdown(parts, extras, tried, report)
    (chosen.out / "crash.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if report["proven"] else 1


if __name__ == "__main__":
    sys.exit(main())
