"""Starting costs what it must."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from luff.traffic import loop

LOOKED = """\
import gc, sys
sys.argv[1:] = ["run", "--lab", "/nonexistent.yaml"]
import luff.cli
before = [each["collections"] for each in gc.get_stats()]
try:
    luff.cli.main()
except SystemExit as left:
    after = [each["collections"] for each in gc.get_stats()]
    print(left.code, "luff.store" in sys.modules, [b - a for a, b in zip(before, after)])
"""


@pytest.fixture
def thresholds() -> Iterator[None]:
    kept = gc.get_threshold()
    yield
    gc.set_threshold(*kept)
    gc.unfreeze()


def test_no_garbage_is_looked_for_among_what_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LOOKED], capture_output=True, text=True, check=True)

    assert done.stdout == "2 True [0, 0, 0]\n", done.stderr


@pytest.mark.usefixtures("thresholds")
def test_who_sends_traffic_looks_often_and_through_little() -> None:
    gc.set_threshold(200_000)

    async def seen() -> tuple[tuple[int, int, int], int]:
        return gc.get_threshold(), gc.get_freeze_count()

    found, frozen = loop.run(seen())

    assert found == loop.GARBAGE_AFTER
    assert frozen > 10_000
