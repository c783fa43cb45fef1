"""What holds for every test."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of later looks for garbage: whole test files ask for one in each of their tests."""
    gc.collect()
    gc.freeze()
