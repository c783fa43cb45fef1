"""Where a guard would not outlive its parent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from luff.cli.places import guard_dies_with_us, guard_log, needs_reaper


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


@pytest.mark.parametrize(
    ("kind", "accepted", "dies", "needed"),
    [
        ("cluster", False, True, True),
        ("cluster", False, False, False),
        ("cluster", True, True, False),
        ("lab", False, True, False),
    ],
)
def test_a_reaper_is_needed_on_a_cluster_where_the_guard_dies_too(
    kind: Literal["lab", "cluster"], accepted: bool, dies: bool, needed: bool
) -> None:
    assert needs_reaper(kind, accepted=accepted, dies_with_us=dies) is needed


def test_a_run_needs_no_folder_for_what_its_guard_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert guard_log() == tmp_path / "luff" / "guard.log"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert guard_log() is None
