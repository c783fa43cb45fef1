"""
Bad days of an API server with the real client in front of it: whatever it does, no twin is left, or it is said.

The numbers are those of the list of scenarios in docs/scenarios.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from luff.clock import SystemClock
from luff.errors import Conflict, MeshBusy, MeshError, Rejected, RestoreNotVerified
from luff.guard import ROUND_S, Guard
from luff.inject import INJECT_TRIES, Hands, Live, injected
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.lifecycle import Intent, Phase
from luff.mesh import Mesh, Operation, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh, Limits
from luff.names import http_routes
from luff.reaper import Reaper
from luff.restore import find_injected, put_back
from luff.routes import Injection
from luff.testing import MemoryJournal, NoWatcher
from luff.withdraw import Withdrawal, remaining, withdraw
from luff.words import Object
from tests.factories import injection
from tests.mesh.conftest import NAMESPACE
from tests.misbehaving_proxy import MisbehavingProxy, Toxic, kubeconfig_through

RUN = "0123456789abcdef"
MANY = 1_000_000
PATIENTLY_S = 60.0
Told = Callable[[str, object], None]
"""What pytest's ``record_property`` is: the proof's report has what it is given."""


async def _injection(mesh: Mesh, ref: Ref, run: str = RUN, *, life_s: int = 600) -> Injection:
    object_ = await mesh.read(ref)
    now_s = int(await mesh.server_time_s())
    return injection(object_, "stock", run=run, created_s=now_s, expires_s=now_s + life_s)


def _never() -> None:
    raise AssertionError("it was injected")


@dataclass
class Stage:
    """
    This is one VirtualService with one route on the server, luff's own *mesh*, and what the proof is told.

    *live* is the last run that was played on it.
    """

    server: ApiServer
    mesh: KubernetesMesh
    original: Object
    tell: Told
    run: str = RUN
    live: Live = field(default_factory=Live)
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    @property
    def ref(self) -> Ref:
        """Which object it is about."""
        return Ref.of(self.original)

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"/apis/networking.istio.io/v1/namespaces/{self.ref.namespace}/virtualservices/{self.ref.name}"

    @property
    def now(self) -> Object:
        """The object as it is."""
        [found] = [each for each in self.server.store.objects("virtualservices") if Ref.of(each) == self.ref]
        return found

    @property
    def names(self) -> list[str | None]:
        """The names of its routes, in order; ``["all"]`` at first."""
        return [route.get("name") for route in http_routes(self.now)]

    def edit(self, change: Callable[[Object], object]) -> None:
        """Write as somebody else does, with all that they have read."""
        object_ = self.now
        change(object_)
        self.server.store.put(object_)

    def as_somebody(
        self, method: str, body: Any = None, *, path: str = "", content_type: str = "application/merge-patch+json"
    ) -> None:
        """Ask the server for the object, or for *path*, as a client that is not luff."""
        headers = {"Authorization": "Bearer t0ken", "Content-Type": content_type}
        done = httpx.request(method, self.server.url + (path or self.path), json=body, headers=headers, trust_env=False)
        assert done.status_code == 200, done.text

    def misbehave(self, *rules: Rule) -> None:
        """Let the server fail as *rules* say."""
        self.server.misbehaviour.add(list(rules))

    async def put_in(self, run: str | None = None, *, life_s: int = 600) -> Injection:
        """Insert the twins, of another *run* if given, and leave them."""
        injection = await _injection(self.mesh, self.ref, run or self.run, life_s=life_s)
        await self.mesh.patch(self.ref, injection.operations)
        return injection

    @asynccontextmanager
    async def injected(self, patience_s: float = PATIENTLY_S) -> AsyncIterator[None]:
        """Be in a run for the life of the body."""
        self.live = Live()
        hands = Hands(self.mesh, self.journal, NoWatcher(), SystemClock())
        plan = partial(_injection, self.mesh, self.ref, self.run)
        async with injected(plan, hands, live=self.live, patience_s=patience_s):
            yield

    def play(self, meanwhile: Callable[[], object]) -> None:
        """Play a whole run; *meanwhile* is called once its twins are in."""

        async def story() -> None:
            async with self.injected():
                meanwhile()

        asyncio.run(story())

    async def withdraw(self, injection: Injection) -> None:
        """Take out what was left."""
        pinned = injection.resource_version
        self.live.withdrawal = await withdraw(
            self.mesh, self.ref, run=self.run, clock=SystemClock(), pinned=pinned, patience_s=PATIENTLY_S
        )

    @property
    def withdrawal(self) -> Withdrawal:
        """The proof of the last run."""
        assert self.live.withdrawal is not None
        return self.live.withdrawal

    def is_back(self, names: Sequence[str] = ("all",)) -> None:
        """See that the run took its twins out, and nothing else, and tell the proof."""
        assert self.names == list(names)
        self.tell("cleaned_by", "run")
        self.tell("seconds", self.withdrawal.seconds)


@pytest.fixture
def stage(server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told) -> Stage:
    """Return a stage with an object of its own, on the server that all tests share."""
    server.store.put(virtual_service)
    return Stage(server, adapter, virtual_service, record_property)


# --- 10: the loop of the process that injected is blocked


def test_10_a_guard_takes_out_what_a_blocked_event_loop_leaves_in_for_too_long(stage: Stage, tmp_path: Path) -> None:
    async def story() -> float:
        guard = await Guard.start(Connection(str(tmp_path / "kubeconfig"), "luff-lab"))
        injection = await _injection(stage.mesh, stage.ref, life_s=1)
        await guard.watch(stage.ref, injection)
        await stage.mesh.patch(stage.ref, injection.operations)
        began_s = time.monotonic()
        while stage.names != ["all"]:
            # No await in here: nothing else in this process comes to its turn.
            assert time.monotonic() - began_s < PATIENTLY_S
        took_s = time.monotonic() - began_s
        await guard.close()
        return took_s

    stage.tell("cleaned_by", "guard")
    stage.tell("seconds", asyncio.run(story()))


# --- 15: an upgrade in the middle


def test_15_a_run_that_ends_leaves_the_twins_of_a_newer_luff_alone(stage: Stage) -> None:
    newer = f"luff.2.{'f' * 16}.whatever.it.means"

    def add(object_: Object) -> None:
        twin = next(route for route in object_["spec"]["http"] if route["name"] != "all")
        object_["spec"]["http"].insert(0, {**twin, "name": newer})

    stage.play(lambda: stage.edit(add))

    stage.is_back([newer, "all"])


# --- 19, 20, 21: the network

NETWORK = {
    "latency": Toxic("latency", seconds=0.5),
    "reset before the request": Toxic("reset", way="request", times=3),
    "reset in the answer": Toxic("reset", after_bytes=40, times=3),
    "half closed": Toxic("half_close", after_bytes=60, times=3),
    "cut in the request": Toxic("cut", way="request", after_bytes=200, times=3),
    "cut in the answer": Toxic("cut", after_bytes=300, times=3),
    "answer lost": Toxic("reply_lost", times=3),
    "refused": Toxic("refuse", times=5),
    "black hole": Toxic("black_hole"),
}
HOLE_S = 3.0
"""How long nothing gets through; the client's own limit is far longer."""


