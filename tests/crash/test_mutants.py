"""
Each rule of the protocol, switched off, must make the crash suite fail.

A mutant is a small patch of ``src/luff`` that is applied to a copy; the slice
of the suite runs on that copy in a process of its own. A mutant that survives
is a rule that nothing tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.slice import SEED

ROOT = Path(__file__).parents[2]
MUTANTS = sorted((ROOT / "tests/crash/mutants").glob("*.patch"))
AT_ONCE = 2
ENDLESS_S = 60.0
SIZE = 100
"""How many schedules of each drawn kind a mutant must get through."""
REQUIRED = {
    "journal-after-patch",
    "no-fence",
    "put-of-a-saved-copy",
    "merge-patch-of-the-list",
    "withdraw-by-index",
    "marker-in-an-annotation",
    "no-expiry",
    "no-precondition",
    "give-up",
}


@dataclass(frozen=True)
class Tried:
    """This is what became of one mutant."""

    name: str
    rule: str
    killed: bool
    by: str
    seconds: float


def _copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


def _play(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.slice", str(SEED), str(SIZE)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDLESS_S,
    )


def try_mutant(patch: Path, folder: Path) -> Tried:
    """Apply *patch* to a copy of the product in *folder* and play the slice on it."""
    _copy(folder)
    applied = subprocess.run(
        ["git", "apply", "-p1", str(patch)], cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )
    assert applied.returncode == 0, f"{patch.name} is out of date: {applied.stderr}"
    began_s = time.monotonic()
    try:
        done = _play(folder)
    except subprocess.TimeoutExpired:
        return Tried(patch.stem, patch.read_text().splitlines()[0], killed=True, by="it never ends", seconds=ENDLESS_S)
    by = (done.stdout or done.stderr).strip().splitlines() or ["(nothing said)"]
    return Tried(
        patch.stem,
        patch.read_text().splitlines()[0],
        killed=done.returncode == 1 and not done.stderr,
        by=by[0],
        seconds=time.monotonic() - began_s,
    )


def table(tried: list[Tried]) -> str:
    """Return the table of all mutants, in Markdown."""
    rows = ["| mutant | killed | by | seconds |", "|---|---|---|---|"]
    rows += [f"| {t.name}: {t.rule} | {'yes' if t.killed else 'NO'} | {t.by[:110]} | {t.seconds:.1f} |" for t in tried]
    return "\n".join(rows)


def try_all(folder: Path) -> list[Tried]:
    """Try every mutant, a few at once."""
    folders = [folder / patch.stem for patch in MUTANTS]
    for each in folders:
        each.mkdir(parents=True)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(try_mutant, MUTANTS, folders))


def test_every_rule_has_a_mutant() -> None:
    assert {patch.stem for patch in MUTANTS} >= REQUIRED


@pytest.mark.slow
def test_every_mutant_is_killed_and_the_product_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The copy must be what is played: without a patch the slice passes on it.
    original = _play(_copy(tmp_path / "original"))
    tried = try_all(tmp_path / "mutants")

    with capsys.disabled():
        sys.stdout.write(f"\n{table(tried)}\n")
    assert original.returncode == 0, original.stdout + original.stderr
    assert "distinct" in original.stdout
    assert [t.name for t in tried if not t.killed] == []
