"""
The product as its user has it: the real command line against a real lab, with a caller's environment full of nonsense.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
import yaml

from luff.lever import LEVER
from luff.outcome import Outcome
from luff.store import RunFilter, Store
from tests.factories import valid, validate

BOOKINFO = "/apis/networking.istio.io/v1/namespaces/bookinfo/virtualservices/ratings"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/bookinfo/leases"
LUFF = str(Path(sys.executable).parent / "luff")
KUBECTL = str(Path(sys.executable).parent / "kubectl")
WITHIN_S = 60.0
NONSENSE = {
    name: "http://127.0.0.1:9/nonsense"
    for lower in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
    for name in (lower, lower.upper())
}


Live: TypeAlias = Callable[[], subprocess.Popen[str]]
"""Starts a run of two minutes, and returns once the API has its twins."""


@dataclass(frozen=True)
class Done:
    """This is a command that has ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass
class Shell:
    """This runs commands as a user would, in one folder and one environment."""

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def luff(self, *arguments: str | Path, within_s: float = WITHIN_S, **environment: str) -> Done:
        """Run luff and return what came of it."""
        return self._run(LUFF, *arguments, within_s=within_s, **environment)

    def kubectl(self, *arguments: str) -> Done:
        """Run kubectl."""
        return self._run(KUBECTL, *arguments, within_s=WITHIN_S)

    def program(self, program: str, *arguments: str) -> Done:
        """Run another program, such as one that runs luff in other circumstances."""
        return self._run(program, *arguments, within_s=WITHIN_S)

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

    def outcome(self, name: str = "out.json") -> dict[str, Any]:
        """Return the one outcome that a command wrote to *name*."""
        [outcome] = json.loads((self.folder / name).read_text())["outcomes"]
        assert isinstance(outcome, dict)
        return outcome

    def virtual_service(self, name: str, namespace: str = "bookinfo") -> dict[str, Any]:
        """Return an object as kubectl sees it."""
        found = self.kubectl("get", "virtualservice", name, "-n", namespace, "-o", "json")
        assert found.code == 0, found
        loaded = json.loads(found.out)
        assert isinstance(loaded, dict)
        return loaded

    def twins(self, name: str) -> list[str]:
        """Return the names of luff's routes in an object."""
        routes = self.virtual_service(name)["spec"]["http"]
        return [route["name"] for route in routes if str(route.get("name", "")).startswith("luff.1.")]

    def _run(self, program: str, *arguments: str | Path, within_s: float, **environment: str) -> Done:
        done = subprocess.run(
            [program, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


def until(holds: Callable[[], Any], *, within_s: float = WITHIN_S) -> Any:
    """Return what *holds* returns once it is true; fails when that takes too long."""
    end_s = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end_s, "it did not come to pass in time"
        time.sleep(0.05)
    return found


def environment_in(folder: Path) -> dict[str, str]:
    """Return a user's environment: a home of its own, and proxies that lead nowhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LUFF_", "KUBE", "XDG_"))}
    return {
        **kept,
        **NONSENSE,
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "160",
    }


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Bring up bookinfo once for a worker's whole session; yields the environment in which it is found."""
    folder = tmp_path_factory.mktemp("home")
    environment = environment_in(folder)
    shell = Shell(folder, environment)
    up = shell.luff("lab", "up", "--detach", "--dir", folder / "lab")
    assert up.code == 0, up
    yield {**environment, "KUBECONFIG": str(folder / "lab" / "kubeconfig"), "LUFF_LAB_DIR": str(folder / "lab")}
    down = shell.luff("lab", "down", "--dir", folder / "lab")
    assert down.code == 0, down


@pytest.fixture
def shell(
    home: dict[str, str], database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Iterator[Shell]:
    """Return a shell in an empty folder with a store of its own; nothing may be injected afterwards."""
    made = Shell(tmp_path, {**home, "LUFF_STORE": database})
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    for outcome in _validate_all(tmp_path):
        _record(outcome, record_property)
    _check_clean(made)


def _check_clean(shell: Shell) -> None:
    """Hold that nothing is injected and no lever is on; puts back what is left, so that the next test is not blamed."""
    found = shell.kubectl("get", "virtualservices,configmaps", "-A", "-o", "json")
    if found.code == 0 and not re.search(rf'"(luff\.(?!dev/)|{LEVER}")', found.out):
        return
    left = shell.luff("status", "--lab")
    if left.code:
        shell.luff("restore", "--lab", "--all")
    assert left.code == 0, f"{found}\n{left}"


def _record(outcome: Outcome, record: Callable[[str, object], None]) -> None:
    """Give the proof's report what it shows of a run."""
    record("seed", outcome.seed)
    record("cleaned_by", "nothing was injected" if outcome.restore is None else "run")
    if outcome.restore is not None:
        record("seconds", outcome.restore.seconds)
    if outcome.evidence is not None:
        record("exposure", outcome.evidence.exposure)


def _validate_all(folder: Path) -> list[Outcome]:
    """Hold every outcome that a test's commands wrote or kept in history to the published schema, and return those in history."""
    kept: list[Outcome] = []
    for path in folder.glob("*.json"):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and "outcomes" in document:
            validate(document)
    if (folder / "luff.db").exists():
        with Store.open(f"sqlite:///{folder}/luff.db") as store:
            for row in store.runs(RunFilter(), limit=100):
                if row.verdict is not None:
                    kept.append(store.outcome(row.run))
                    valid(kept[-1])
    return kept


EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {{name: {name}, namespace: bookinfo}}
spec:
  target: {{host: ratings, from: {{app: reviews}}}}
  fault: {{abort: 503}}
  traffic:
    requests: [{{url: "http://reviews.bookinfo:9080/reviews/0", headers: {{end-user: jason}}}}]
    rate: {rate}
    duration: {duration}
    warmup: 1s
  expect:
    - {{id: no-stars, fallback: {{status: 200, json: {{path: "$.reviews[*].rating.stars", exists: false}}, atLeast: {at_least}}}}}
"""

ENDLESS = {"rate": "5/s", "duration": "120s", "at_least": "99.3%"}
"""What does not pass before it was live for a minute and a half, and leaves the machine to others meanwhile."""


@pytest.fixture
def quick(shell: Shell) -> Path:
    """Return an experiment that passes within a few seconds."""
    path = shell.folder / "quick.yaml"
    path.write_text(EXPERIMENT.format(name="quick", rate="40/s", duration="20s", at_least="90%"))
    return path


@pytest.fixture
def endless(shell: Shell) -> Path:
    """Return an experiment that is live for a minute if nobody stops it."""
    path = shell.folder / "endless.yaml"
    path.write_text(EXPERIMENT.format(name="endless", **ENDLESS))
    return path


@dataclass
class Api:
    """This is the lab's API as nobody else has it: at once, and with its failures to order."""

    client: httpx.Client

    def routes(self) -> list[str]:
        """Return the names of the routes of *ratings*."""
        return [str(route.get("name", "")) for route in self.spec()["http"]]

    def spec(self) -> dict[str, Any]:
        """Return the spec of *ratings*."""
        found = self.client.get(BOOKINFO)
        assert found.status_code == 200, found.text
        spec: dict[str, Any] = found.json()["spec"]
        return spec

    def patch(self, *operations: dict[str, Any]) -> None:
        """Patch *ratings* as somebody else does."""
        headers = {"Content-Type": "application/json-patch+json"}
        done = self.client.patch(BOOKINFO, json=list(operations), headers=headers)
        assert done.status_code == 200, done.text

    def twins(self) -> set[str]:
        """Return the runs that have a twin in *ratings*."""
        return {name.split(".")[2] for name in self.routes() if name.startswith("luff.1.")}

    def leases(self) -> list[dict[str, Any]]:
        """Return the Leases of runs."""
        found: list[dict[str, Any]] = self.client.get(LEASES).json()["items"]
        return [each for each in found if each["metadata"]["name"].startswith("luff-")]

    def forget_leases(self) -> None:
        """Delete the Leases that could not be given back: they run out by themselves, but nobody waits for that here."""
        for lease in self.leases():
            self.client.delete(f"{LEASES}/{lease['metadata']['name']}")

    def misbehave(self, **rule: Any) -> None:
        """Let it fail in this way."""
        answer = self.client.post("/luff/misbehave", json=[rule])
        assert answer.status_code == 200, answer.text

    def behave(self) -> int:
        """Let it be well again, and return how many rules were not used up."""
        left = len(self.client.get("/luff/misbehave").json())
        self.client.delete("/luff/misbehave")
        return left


@pytest.fixture
def api(shell: Shell) -> Iterator[Api]:
    """Return the API, which behaves again afterwards."""
    kubeconfig = yaml.safe_load(Path(shell.environment["KUBECONFIG"]).read_text())
    user, cluster = kubeconfig["users"][0]["user"], kubeconfig["clusters"][0]["cluster"]
    headers = {"Authorization": f"Bearer {user['token']}"}
    with httpx.Client(base_url=cluster["server"], headers=headers, trust_env=False) as client:
        made = Api(client)
        yield made
        made.behave()
        made.forget_leases()


@pytest.fixture
def live(shell: Shell, endless: Path, api: Api) -> Live:
    """Return a function that starts a run of two minutes and returns once its proxies have the twins."""

    def start() -> subprocess.Popen[str]:
        running = shell.start("run", "--lab", endless, "--json", "out.json")
        until(lambda: api.twins() or running.poll() is not None)
        assert running.poll() is None, shell.finish(running)
        return running

    return start