class BadWay:
    """This is a mesh whose way to the API server leads through a proxy that can be told to misbehave."""

    def __init__(self, mesh: KubernetesMesh, proxy: MisbehavingProxy) -> None:
        self.mesh = mesh
        self._proxy = proxy
        self._timers: list[threading.Timer] = []

    def misbehave(self, toxic: Toxic) -> None:
        """Let the proxy misbehave: as often as *toxic* says, or for a while."""
        self._proxy.set(toxic)
        if toxic.kind == "refuse":
            # It is about new connections: one that is open already would never meet it.
            self._proxy.drop()
        if toxic.times is None:
            self._timers.append(threading.Timer(HOLE_S, self._proxy.set, [None]))
            self._timers[-1].start()

    @property
    def struck(self) -> int:
        """How many connections met a toxic so far."""
        return self._proxy.struck

    def close(self) -> None:
        """Leave no timer behind."""
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self.mesh.close()


@pytest.fixture
def bad_way(server: ApiServer, tmp_path: Path) -> Iterator[BadWay]:
    """Return a way that is good until it is told otherwise."""
    server.misbehaviour.clear()
    server.write_kubeconfig(tmp_path / "straight")
    with MisbehavingProxy() as proxy:
        port = proxy.start(("127.0.0.1", int(server.url.rpartition(":")[2])))
        kubeconfig = kubeconfig_through(port, tmp_path / "straight", tmp_path / "through")
        way = BadWay(KubernetesMesh.connect(Connection(str(kubeconfig), "luff-lab", kind="lab")), proxy)
        yield way
        way.close()


