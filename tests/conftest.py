"""What holds for every test."""

from __future__ import annotations

import gc
import os
import shutil
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from luff.store import upgrade

# How long an example takes says how busy the machine is.
settings.register_profile("luff", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("luff")

# Nothing of what is imported and collected is garbage.
gc.disable()

STORIES = Path(__file__).parent / "story"
"""Whose tests run luff as its users do, beside a lab."""


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of later looks for garbage: whole test files ask for one in each of their tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Begin with the files that have slow tests and go on with the stories, the same number of them on each worker of xdist.

    It deals the list out in equal parts, and who has done its own takes over
    from others: what takes long must not be left to the end, when nobody has
    anything else to do. Files stay whole and in their random order.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    slow = [file for file in files if file[0].path.is_relative_to(STORIES) or any(map(_is_slow, file))]
    quick = [item for file in files if file not in slow for item in file]
    slow.sort(key=lambda file: not any(map(_is_slow, file)))
    count = len(items)
    items.clear()
    for worker in range(workers):
        part = [item for file in slow[worker::workers] for item in file]
        room = max(0, count * (worker + 1) // workers - len(items) - len(part)) if worker + 1 < workers else len(quick)
        items += part + quick[:room]
        del quick[:room]


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out a SQLite database, once for hundreds of tests: to copy it costs next to nothing."""
    file = tmp_path_factory.mktemp("laid-out") / "luff.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def database(laid_out: Path, tmp_path: Path) -> str:
    """Return the address of a new database that is laid out, ``luff.db`` in the folder of the test."""
    return f"sqlite:///{shutil.copy(laid_out, tmp_path / 'luff.db')}"


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None
