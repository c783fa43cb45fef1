"""Several runs as one command: an outcome for each, whatever goes wrong with one of them, with history or with who reads."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.cli.options import MeshOptions, Voice
from luff.cli.places import keep_traceback
from luff.cli.running import Crew, Done, RunSettings, may_have_lost_the_race
from luff.clock import SystemClock
from luff.errors import UsageError
from luff.evidence.response_header import ResponseHeader
from luff.lifecycle import Phase
from luff.model import PolicySpec
from luff.outcome import MeshIdentity, Outcome
from luff.parse import parse_documents
from luff.run import World
from luff.testing import Cluster, MemoryJournal, NoWatcher, SimMesh
from luff.traffic import loop
from luff.words import Verdict
from tests.factories import aborted, errored, stranded, valid

EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: NAME, namespace: shop}
spec:
  target: stock
  subject: stock
  fault: {abort: 503}
  traffic: {requests: [GET http://stock/], rate: 200/s, duration: 2s, warmup: 0s}
  expect: [{errors: {atMost: 50%}}]
"""
SETTINGS = RunSettings(
    mesh=MeshOptions(lab=False, context=None, kubeconfig=None, namespace=None),
    store=None,
    seed=1,
    fail_fast=False,
    voice=Voice(level=-1, color=None),
    accept_inert_leftover=True,  # whether the machine of this test is a container is no part of it
)


@dataclass
class _History:
    """This is a store that keeps outcomes in memory, or breaks."""

    error: Exception | None = None
    kept: list[Outcome] = field(default_factory=list)

    def record(self, outcome: Outcome, _samples: Any) -> None:
        """Keep *outcome*."""
        if self.error is not None:
            raise self.error
        self.kept.append(outcome)


class _Clock(SystemClock):
    """This is a clock that breaks the first time that it is asked."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def now_s(self) -> float:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().now_s()


def _ran(
    *names: str,
    clock_error: Exception | None = None,
    history: _History | None = None,
    each: Callable[[Outcome], None] = lambda _: None,
    objects: Sequence[dict[str, Any]] = (),
    text: str = EXPERIMENT,
    status: int = 200,
    settings: RunSettings = SETTINGS,
    policy: PolicySpec | None = None,
) -> list[Outcome]:
    """Run experiments on a mesh of *objects* only, without which each ends with an error; returns their outcomes."""

    async def never() -> int:
        await asyncio.Event().wait()
        return 0

    async def work() -> list[Outcome]:
        cluster = Cluster()
        for object_ in objects:
            cluster.add(object_)
        world = World(
            mesh=SimMesh(cluster),
            identity=MeshIdentity(kind="cluster", name="sim"),
            journal=MemoryJournal(),
            watcher=NoWatcher(),
            watcher_died=never,
            clock=_Clock(clock_error),
            transport=lambda _: httpx.MockTransport(lambda _: httpx.Response(status)),
            source=lambda *_: ResponseHeader(),
            plane=None,
        )
        experiments = [parse_documents([("e.yaml", text.replace("NAME", name))]).experiments[0] for name in names]
        done = Done()
        await Crew(world, history or _History(), settings, done, each, policy).work(experiments)  # type: ignore[arg-type]  # it only records
        return [valid(outcome) for outcome in done.outcomes]

    return asyncio.run(work())


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let traces of mistakes go to a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "luff"


def test_a_mistake_of_ours_in_one_run_is_its_outcome_and_no_matter_to_the_others(state: Path) -> None:
    outcomes = _ran("odd", "plain", clock_error=KeyError("bug"))

    found = {outcome.experiment: outcome for outcome in outcomes}
    assert (found["odd"].verdict, found["odd"].reason) == (Verdict.ERROR, "internal")
    assert "KeyError: 'bug'" in found["odd"].explanation
    assert str(state) in found["odd"].explanation
    assert "Traceback" in (state / "last-internal-error.txt").read_text()
    assert found["plain"].reason is not None
    assert found["plain"].reason != "internal"


def test_a_mistake_of_ours_before_several_runs_at_once_is_the_outcome_of_each() -> None:
    shop = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    odd = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "stock", "namespace": "shop"},
        "spec": {"hosts": ["stock"], "http": [{"route": "not a list"}]},
    }

    outcomes = _ran("a", "b", objects=[shop, odd], settings=replace(SETTINGS, parallel=2))

    assert {(outcome.experiment, outcome.reason) for outcome in outcomes} == {("a", "internal"), ("b", "internal")}
    assert len(outcomes) == 2


def test_a_command_line_that_is_wrong_for_the_first_run_is_said_and_nothing_runs() -> None:
    with pytest.raises(UsageError, match="no Prometheus"):
        _ran("one", "two", clock_error=UsageError("there is no Prometheus"))


@pytest.mark.parametrize("error", [KeyError("bug"), OSError(28, "No space left on device")])
def test_an_outcome_is_not_lost_over_what_history_does(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = _ran("one", "two", history=_History(error))

    assert [outcome.experiment for outcome in outcomes] == ["one", "two"]
    assert "not in history" in capsys.readouterr().err


def test_a_reader_that_has_left_ends_no_run() -> None:
    code = """