@pytest.mark.parametrize("toxic", NETWORK.values(), ids=NETWORK)
def test_19_a_bad_network_at_the_restore_is_waited_out(stage: Stage, bad_way: BadWay, toxic: Toxic) -> None:
    stage.mesh = bad_way.mesh

    stage.play(lambda: bad_way.misbehave(toxic))

    assert bad_way.struck > 0
    stage.is_back()


@pytest.mark.parametrize("toxic", NETWORK.values(), ids=NETWORK)
def test_20_a_bad_network_at_the_inject_leaves_nothing(stage: Stage, bad_way: BadWay, toxic: Toxic) -> None:
    class Arming(MemoryJournal):
        """This is the last that is asked before the patch is sent."""

        async def arm(self, intent: Intent) -> None:
            await super().arm(intent)
            bad_way.misbehave(toxic)

    stage.mesh, stage.journal = bad_way.mesh, Arming()

    with contextlib.suppress(MeshError):
        stage.play(lambda: None)

    assert bad_way.struck > 0
    stage.is_back()


# --- 24, 26: others write all the time; reads that show the past

EVERY_S = 0.05
LATE_S = 0.4
"""How long a write of luff's is on its way while somebody writes all the time; each is overtaken several times."""


class Counting(KubernetesMesh):
    """This is the real mesh, and counts how often its writes met those of somebody else."""

    conflicts = 0

    async def patch(self, ref: Ref, operations: Sequence[Operation], *, dry_run: bool = False) -> Object:
        try:
            return await super().patch(ref, operations, dry_run=dry_run)
        except Conflict:
            self.conflicts += 1
            raise


@pytest.fixture
def luffs_own(server: ApiServer, tmp_path: Path) -> Iterator[Counting]:
    """Return luff's way to the server as a user named luff, so that rules can be made for nobody else."""
    server.misbehaviour.clear()
    server.add_user("luff", "luffs-own")
    server.write_kubeconfig(tmp_path / "luffs-own", token="luffs-own")
    mesh = Counting.connect(Connection(str(tmp_path / "luffs-own"), "luff-lab", kind="lab"))
    assert isinstance(mesh, Counting)
    yield mesh
    mesh.close()
    server.misbehaviour.clear()


