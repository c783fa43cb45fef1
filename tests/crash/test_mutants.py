"""
Each rule of the protocol, switched off, must make the crash suite fail.

A mutant is a small patch of ``src/luff`` that is applied to a copy; the slice
of the suite runs on that copy in a process of its own. A mutant that survives
is a rule that nothing tests; so is one that fails for another reason than the
one its patch expects, or that only takes too long.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.extras import EXTRAS
from tests.crash.slice import EXTRAS_FIRST, SEED

ROOT = Path(__file__).parents[2]
MUTANTS = sorted((ROOT / "tests/crash/mutants").glob("*.patch"))
AT_ONCE = 2
EXPECTED = "expect: "
"""What the slice must say about the mutant stands after this in its patch."""
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
    "damage-counts-as-refused",
    "stranded-hidden-by-a-stop",
    "another-run-confirmed",
    "judged-without-a-receipt",
    "fence-left",
}


@dataclass(frozen=True)
class Tried:
    """This is what became of one mutant."""

    name: str
    rule: str
    expected: str
    killed: bool
    by: str


def _copy(folder: Path) -> Path:
    # With what is compiled already: a patched file is newer than that and compiled again.
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    return folder


def _play(folder: Path, *, size: int = SIZE, expected: str = "") -> subprocess.CompletedProcess[str]:
    named = expected.replace(" ", "_")
    first = [EXTRAS_FIRST] if any(extra.__name__ == named for extra in EXTRAS) else []
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.slice", str(SEED), str(size), *first],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def try_mutant(patch: Path, folder: Path) -> Tried:
    """Apply *patch* to a copy of the product in *folder* and play the slice on it."""
    _copy(folder)
    applied = subprocess.run(
        ["git", "apply", "-p1", str(patch)], cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )
    if applied.returncode != 0:
        raise ValueError(f"{patch.name} is out of date: {applied.stderr}")
    rule, expectation, *_ = patch.read_text(encoding="utf-8").splitlines()
    if not expectation.startswith(EXPECTED):
        raise ValueError(f"{patch.name}:2: it does not say what it expects")
    expected = expectation.removeprefix(EXPECTED)
    done = _play(folder, expected=expected)
    by = (done.stderr or done.stdout).strip().splitlines() or [f"(nothing said, ended with {done.returncode})"]
    # Only a violation kills: neither a crash, nor the kernel's end of what takes too long.
    killed = done.returncode == 1 and not done.stderr and expected in by[0]
    return Tried(patch.stem, rule, expected, killed, by[0])


def table(tried: list[Tried]) -> str:
    """Return the table of all mutants, in Markdown."""
    rows = ["| mutant | killed | by |", "|---|---|---|"]
    rows += [f"| {t.name}: {t.rule} | {_said(t)} | {t.by[:110]} |" for t in tried]
    return "\n".join(rows)


def _said(tried: Tried) -> str:
    return "yes" if tried.killed else f"NO, expected: {tried.expected}"


def try_all(folder: Path) -> list[Tried]:
    """Try every mutant, a few at once."""
    folders = [folder / patch.stem for patch in MUTANTS]
    for each in folders:
        each.mkdir(parents=True)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(try_mutant, MUTANTS, folders))


def test_every_rule_has_a_mutant() -> None:
    assert {patch.stem for patch in MUTANTS} >= REQUIRED


def test_a_patch_that_does_not_apply_is_an_error_and_no_kill(tmp_path: Path) -> None:
    patch = tmp_path / "gone.patch"
    patch.write_text(MUTANTS[0].read_text().replace("/src/luff/", "/src/luff/gone/"))

    with pytest.raises(ValueError, match="out of date"):
        try_mutant(patch, tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_mutant_is_killed_and_the_product_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The copy must be what is played: without a patch the beginning of the slice passes on it, all of it is played elsewhere.
    original = _play(_copy(tmp_path / "original"), size=0)
    tried = try_all(tmp_path / "mutants")

    with capsys.disabled():
        sys.stdout.write(f"\n{table(tried)}\n")
    assert original.returncode == 0, original.stdout + original.stderr
    assert "distinct" in original.stdout
    assert [t.name for t in tried if not t.killed] == []
