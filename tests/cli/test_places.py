"""Where a guard would not outlive its parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from luff.cli.places import guard_dies_with_us, guard_log, needs_reaper


@pytest.mark.parametrize(
    ("first", "dies"),
    [
        ("luff", True),
        ("tini", True),
        ("sh", True),
        ("entrypoint.sh", True),
        ("argoexec", True),
        ("entrypoint", True),
        ("s6-svscan", True),
        ("supervisord", True),
        ("sleep", True),
        ("systemd", False),
        ("runit", False),
        ("init", False),
        ("init(Ubuntu)", False),
        ("launchd", False),
    ],
)
def test_a_container_takes_its_guard_along_wherever_in_it_luff_runs(
    monkeypatch: pytest.MonkeyPatch, first: str, dies: bool
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    assert guard_dies_with_us(first=first) is dies


def test_a_pod_that_sees_the_processes_of_its_machine_is_a_container_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")

    assert guard_dies_with_us(first="systemd")


def test_what_this_machine_says_of_itself_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    said = Path("/proc/1/comm")

    assert guard_dies_with_us() is (said.exists() and guard_dies_with_us(first=said.read_text().strip()))


@pytest.mark.parametrize(
    ("in_lab", "accepted", "dies", "needed"),
    [
        (False, False, True, True),
        (False, False, False, False),
        (False, True, True, False),
        (True, False, True, False),
    ],
)
def test_a_reaper_is_needed_on_a_cluster_where_the_guard_dies_too(
    in_lab: bool, accepted: bool, dies: bool, needed: bool
) -> None:
    assert needs_reaper(in_lab=in_lab, accepted=accepted, dies_with_us=dies) is needed


def test_a_run_needs_no_folder_for_what_its_guard_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert guard_log() == tmp_path / "luff" / "guard.log"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert guard_log() is None
