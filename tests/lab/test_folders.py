"""What a lab may do to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from luff import lab as labs
from luff.cli.mesh_choice import bookinfo
from luff.errors import LabError


@pytest.fixture
def state_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder that labs are registered in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("LUFF_LAB_DIR", raising=False)
    return tmp_path / "state"


@pytest.mark.usefixtures("state_home")
@pytest.mark.parametrize(
    "name", ["kubeconfig", "lab.json", "logs/app.log", "order.json", "proxies/mine", "supervisor.log"]
)
def test_a_folder_with_files_that_no_lab_made_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "theirs" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    before = sorted((tmp_path / "theirs").rglob("*"))
    # A lab that came up after all would end at once.
    ended = (tmp_path / "ended").open("w+")

    with ended, pytest.raises(LabError, match=f"theirs holds {Path(name).parts[0]}, which no lab made"):
        labs.start(bookinfo(), directory=tmp_path / "theirs", lifeline_fd=ended.fileno())

    assert sorted((tmp_path / "theirs").rglob("*")) == before
    assert theirs.read_text() == "mine"
