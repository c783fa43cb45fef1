"""Where a guard would not outlive its parent."""

from __future__ import annotations

import pytest

from luff.cli.places import guard_dies_with_us


@pytest.mark.parametrize(
    ("process", "parent", "first", "dies"),
    [
        (1, 0, "luff", True),
        (7, 1, "tini", True),
        (7, 1, "sh", True),
        (7, 1, "systemd", False),
        (4321, 4000, "bash", False),
    ],
)
def test_a_containers_first_process_takes_its_guard_along(process: int, parent: int, first: str, dies: bool) -> None:
    assert guard_dies_with_us(process=process, parent=parent, first=first) is dies
