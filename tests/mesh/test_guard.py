"""The guard: what confirms a watch, what it inherits, and that one run which cannot be restored keeps no other waiting."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from luff.errors import NoGuard, RunAborted
from luff.guard import LAB_PATIENCE_S, ROUND_PAUSE_S, ROUND_S, SWEEP_MARKS, Guard, _Child
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.lock import lease_ref, locked
from luff.mesh import Kind, Mesh, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.patches import clone
from luff.routes import Injection
from luff.testing import ANSWER_S, Cluster, SimClock, SimMesh, Trouble, virtual_time
from luff.words import Object
from tests.crash.world import BASE, REF, planner
from tests.factories import injection
from tests.mesh.conftest import NAMESPACE

RUN = "0123456789abcdef"
OTHER_RUN = "fedcba9876543210"
PATIENTLY_S = 30.0
LIFE_S = 600


def _injection(object_: Object, run: str, *, life_s: int = 600) -> Injection:
    return injection(object_, "stock", run=run, expires_s=1_700_000_000 + life_s)


def _stored(server: ApiServer, virtual_service: Object, name: str) -> Object:
    virtual_service["metadata"]["name"] = name
    return server.store.put(virtual_service)


def _connection(server: ApiServer, folder: Path) -> Connection:
    server.misbehaviour.clear()
    server.write_kubeconfig(folder / "kubeconfig")
    return Connection(str(folder / "kubeconfig"), "luff-lab")


SLOW = """
import sys, json
answers = json.loads(sys.argv[1])
for line in sys.stdin:
    for answer in answers.pop(0):
        print(json.dumps(answer), flush=True)
