"""
Every scenario that can be played without a cluster: ``python -m tests.scenes.prove --out build/proof``.

Each one is a pytest of its own with a time limit, so that one that hangs or
dies costs no other; the report is written anew after each. Ends with 1 when
one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from tests.scenes.table import SCENARIOS, Scenario

__all__ = ["Row", "main", "markdown", "rows_of"]

ROOT = Path(__file__).parents[2]
WITHIN_S = 900.0
"""For one scenario; the longest, a minute without an API on each of two ways, takes four minutes on a machine of its own."""
ENDS_WITHIN_S = 20.0
WHOLE = {"LUFF_TEST_AWAY": "60", "LUFF_TEST_STORM": "30"}
"""What the tests take from the environment when there is time for all of it."""
NOTHING = "–"
NOT_UP = "failed on setup"
"""What pytest says of a test that was not begun, as when a lab does not come up."""
SECOND_TRY = " (at the second try: the lab did not come up at first)"
LEGEND = (
    "*Seconds* are from the moment when the routes had to go until that was proven. *Exposure* is the share of the"
    " fault arm's requests that met the fault. – is what a test has no use for, or does not measure."
)


@dataclass(frozen=True, slots=True)
class Row:
    """This is one line of the report: what became of one test of a scenario, and what it recorded."""

    number: int
    test: str
    result: str
    cleaned_by: str = NOTHING
    seconds: str = NOTHING
    exposure: str = NOTHING
    seed: str = NOTHING
    took_s: float = 0.0

    @property
    def failed(self) -> bool:
        """Return whether the scenario did not end as it must."""
        return self.result.startswith("FAILED")


def rows_of(scenario: Scenario, junit: Path, *, ended: str) -> list[Row]:
    """Return the rows that *junit* tells of; *ended* says how pytest ended where that tells nothing."""
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        cases = []
    if not cases:
        return [Row(scenario.number, NOTHING, f"FAILED: {ended or 'it told nothing'}")]
    return [_row(scenario, case) for case in cases]


def _row(scenario: Scenario, case: ElementTree.Element) -> Row:
    # What a test says itself comes before what its fixtures make of the outcomes that it left.
    said = {str(each.get("name")): str(each.get("value")) for each in reversed(list(case.iter("property")))}
    result = "clean"
    for tag, word in (("failure", "FAILED"), ("error", "FAILED"), ("skipped", "not played")):
        for each in case.iter(tag):
            result = f"{word}: {(each.get('message') or '').partition(chr(10))[0][:200]}"
    return Row(
        scenario.number,
        str(case.get("name")),
        result,
        **{key: said.get(key, NOTHING) for key in ("cleaned_by", "seconds", "exposure", "seed")},
        took_s=float(case.get("time") or 0),
    )


def _play(scenario: Scenario, folder: Path, known: dict[str, list[Row]], *, within_s: float) -> list[Row]:
    """Play the tests of *scenario* that were not played for an earlier one, and return the rows of all of them."""
    unknown = [test for test in scenario.tests if test not in known]
    rows = _play_now(scenario, unknown, folder, within_s=within_s) if unknown else []
    if any(NOT_UP in row.result for row in rows):
        # Nothing of the scenario has been played by then, so that this hides nothing of it.
        rows = [
            replace(row, result=f"{row.result}{SECOND_TRY}")
            for row in _play_now(scenario, unknown, folder, within_s=within_s)
        ]
    for test in unknown:
        name = test.partition("::")[2]
        known[test] = [row for row in rows if row.test.partition("[")[0] == name]
    told = [replace(row, number=scenario.number) for test in scenario.tests for row in known[test]]
    # What belongs to no test is a pytest that told nothing.
    return told + [row for row in rows if row.test == NOTHING]


def _play_now(scenario: Scenario, names: Sequence[str], folder: Path, *, within_s: float) -> list[Row]:
    junit = folder / f"{scenario.number}.xml"
    junit.unlink(missing_ok=True)
    tests = [f"tests/{test}" for test in names]
    command = [sys.executable, "-m", "pytest", "-vv", "-n", "0", "-p", "no:randomly", f"--junitxml={junit}"]
    command += ["-o", "junit_family=xunit1", f"--timeout={within_s / 2:.0f}", *tests]
    with (folder / f"{scenario.number}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**WHOLE, **os.environ}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(within_s)
        except subprocess.TimeoutExpired:
            return rows_of(scenario, junit, ended=f"it was not over after {within_s:.0f} s")
        finally:
            # Also when we are ended ourselves: it is in a session of its own.
            if process.poll() is None:
                _end(process)
    return rows_of(scenario, junit, ended=f"pytest ended with {code}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for each in (signal.SIGINT, signal.SIGKILL):
        os.killpg(process.pid, each)
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _short(seconds: str) -> str:
    try:
        return f"{float(seconds):.2f}"
    except ValueError:
        return seconds


def markdown(rows: Sequence[Row], *, took_s: float) -> str:
    """Return the report."""
    what = {each.number: each.what for each in SCENARIOS}
    failed = sum(row.failed for row in rows)
    played = len({row.number for row in rows})
    lines = ["# Scenarios in which a fault could be left behind", ""]
    counted = f"{played} of {len(SCENARIOS)} scenarios were played with {len(rows)} tests in {took_s:.0f} s"
    lines += [f"{counted}; {failed} of {len(rows)} failed.", "", LEGEND, ""]
    lines += [
        "| | scenario | test | result | who cleaned up | seconds | exposure | seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row.number, what[row.number], row.test, row.result.replace("|", "¦"), row.cleaned_by)
        lines.append(
            "| "
            + " | ".join(str(each) for each in (*cells, _short(row.seconds), _short_share(row.exposure), row.seed))
            + " |"
        )
    lines += ["", "## What takes a cluster", ""]
    lines += [f"- {each.number}, {each.what}: {each.says}." for each in SCENARIOS if each.how == "cluster only"]
    lines += ["", "## What stays open", ""]
    lines += [
        f"- {each.number}, {each.what}: {each.says}." for each in SCENARIOS if each.how != "cluster only" and each.says
    ]
    return "\n".join(lines) + "\n"


def _short_share(share: str) -> str:
    return share[:6]


def _write(rows: Sequence[Row], out: Path, *, took_s: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "scenarios.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    (out / "scenarios.md").write_text(markdown(rows, took_s=took_s), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Play, write the report, and return 1 when a scenario failed."""
    parser = argparse.ArgumentParser(prog="scenes", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/proof"), help="the folder of the report")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of scenarios")
    parser.add_argument("--within", type=float, default=WITHIN_S, help="seconds for one scenario")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began_s, rows, known = time.monotonic(), list[Row](), dict[str, list[Row]]()
    logs = chosen.out / "scenarios"
    logs.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        if not scenario.tests or (chosen.only and scenario.number not in chosen.only):
            continue
        of_this = _play(scenario, logs.resolve(), known, within_s=chosen.within)
        rows += of_this
        bad = [row for row in of_this if row.failed]
        said = bad[0].result if bad else "clean"
        sys.stdout.write(f"{scenario.number:3} {scenario.what}: {said}\n")
        sys.stdout.flush()
        _write(rows, chosen.out, took_s=time.monotonic() - began_s)
    sys.stdout.write(f"{chosen.out / 'scenarios.md'}\n")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
