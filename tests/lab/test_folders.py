"""What a lab may do to a folder, and which lab is found in one."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from luff.cli.mesh_choice import bookinfo
from luff.errors import LabError
from luff.lab import lifetimes as labs
from luff.lab.state import KEPT_MOST, LOCK, LabState, forget_old, labs_folder


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


@pytest.mark.usefixtures("state_home")
def test_of_dead_labs_the_newest_are_kept_and_none_that_may_be_about_to_start() -> None:
    folders = {name: labs_folder() / name for name in ("oldest", "older", "old", "starting", "running")}
    for age_days, folder in enumerate(reversed(folders.values())):
        folder.mkdir()
        (folder / LOCK).touch()
        if folder.name != "starting":
            os.utime(folder, times=(0, time.time() - (age_days + 1) * 86400))

    with (folders["running"] / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        forget_old(keep=2)
        assert {each.name for each in labs_folder().iterdir()} == {"old", "starting", "running"}
        forget_old(keep=0)

    assert {each.name for each in labs_folder().iterdir()} == {"starting", "running"}


@pytest.mark.usefixtures("state_home")
def test_labs_that_start_side_by_side_forget_the_same_folders_without_a_quarrel() -> None:
    for number in range(300):
        folder = labs_folder() / f"lab-{number}"
        folder.mkdir()
        os.utime(folder, times=(0, 0))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(forget_old) for _ in range(4)]:
            done.result()

    assert len(list(labs_folder().iterdir())) <= KEPT_MOST


@contextmanager
def alive(folder: Path, *, api: str) -> Iterator[None]:
    """Make *folder* that of a lab that runs, with its API at *api*, until the block ends."""
    folder.mkdir()
    LabState(
        name="a",
        uid="uid-a",
        pid=1,
        started_at="2026-01-01T00:00:00+00:00",
        directory=str(folder),
        kubeconfig="",
        api=api,
        ingress="",
        sidecar="",
        logs="",
        workloads=(),
    ).write()
    (labs_folder() / "uid-a.dir").write_text(str(folder))
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def answer_the_second(listener: socket.socket) -> None:
    """Close the first connection without a word, and answer the second as an API does."""
    listener.accept()[0].close()
    with listener.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@pytest.mark.usefixtures("state_home")
@pytest.mark.parametrize("named", [True, False])
def test_a_lab_that_misses_one_question_is_found_all_the_same(tmp_path: Path, named: bool) -> None:
    folder = tmp_path / "lab"
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        answering = threading.Thread(target=answer_the_second, args=(listener,), daemon=True)
        answering.start()
        with alive(folder, api=f"127.0.0.1:{listener.getsockname()[1]}"):
            found = labs.find(folder if named else None)
        assert found is not None
        assert found.uid == "uid-a"
        answering.join()


@pytest.mark.slow
@pytest.mark.usefixtures("state_home")
def test_a_lab_that_runs_and_does_not_answer_is_said_and_can_be_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lab"
    with alive(folder, api="127.0.0.1:9"):
        with pytest.raises(LabError, match="lab does not answer") as caught:
            labs.find(folder)
        monkeypatch.setenv("LUFF_LAB_DIR", str(folder))
        for named in (folder, None):
            found = labs.running(named)
            assert found is not None
            assert found.uid == "uid-a"

    assert f"luff lab down --dir {folder}" in str(caught.value.next_step)
    assert labs.running() is None
    assert labs.find() is None