"""


async def _scripted(answers: list[list[dict[str, Any]]]) -> Guard:
    """Return a guard that says *answers*, a list of lines for each question."""
    pipe = asyncio.subprocess.PIPE
    return Guard(
        await asyncio.create_subprocess_exec(sys.executable, "-c", SLOW, json.dumps(answers), stdin=pipe, stdout=pipe)
    )


def test_what_is_said_about_an_earlier_run_confirms_no_later_one(virtual_service: Object) -> None:
    ref = Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, "x")
    virtual_service["metadata"] |= {"uid": "u", "resourceVersion": "1"}

    async def story() -> None:
        late = await _scripted([[{"watching": OTHER_RUN}, {"watching": RUN}]])
        await late.watch(ref, _injection(virtual_service, RUN))
        await late.close()
        never = await _scripted([[{"watching": OTHER_RUN}]])
        with pytest.raises(NoGuard, match="did not answer"):
            await never.watch(ref, _injection(virtual_service, RUN))
        await never.close()

    asyncio.run(story())


def test_a_guard_that_has_ended_confirms_nothing(virtual_service: Object) -> None:
    virtual_service["metadata"] |= {"uid": "u", "resourceVersion": "1"}

    async def story() -> None:
        gone = await _scripted([])
        with pytest.raises(NoGuard):
            await gone.watch(Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, "x"), _injection(virtual_service, RUN))
        await gone.close()

    asyncio.run(story())


def test_a_guard_that_reads_nothing_confirms_nothing(virtual_service: Object) -> None:
    virtual_service["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    more_than_a_pipe_holds = Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, "x" * 1_000_000)

    async def story() -> None:
        pipe = asyncio.subprocess.PIPE
        code = "import signal; signal.pause()"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
        with pytest.raises(NoGuard, match="read nothing"):
            await Guard(process).watch(more_than_a_pipe_holds, _injection(virtual_service, RUN))
        process.kill()
        await process.wait()

    asyncio.run(story())


def test_a_guard_carries_no_mark_by_which_a_ci_runner_sweeps_up(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mark in SWEEP_MARKS:
        monkeypatch.setenv(mark, "this-job")
    monkeypatch.setenv("KEPT", "yes")

    async def story() -> set[str]:
        guard = await Guard.start(_connection(server, tmp_path))
        environment = await asyncio.to_thread(Path(f"/proc/{guard.pid}/environ").read_bytes)
        await guard.close()
        return {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0")}

    names = asyncio.run(story())

    assert "KEPT" in names
    assert {"RUNNER_TRACKING_ID", "BUILD_ID", "JENKINS_NODE_COOKIE", "VSTS_PROCESS_LOOKUP_ID"} <= SWEEP_MARKS
    assert not names & SWEEP_MARKS


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENTLY_S):
        while not holds():  # noqa: ASYNC110  # it is another process that makes it so
            await asyncio.sleep(0.01)


def _twins(server: ApiServer, name: str) -> int:
    [object_] = [
        each for each in server.store.objects("virtualservices", NAMESPACE) if each["metadata"]["name"] == name
    ]
    return sum(str(route.get("name")).startswith("luff.1.") for route in object_["spec"]["http"])


WATCH = {"watch": RUN, "namespace": REF.namespace, "name": REF.name, "pinned": "1", "life_s": LIFE_S}


async def _no_other() -> Mesh:
    # What a machine without memory says to whoever wants a thread.
    raise RuntimeError("can't start new thread")


async def _put_in(cluster: Cluster) -> None:
    cluster.add(clone(BASE))
    cluster.change(REF, (await planner(SimMesh(cluster), RUN)()).operations)


@pytest.mark.parametrize("kind", ["cluster", "lab"])
def test_what_its_parent_could_not_take_out_a_guard_takes_out_at_once_and_not_when_its_time_is_over(
    kind: Literal["cluster", "lab"],
) -> None:
    cluster = Cluster()
    away_s = 2 * LAB_PATIENCE_S
    mesh = SimMesh(cluster, kind=kind)

    async def story() -> tuple[float, float]:
        await _put_in(cluster)
        loop = asyncio.get_running_loop()
        child = _Child(mesh, _no_other, SimClock())
        child._hear(WATCH)
        expiry = asyncio.create_task(child._expire())
        began_s = loop.time()
        mesh.trouble = lambda *_: Trouble.ERROR if loop.time() - began_s < away_s else Trouble.NONE

        child._hear({"stranded": OTHER_RUN})
        child._hear({"stranded": RUN})
        await asyncio.sleep(0.01)
        first_s = loop.time() if mesh.calls else LIFE_S
        while child._watched:  # noqa: ASYNC110  # time is simulated
            await asyncio.sleep(0.1)
        expiry.cancel()
        return first_s - began_s, loop.time() - began_s

    with virtual_time() as run:
        first_s, last_s = run(story())

    assert first_s < 1.0
    assert last_s < away_s + ROUND_PAUSE_S + 10.0, "it goes on until it is done"
    assert cluster.objects[REF]["spec"] == BASE["spec"]


@pytest.mark.parametrize(("said", "held"), [({"stranded": RUN}, True), ({}, False)], ids=["gave up", "stopped"])
def test_a_run_that_gave_up_gives_its_lock_back_itself(said: dict[str, Any], *, held: bool) -> None:
    cluster = Cluster()
    mesh = SimMesh(cluster)
    asked: list[RunAborted] = []

    async def story() -> bool:
        await _put_in(cluster)
        run = SimMesh(cluster)
        async with locked(run, REF, run=RUN, holder="tester", clock=SimClock(), stop=asked.append):
            child = _Child(mesh, _no_other, SimClock())
            child._hear({**WATCH, "life_s": 5})
            child._hear(said)
            expiry = asyncio.create_task(child._expire())
            await asyncio.sleep(20)
            expiry.cancel()
            return lease_ref(REF) in cluster.objects

    with virtual_time() as run:
        assert run(story()) is held

    assert cluster.objects[REF]["spec"] == BASE["spec"]
    assert bool(asked) is not held


def test_a_real_guard_takes_over_while_its_parent_lives_on(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, tmp_path: Path
) -> None:
    connection = _connection(server, tmp_path)
    injection = _injection(_stored(server, virtual_service, "stranded"), RUN)
    ref = Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, injection.virtual_service)

    async def story() -> None:
        guard = await Guard.start(connection)
        await guard.watch(ref, injection)
        await adapter.patch(ref, injection.operations)
        await guard.take_over(RUN)
        await _until(lambda: not _twins(server, "stranded"))
        await guard.close()

    asyncio.run(story())


def test_a_guard_that_gets_no_thread_for_new_credentials_goes_on_with_those_that_it_has() -> None:
    cluster = Cluster()
    mesh = SimMesh(cluster)

    async def story() -> None:
        await _put_in(cluster)
        loop = asyncio.get_running_loop()
        mesh.trouble = lambda *_: Trouble.ERROR if loop.time() < 3 * ROUND_S else Trouble.NONE
        child = _Child(mesh, _no_other, SimClock())
        child._hear(WATCH)
        await child._take_out(tuple(child._watched.values()), why="its parent is gone")

    with virtual_time() as run:
        run(story())

    assert cluster.objects[REF]["spec"] == BASE["spec"]


def test_a_guard_whose_kubeconfig_means_another_cluster_by_now_stays_with_the_one_that_has_the_twins(
    server: ApiServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = _connection(server, tmp_path)
    path = Path(str(connection.kubeconfig))
    mesh = KubernetesMesh.connect(connection)

    async def anew() -> Mesh:
        return mesh.anew()

    child = _Child(mesh, anew, SimClock())
    try:
        asyncio.run(child._renew())
        renewed = child._mesh
        document = yaml.safe_load(path.read_text())
        document["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
        path.write_text(yaml.safe_dump(document))
        asyncio.run(child._renew())
    finally:
        mesh.close()

    assert renewed is not mesh
    assert child._mesh is renewed
    assert f"means http://127.0.0.1:9 by now, and not {server.url}" in capfd.readouterr().err


def test_what_lies_in_the_folder_of_a_run_is_none_of_its_guards_modules(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = _connection(server, tmp_path)
    for name in ("calendar", "queue", "kubernetes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)

    async def story() -> None:
        guard = await Guard.start(connection)
        await guard.close()

    asyncio.run(story())


SPEECHLESS = """
import os, sys
os.close(1)
sys.stdin.read()
print("it was let go", file=sys.stderr, flush=True)
os._exit(1)
"""


def test_a_guard_that_has_nothing_to_say_is_let_go_and_its_log_named(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "luff").mkdir()
    (tmp_path / "luff" / "__init__.py").write_text(SPEECHLESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    log = tmp_path / "guard.log"

    with pytest.raises(NoGuard, match=f"ended without a word; read the end of {log}"):
        asyncio.run(Guard.start(_connection(server, tmp_path), log=log))

    assert log.read_text() == "it was let go\n"


def test_from_the_end_of_its_parent_to_clean_a_guard_needs_two_calls_and_waits_for_nothing() -> None:
    cluster, written_s = Cluster(), []
    cluster.add(clone(BASE))
    mesh = SimMesh(cluster)

    async def story() -> None:
        injection = await planner(mesh, RUN)()
        cluster.change(REF, injection.operations)
        mesh.calls.clear()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        cluster.on_write.append(lambda ref, _: written_s.append((ref, loop.time() - began_s)))
        child = _Child(mesh, _no_other, SimClock())
        child._hear(WATCH)
        await child._take_out(tuple(child._watched.values()), why="its parent is gone")

    with virtual_time() as run:
        run(story())

    assert [verb for verb, ref in mesh.calls if ref == REF][:2] == ["read", "patch"]
    [(ref, after_s)] = written_s
    assert ref == REF
    assert after_s == pytest.approx(3 * ANSWER_S), "nothing but the calls themselves takes time"
    assert cluster.objects[REF]["spec"] == BASE["spec"]


def test_a_run_that_cannot_be_restored_keeps_no_other_waiting(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, tmp_path: Path
) -> None:
    connection = _connection(server, tmp_path)
    broken = _injection(_stored(server, virtual_service, "broken"), OTHER_RUN)
    well = _injection(_stored(server, virtual_service, "well"), RUN)

    async def story() -> None:
        guard = await Guard.start(connection)
        for each in (broken, well):
            ref = Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, each.virtual_service)
            await guard.watch(ref, each)
            await adapter.patch(ref, each.operations)
        # What the server says about the one object is nothing that anybody expects.
        server.misbehaviour.add([Rule("status", verb="get", name="broken", code=200, times=1_000_000)])
        guard._process.stdin.close()  # type: ignore[union-attr]  # as the end of its parent does
        await _until(lambda: not _twins(server, "well"))
        server.misbehaviour.clear()
        await _until(lambda: not _twins(server, "broken"))
        await guard.died()

    asyncio.run(story())