import sys
from tests.cli.test_running import _ran

def each(outcome):
    raise BrokenPipeError

print(len(_ran("one", "two", each=each)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)  # fmt: skip

    assert done.stderr == "2\n"


def test_a_mistake_in_telling_an_outcome_takes_none_of_the_others_away(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def each(_: Outcome) -> None:
        raise AttributeError("encoding")

    outcomes = _ran("one", "two", each=each)

    assert [outcome.experiment for outcome in outcomes] == ["one", "two"]
    assert "the outcome of two could not be told: luff made a mistake: AttributeError" in capsys.readouterr().err
    assert "Traceback" in (state / "last-internal-error.txt").read_text()


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_mistake_between_the_runs_leaves_no_experiment_without_an_outcome(parallel: int) -> None:
    def passes(_: Outcome) -> bool:
        raise KeyError("bug")

    settings = replace(SETTINGS, fail_fast=True, passes=passes, parallel=parallel)
    outcomes = _ran("one", "two", "three", settings=settings)

    assert sorted(outcome.experiment for outcome in outcomes) == ["one", "three", "two"]
    assert [outcome.reason for outcome in outcomes if outcome.experiment == "three"] == ["internal"]


def test_printing_to_a_closed_pipe_changes_no_exit_code() -> None:
    code = """
import sys
from luff.cli.options import Voice
from luff.cli.paint import print_outcomes
from tests.factories import stranded

for _ in range(3):
    print_outcomes([stranded()], voice=Voice(level=0, color=None))
sys.exit(7)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate()

    assert (process.returncode, err) == (7, b"")


def test_a_signal_reaches_the_runs_and_later_ones_end_nothing() -> None:
    code = """
import asyncio, os, signal
from luff.cli.signals import heeded

async def work():
    heard = asyncio.Event()
    with heeded(lambda number: heard.set()):
        os.kill(os.getpid(), NUMBER)
        await heard.wait()
    os.kill(os.getpid(), NUMBER)

asyncio.run(work())
os.kill(os.getpid(), NUMBER)
raise SystemExit(7)
"""
    for number in (signal.SIGINT, signal.SIGTERM):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("NUMBER", str(int(number)))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7, done.stderr
        assert done.stderr == "luff: the runs have ended; writing what was learnt\n" * 2


def test_a_run_is_tried_again_only_when_it_left_nothing_behind() -> None:
    assert may_have_lost_the_race(errored(restore=None))
    assert not may_have_lost_the_race(errored(restore=None, phase=Phase.STRANDED))
    assert not may_have_lost_the_race(stranded())
    assert not may_have_lost_the_race(aborted(restore=None))


def test_a_trace_is_kept_elsewhere_when_the_state_folder_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    kept = Path(keep_traceback("Traceback: \udcff"))

    try:
        assert kept.read_text(encoding="utf-8") == "Traceback: \\udcff"
    finally:
        kept.unlink()


STOCK = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "stock", "namespace": "shop"},
    "spec": {"hosts": ["stock"], "http": [{"route": [{"destination": {"host": "stock"}}]}]},
}
SPACES: list[dict[str, Any]] = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("shop", "luff-system")
]


def test_what_may_have_been_bad_luck_is_tried_once_more_and_both_tries_are_kept() -> None:
    history = _History()
    text = EXPERIMENT.replace("warmup: 0s", "warmup: 100ms")
    found = _ran("sick", history=history, objects=[STOCK, *SPACES], text=text, status=503)
    assert [(outcome.verdict, outcome.reason) for outcome in found] == [(Verdict.INCONCLUSIVE, "control_unhealthy")]
    first, second = history.kept
    assert first.first_try is None
    assert second.first_try is not None
    assert (second.first_try.run, second.run) == (first.run, found[0].run)
    assert first.run != second.run


def test_an_error_is_not_tried_again() -> None:
    history = _History()
    assert [outcome.verdict for outcome in _ran("lost", history=history)] == [Verdict.ERROR]
    assert len(history.kept) == 1


def test_what_only_a_policy_allows_is_not_run_twice_at_once_on_one_object() -> None:
    text = EXPERIMENT.replace("{abort: 503}", "{delay: 1s}").replace("warmup: 0s", "warmup: 100ms")
    settings = replace(SETTINGS, parallel=2)

    policy = PolicySpec(max_held=500.0)
    found = _ran("one", "two", objects=[STOCK, *SPACES], text=text, status=503, settings=settings, policy=policy)

    assert [outcome.reason for outcome in found] == ["control_unhealthy"] * 2


def test_no_search_for_garbage_in_mid_run_goes_through_what_was_there_before() -> None:
    gc.unfreeze()
    there = len(gc.get_objects())
    left: list[int] = []

    async def work() -> None:
        left.append(len(gc.get_objects()))

    try:
        loop.run(work())
    finally:
        gc.unfreeze()

    assert left[0] < there / 10