@contextmanager
def _somebody_writes(stage: Stage) -> Iterator[list[str]]:
    """Put one more route on top every 50 ms, beside the body, and yield the names of those that were accepted."""
    ended, names = threading.Event(), list[str]()

    def write() -> None:
        while not ended.wait(EVERY_S):
            name = f"theirs-{len(names)}"
            match = [{"uri": {"exact": f"/{name}"}}]
            route = {"name": name, "match": match, "route": [{"destination": {"host": "theirs"}}]}
            operation = {"op": "add", "path": "/spec/http/0", "value": route}
            stage.as_somebody("PATCH", [operation], content_type="application/json-patch+json")
            names.insert(0, name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield names
    finally:
        ended.set()
        writer.join()


def test_24_an_inject_that_somebody_overtakes_each_time_is_given_up_and_leaves_nothing(
    stage: Stage, luffs_own: Counting
) -> None:
    stage.mesh = luffs_own
    stage.misbehave(Rule("delay", verb="patch", user="luff", seconds=LATE_S, times=MANY))

    with _somebody_writes(stage) as theirs, pytest.raises(Conflict):
        stage.play(_never)

    assert luffs_own.conflicts == INJECT_TRIES
    stage.is_back([*theirs, "all"])


def test_24_a_storm_of_429_and_of_somebody_who_writes_all_the_time_is_waited_out(
    stage: Stage, luffs_own: Counting
) -> None:
    stage.mesh = luffs_own
    late = Rule("delay", verb="patch", user="luff", seconds=LATE_S)
    busy = Rule("status", verb="patch", user="luff", code=429, retry_after=1)
    theirs: list[str] = []

    with contextlib.ExitStack() as stack:

        def storm() -> None:
            nonlocal theirs
            theirs = stack.enter_context(_somebody_writes(stage))
            stage.misbehave(*(replace(rule) for rule in (late, busy, late, busy, late)))

        stage.play(storm)

    assert luffs_own.conflicts >= 3
    assert not stage.server.misbehaviour.left()
    assert stage.withdrawal.tries > 5
    stage.is_back([*theirs, "all"])


def test_26_a_replica_that_has_stopped_is_not_believed(stage: Stage) -> None:
    async def story() -> None:
        injection = await _injection(stage.mesh, stage.ref)
        # From here on every read shows the object as it was before there was a twin.
        stage.misbehave(Rule("frozen", plural="virtualservices", times=2))
        await stage.mesh.patch(stage.ref, injection.operations)
        await stage.withdraw(injection)

    asyncio.run(story())

    assert stage.withdrawal.removed
    stage.is_back()


# --- 27: an answer that never comes


def test_27_answers_that_never_come_are_given_up_and_asked_for_again(stage: Stage, tmp_path: Path) -> None:
    connection = Connection(str(tmp_path / "kubeconfig"), "luff-lab", kind="lab")
    stage.mesh = KubernetesMesh.connect(connection, limits=Limits(answer_s=0.3))

    stage.play(lambda: stage.misbehave(*(Rule("hang", verb=verb, times=2) for verb in ("read", "patch"))))
    stage.mesh.close()

    assert not stage.server.misbehaviour.left()
    assert stage.withdrawal.tries > 4
    stage.is_back()


# --- 30: the authority that signed the API server's certificate is another one by now


def _authority(folder: Path, name: str) -> Path:
    """Make a certificate for 127.0.0.1 that is its own authority; its key is beside it."""
    certificate = folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate.with_suffix(".key"),
         "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate


class Terminator:
    """This speaks TLS in front of a plain server, with a certificate that can be changed."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self.port = 0

    async def serve(self, certificate: Path) -> None:
        """Serve with *certificate* from now on; connections that were made with another one end."""
        if self._server is not None:
            self._server.close()
            self._server.close_clients() if hasattr(self._server, "close_clients") else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Accept no more."""
        assert self._server is not None
        self._server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # One request for each connection, so that the next one meets the certificate of then.
        there, upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        pumping = asyncio.ensure_future(_pump(reader, upstream))
        try:
            await _pump_one_answer(there, writer)
        finally:
            pumping.cancel()
            for each in (writer, upstream):
                each.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        sink.write(piece)
        await sink.drain()


async def _pump_one_answer(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    head = await source.readuntil(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    sink.write(b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]))
    [length] = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")] or [0]
    sink.write(await source.readexactly(length))
    await sink.drain()


def _kubeconfig(server: ApiServer, path: Path, *, port: int, authority: Path) -> None:
    beside = path.with_suffix(".new")
    server.write_kubeconfig(beside)
    document = yaml.safe_load(beside.read_text())
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
    document["clusters"][0]["cluster"] = cluster
    beside.write_text(yaml.safe_dump(document))
    beside.replace(path)


@pytest.mark.slow
def test_30_a_guard_restores_though_the_certificate_authority_was_changed(stage: Stage, tmp_path: Path) -> None:
    old, new = _authority(tmp_path, "old"), _authority(tmp_path, "new")
    kubeconfig = tmp_path / "through-tls"

    async def story() -> float:
        terminator = Terminator(int(stage.server.url.rpartition(":")[2]))
        await terminator.serve(old)
        _kubeconfig(stage.server, kubeconfig, port=terminator.port, authority=old)
        guard = await Guard.start(Connection(str(kubeconfig), "luff-lab"))
        injection = await _injection(stage.mesh, stage.ref)
        await guard.watch(stage.ref, injection)
        await stage.mesh.patch(stage.ref, injection.operations)

        await terminator.serve(new)
        _kubeconfig(stage.server, kubeconfig, port=terminator.port, authority=new)
        began_s = time.monotonic()
        guard._process.stdin.close()  # type: ignore[union-attr]  # as the end of its parent does
        await asyncio.wait_for(guard.died(), ROUND_S + PATIENTLY_S)
        await terminator.stop()
        return time.monotonic() - began_s

    took_s = asyncio.run(story())

    assert stage.names == ["all"]
    stage.tell("cleaned_by", "guard")
    stage.tell("seconds", took_s)


# --- 31: etcd is put back from a backup


def test_31_a_backup_from_before_the_inject_takes_the_twins_and_time_with_it(stage: Stage) -> None:
    backup = stage.server.store.backup()
    for number in range(20):
        stage.as_somebody("PATCH", {"metadata": {"annotations": {"writes": str(number)}}})

    # resourceVersions are lower afterwards than what the inject was pinned to.
    stage.play(lambda: stage.server.store.restore(backup))

    assert stage.withdrawal.fenced, "a read of a lower version proves nothing"
    stage.is_back()


def test_31_a_backup_from_during_the_run_brings_twins_back_and_luff_restore_takes_them(stage: Stage) -> None:
    async def story() -> list[str | None]:
        async with stage.injected():
            backup = stage.server.store.backup()
        assert stage.names == ["all"]
        stage.server.store.restore(backup)
        came_back = stage.names
        found, _ = await find_injected(stage.mesh, [NAMESPACE])
        mine = [each for each in found if each.ref == stage.ref]
        assert [each.state for each in mine] == ["orphaned"]
        done = await put_back(stage.mesh, mine, clock=SystemClock(), patience_s=30)
        assert isinstance(done[0], Withdrawal)
        return came_back

    assert len(asyncio.run(story())) == 2, "the backup had twins in it"
    assert stage.names == ["all"]
    stage.tell("cleaned_by", "luff restore")


# --- 32 to 37: admission


def test_32_a_webhook_that_is_down_at_the_inject_leaves_nothing(stage: Stage) -> None:
    # The inject, and the first write of the restore, which proves that it was not applied.
    stage.misbehave(Rule("webhook_down", verb="patch", plural="virtualservices", times=2))

    with pytest.raises(MeshBusy):
        stage.play(_never)

    stage.is_back()


def test_32_a_webhook_that_is_down_at_the_restore_is_waited_for(stage: Stage) -> None:
    stage.play(lambda: stage.misbehave(Rule("webhook_down", verb="patch", plural="virtualservices", times=6)))

    assert stage.withdrawal.tries > 6
    stage.is_back()


def test_33_fields_that_a_webhook_adds_to_a_twin_keep_nobody_from_removing_it(stage: Stage) -> None:
    added = {"timeout": "7s", "headers": {"request": {"set": {"x-by": "webhook"}}}, "fromTheFuture": [1]}
    stage.misbehave(Rule("mutate", plural="virtualservices", routes="luff.", change=added, times=MANY))
    seen: list[object] = []

    stage.play(lambda: seen.extend(route.get("timeout") for route in http_routes(stage.now)))

    assert seen == ["7s", None]
    assert stage.now["spec"] == stage.original["spec"]
    stage.is_back()


def test_34_a_twin_that_a_webhook_renames_is_still_known_and_removed_by_a_reaper(stage: Stage) -> None:
    rename = Rule("mutate", plural="virtualservices", routes="luff.1.", change={"name": "luff.by-webhook"}, times=1)
    stage.misbehave(rename)

    async def story() -> list[str | None]:
        await stage.put_in()
        renamed = stage.names
        sweep = await Reaper(stage.mesh, SystemClock(), namespaces=[NAMESPACE]).sweep()
        reasons = [reason for ref, _, reason in sweep.removed if ref == stage.ref]
        assert reasons == ["its name is not one that luff writes"]
        return renamed

    assert asyncio.run(story()) == ["luff.by-webhook", "all"]
    assert stage.names == ["all"]
    stage.tell("cleaned_by", "reaper")


@pytest.mark.parametrize("name", [None, "theirs-{name}"])
def test_34_names_that_are_lost_at_the_inject_are_never_taken_for_clean(stage: Stage, name: str | None) -> None:
    # The dry run of the preflight does not show it: then nothing would have been sent.
    stage.misbehave(
        Rule("mutate", plural="virtualservices", routes="luff.", change={"name": name}, dry_run=False, times=MANY)
    )

    with pytest.raises(RestoreNotVerified) as raised:
        stage.play(lambda: None)

    assert stage.journal.phases[RUN][-1] is Phase.STRANDED
    assert raised.value.next_step is not None
    assert f"kubectl edit virtualservice {stage.ref.name} -n {NAMESPACE}" in raised.value.next_step
    stage.tell("cleaned_by", "nobody: it is said, with the command (7)")


@asynccontextmanager
async def _until_disarmed(stage: Stage, policy: Rule) -> AsyncIterator[None]:
    """Have *policy* in force beside the body, and lift it as soon as no twin has a fault any more."""

    async def lift() -> None:
        while not _is_disarmed(stage):  # noqa: ASYNC110  # another thread makes it so
            await asyncio.sleep(0.01)
        stage.server.misbehaviour.clear()

    stage.misbehave(policy)
    lifting = asyncio.ensure_future(lift())
    try:
        yield
    finally:
        await asyncio.wait_for(lifting, PATIENTLY_S)


def _is_disarmed(stage: Stage) -> bool:
    twins = [route for route in http_routes(stage.now) if str(route.get("name")).startswith("luff.")]
    return bool(twins) and not any("fault" in route for route in twins)


@pytest.mark.parametrize("code", [403, 422])
def test_35_a_policy_that_forbids_the_removal_leaves_a_route_that_does_nothing_until_it_is_lifted(
    stage: Stage, code: int
) -> None:
    deny = Rule("deny", verb="patch", plural="virtualservices", name=stage.ref.name, routes="luff.", when="absent", code=code, times=MANY)  # fmt: skip

    async def story() -> None:
        injection = await stage.put_in()
        async with _until_disarmed(stage, deny):
            await stage.withdraw(injection)

    asyncio.run(story())

    assert stage.withdrawal.removed
    stage.is_back()


@pytest.mark.parametrize("code", [403, 422])
def test_36_a_removal_that_would_leave_no_route_at_all_disarms_the_twin_until_it_may(stage: Stage, code: int) -> None:
    deny = Rule("deny", plural="virtualservices", name=stage.ref.name, when="empty", code=code, times=MANY)

    async def story() -> None:
        injection = await stage.put_in()
        # Somebody takes every route of their own out, and the webhook wants at least one.
        stage.edit(lambda object_: object_["spec"]["http"].pop())
        async with _until_disarmed(stage, deny):
            await stage.withdraw(injection)

    asyncio.run(story())

    assert stage.withdrawal.removed
    stage.is_back([])


@pytest.mark.parametrize("code", [403, 422])
def test_37_what_the_dry_run_allowed_and_the_write_does_not_leaves_nothing(stage: Stage, code: int) -> None:
    stage.misbehave(Rule("deny", plural="virtualservices", routes="luff.", when="present", dry_run=False, code=code, times=MANY))  # fmt: skip

    async def story() -> None:
        injection = await _injection(stage.mesh, stage.ref)
        await stage.mesh.patch(stage.ref, injection.operations, dry_run=True)
        async with stage.injected():
            _never()

    with pytest.raises(Rejected):
        asyncio.run(story())

    assert stage.journal.phases[RUN][-1] is Phase.CLEAN
    assert stage.names == ["all"]
    stage.tell("cleaned_by", "nothing was injected")


# --- 29, 50: what was allowed is not any more; the namespace goes


def test_29_a_role_that_is_taken_away_in_mid_run_is_said_with_the_command(stage: Stage) -> None:
    async def story() -> None:
        with pytest.raises(RestoreNotVerified) as raised:
            async with stage.injected(patience_s=1.0):
                stage.misbehave(Rule("forbid", verb="patch", plural="virtualservices"))
        assert raised.value.next_step == f"run `luff restore {RUN} -n {NAMESPACE} --lab`"
        # Who may, goes on from there.
        stage.server.misbehaviour.clear()
        assert stage.live.injection is not None
        await stage.withdraw(stage.live.injection)

    asyncio.run(story())

    assert stage.names == ["all"]
    stage.tell("cleaned_by", "luff restore")


def test_50_a_namespace_that_goes_in_mid_run_takes_the_twins_along_and_that_is_proven(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going", "finalizers": ["kubernetes"]}}
    virtual_service["metadata"]["namespace"] = "going"
    server.store.put(namespace)
    server.store.put(virtual_service)
    stage = Stage(server, adapter, virtual_service, record_property)

    stage.play(lambda: stage.as_somebody("DELETE", path="/api/v1/namespaces/going"))
    assert stage.withdrawal.removed, "what is Terminating can be changed all the same"
    # The namespace controller comes to this object last.
    stage.journal = MemoryJournal()
    stage.play(lambda: stage.as_somebody("DELETE"))

    assert stage.withdrawal.object_ is None
    record_property("cleaned_by", "run")
    record_property("seconds", stage.withdrawal.seconds)


# --- 48: Argo Rollouts


def test_48_what_rollouts_does_to_an_object_survives_and_twins_go(stage: Stage) -> None:
    """It sets weights of named routes, puts managed ones on top, and writes the whole list back as it read it."""
    managed = {
        "name": "set-header",
        "match": [{"headers": {"x-canary": {"exact": "1"}}}],
        "route": [{"destination": {"host": "stock", "subset": "canary"}, "weight": 100}],
    }
    rolled: list[str | None] = []

    def rollout(object_: Object) -> None:
        routes = object_["spec"]["http"]
        twin = next(route for route in routes if str(route["name"]).startswith("luff."))
        routes[-1]["route"] = [
            {"destination": {"host": "stock", "subset": subset}, "weight": weight}
            for subset, weight in (("stable", 80), ("canary", 20))
        ]
        # A name that stands twice is duplicated once more at each of its steps.
        object_["spec"]["http"] = [managed, *routes, twin, twin]

    def abort(object_: Object) -> None:
        object_["spec"]["http"] = [route for route in object_["spec"]["http"] if route != managed]

    def both() -> None:
        stage.edit(rollout)
        rolled.extend(stage.names)
        stage.edit(abort)

    stage.play(both)

    assert len(rolled) == 5
    [left] = http_routes(stage.now)
    assert [each["weight"] for each in left["route"]] == [80, 20]
    stage.is_back()


# --- 58: many at once

OBJECTS = 50
DOSES = 2
TOGETHER_WITHIN_S = 10.0


@pytest.fixture
def stages(stage: Stage) -> list[Stage]:
    """Return fifty stages with an object each."""
    made = []
    for number in range(OBJECTS):
        metadata = {"name": f"{stage.ref.name}-{number}", "namespace": NAMESPACE}
        original = {**stage.original, "metadata": metadata}
        stage.server.store.put(original)
        made.append(Stage(stage.server, stage.mesh, original, stage.tell, run=f"{number:016x}"))
    return made


def test_58_the_leftovers_of_100_runs_on_50_objects_are_taken_out_by_one_look_of_a_reaper(
    stage: Stage, stages: list[Stage]
) -> None:
    refs = {each.ref for each in stages}

    async def story() -> float:
        for run in (None, RUN):
            for each in stages:
                await each.put_in(run, life_s=-5)
        # One in ten of the first writes is told to come later.
        stage.misbehave(*(Rule("status", verb="patch", plural="virtualservices", dry_run=False, code=429, retry_after=1, skip=9 * n) for n in range(1, 6)))  # fmt: skip
        began_s = time.monotonic()
        sweep = await Reaper(stage.mesh, SystemClock()).sweep()
        assert len([ref for ref, _, _ in sweep.removed if ref in refs]) == 2 * OBJECTS, sweep.errors
        return time.monotonic() - began_s

    took_s = asyncio.run(story())

    assert all(each.names == ["all"] for each in stages)
    stage.tell("cleaned_by", "reaper")
    stage.tell("seconds", took_s)


@pytest.mark.timing
def test_58_50_runs_of_two_doses_each_in_one_process_are_restored_together(stage: Stage, stages: list[Stage]) -> None:
    entered, leave = 0, asyncio.Event()

    async def run(each: Stage) -> None:
        """One run: a second dose is a second patch within the scope of the first, and one withdrawal takes both out."""
        nonlocal entered
        async with each.injected():
            await each.put_in()
            entered += 1
            await leave.wait()

    async def story() -> float:
        running = [asyncio.ensure_future(run(each)) for each in stages]
        while entered < OBJECTS:
            await asyncio.sleep(0.01)
            for each in running:
                assert not each.done(), each
        assert sum(len(remaining(each.now, None)) for each in stages) == DOSES * OBJECTS
        began_s = time.monotonic()
        leave.set()
        await asyncio.gather(*running)
        return time.monotonic() - began_s

    took_s = asyncio.run(story())

    assert all(len(each.withdrawal.removed) == DOSES for each in stages)
    assert all(each.now["spec"] == stage.original["spec"] for each in stages)
    stage.tell("cleaned_by", "run")
    stage.tell("seconds", took_s)
    assert took_s < TOGETHER_WITHIN_S
