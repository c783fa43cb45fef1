"""Labs of real processes: the real command line, real Envoys, and nothing of them left when a test is over."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luff.lab.state import LabState, read_state

LUFF = str(Path(sys.executable).parent / "luff")
WITHIN_S = 60.0
GONE_WITHIN_S = 20.0
MARK = "LUFF_TEST_MARK"
NONSENSE = {
    name: "http://127.0.0.1:9/nonsense"
    for lower in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
    for name in (lower, lower.upper())
} | {"no_proxy": "example.org", "NO_PROXY": "example.org"}

SERVER = """\
import http.server, json, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"me": os.environ["ME"], "path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
"""A service that says what it was asked."""

WORKLOAD = """\
apiVersion: luff.dev/v1alpha1
kind: LabWorkload
metadata: {{name: {name}, namespace: shop, labels: {{version: {version}}}}}
spec:
  service: {service}
  port: 8080
  run: {run}
  env: {{ME: {name}}}
  ready: {{path: /, within: 20s}}
"""


def workload(
    name: str = "back", *, service: str = "back", version: str = "v1", run: str = "[python, server.py]", **more: str
) -> str:
    """Return a LabWorkload; *more* are fields of its spec in YAML that replace or add to the usual ones."""
    lines = WORKLOAD.format(name=name, service=service, version=version, run=run).splitlines()
    kept = [line for line in lines if line.strip().partition(":")[0] not in more]
    return "\n".join([*kept, *(f"  {key}: {value}" for key, value in more.items() if value)]) + "\n"


@dataclass(frozen=True)
class Done:
    """This is a command that has ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def until(holds: Callable[[], Any], *, within_s: float = GONE_WITHIN_S, what: str = "it") -> Any:
    """Return what *holds* returns once it is true; fails when that takes too long."""
    end_s = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end_s, f"{what} did not come to pass in {within_s:g} s"
        time.sleep(0.02)
    return found


def is_running(pid: int) -> bool:
    """Return whether there is such a process, and it is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return not Path("/proc/self").exists()


@dataclass
class Home:
    """This is a user's folder and environment; `marked` finds every process that was started in it."""

    folder: Path
    environment: dict[str, str]
    mark: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    def write(self, *documents: str, name: str = "lab.yaml") -> Path:
        """Write a file of documents, with the server that they may run beside it."""
        (self.folder / "server.py").write_text(SERVER)
        path = self.folder / name
        path.write_text("---\n".join(documents))
        return path

    def luff(self, *arguments: str | Path, within_s: float = WITHIN_S, **environment: str) -> Done:
        """Run luff and return what came of it."""
        process = self.start(*arguments, **environment)
        return self.finish(process, within_s=within_s)

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start luff and leave it running."""
        process = subprocess.Popen(
            [LUFF, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], *, within_s: float = WITHIN_S) -> Done:
        """Wait for what `start` returned."""
        out, err = process.communicate(timeout=within_s)
        return Done(process.returncode, out, err)

    def up(self, path: Path, *arguments: str | Path, directory: Path | None = None, **environment: str) -> LabState:
        """Bring a detached lab up."""
        directory = directory or self.folder / "lab"
        done = self.finish(self.start("lab", "up", path, "--detach", "--dir", directory, *arguments, **environment))
        assert done.code == 0, done
        return self.note(directory)

    def note(self, directory: Path) -> LabState:
        """Return the lab in *directory* once it is up, and remember its processes."""
        state: LabState = until(lambda: read_state(directory), within_s=WITHIN_S, what=f"a lab in {directory}")
        self.pids |= pids_of(state)
        return state

    def temporary_lab(self) -> LabState:
        """Return the lab that is registered in this home, once it is up."""

        def registered() -> Path | None:
            found = list((self.folder / "state" / "luff" / "labs").glob("*.dir"))
            return Path(found[0].read_text().strip()) if found and found[0].read_text() else None

        return self.note(until(registered, within_s=WITHIN_S, what="a lab"))

    def marked(self) -> set[int]:
        """Return the processes of this home, found by a variable in their environment, and those noted."""
        found = {pid for pid in self.pids if is_running(pid)}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes() and is_running(int(entry.name)):
                    found.add(int(entry.name))
        return found

    def nothing_left(self, *, within_s: float = GONE_WITHIN_S) -> None:
        """Wait until no process is left."""
        until(lambda: not self.marked(), within_s=within_s, what=f"the end of {self.marked()}")


def pids_of(state: LabState) -> set[int]:
    """Return the processes that a lab says it has."""
    each = [pid for workload in state.workloads for pid in (workload.pid, workload.proxy_pid)]
    return {state.pid, *(pid for pid in each if pid is not None)}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return an empty home with proxies set that lead nowhere; at the end no process of it may be left."""
    mark = secrets.token_hex(8)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LUFF_", "KUBE", "XDG_"))}
    environment = {
        **kept,
        **NONSENSE,
        MARK: mark,
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "COLUMNS": "200",
    }
    made = Home(tmp_path, environment, mark)
    try:
        yield made
        made.nothing_left()
    finally:
        for pid in made.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in made.started:
            process.wait(WITHIN_S)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
