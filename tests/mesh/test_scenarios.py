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
from dataclasses import replace
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
from luff.model import Abort, Fault, Target
from luff.names import Stamp, http_routes
from luff.reaper import Reaper
from luff.restore import find_injected, put_back
from luff.routes import Injection, inject
from luff.scope import Scope
from luff.selection import select
from luff.testing import MemoryJournal, NoWatcher
from luff.withdraw import Withdrawal, remaining, withdraw
from luff.words import Object
from tests.mesh.conftest import NAMESPACE
from tests.misbehaving_proxy import MisbehavingProxy, Toxic, kubeconfig_through

RUN = "0123456789abcdef"
SCOPE = Scope("a" * 32, "b" * 32)
FAULT = Fault(abort=Abort(http=503))
MANY = 1_000_000
PATIENTLY_S = 60.0
Told = Callable[[str, object], None]
"""What pytest's ``record_property`` is: the proof's report has what it is given."""


async def _injection(mesh: Mesh, ref: Ref, run: str = RUN, *, life_s: int = 600) -> Injection:
    object_ = await mesh.read(ref)
    target = Target(host="stock")
    now_s = int(await mesh.server_time_s())
    return inject(
        select(object_, target, namespace=ref.namespace),
        Stamp(run, SCOPE, created_s=now_s, expires_s=now_s + life_s),
        FAULT,
    )


def _injected(
    mesh: Mesh, ref: Ref, *, journal: MemoryJournal | None = None, patience_s: float = PATIENTLY_S, **more: Any
) -> Any:
    hands = Hands(mesh, journal or MemoryJournal(), NoWatcher(), SystemClock())
    return injected(lambda: _injection(mesh, ref), hands, patience_s=patience_s, **more)


async def _put_in(mesh: Mesh, ref: Ref, run: str = RUN, **more: Any) -> Injection:
    injection = await _injection(mesh, ref, run, **more)
    await mesh.patch(ref, injection.operations)
    return injection


def _stored(server: ApiServer, object_: Object) -> Ref:
    server.store.put(object_)
    return Ref.of(object_)


def _now(server: ApiServer, ref: Ref) -> Object:
    found = [each for each in server.store.objects("virtualservices", ref.namespace) if Ref.of(each) == ref]
    return found[0]


def _edit(server: ApiServer, ref: Ref, change: Callable[[Object], None]) -> None:
    """Write as somebody else does, with all that they have read."""
    object_ = _now(server, ref)
    change(object_)
    server.store.put(object_)


def _names(server: ApiServer, ref: Ref) -> list[str | None]:
    return [route.get("name") for route in http_routes(_now(server, ref))]


# --- 10: the loop of the process that injected is blocked


def test_10_a_guard_takes_out_what_a_blocked_event_loop_leaves_in_for_too_long(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, tmp_path: Path, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> float:
        guard = await Guard.start(Connection(str(tmp_path / "kubeconfig"), "luff-lab"))
        injection = await _injection(adapter, ref, life_s=1)
        await guard.watch(ref, injection)
        await adapter.patch(ref, injection.operations)
        began_s = time.monotonic()
        while any(name != "all" for name in _names(server, ref)):
            # No await in here: nothing else in this process comes to its turn.
            assert time.monotonic() - began_s < PATIENTLY_S
        took_s = time.monotonic() - began_s
        await guard.close()
        return took_s

    record_property("cleaned_by", "guard")
    record_property("seconds", asyncio.run(story()))


# --- 15: an upgrade in the middle


def test_15_a_run_that_ends_leaves_the_twins_of_a_newer_luff_alone(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    newer = f"luff.2.{'f' * 16}.whatever.it.means"

    def add(object_: Object) -> None:
        twin = next(route for route in object_["spec"]["http"] if route["name"] != "all")
        object_["spec"]["http"].insert(0, {**twin, "name": newer})

    async def story() -> Live:
        live = Live()
        async with _injected(adapter, ref, live=live):
            _edit(server, ref, add)
        return live

    live = asyncio.run(story())

    assert live.withdrawal is not None
    assert _names(server, ref) == [newer, "all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


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
def test_19_a_bad_network_at_the_restore_is_waited_out(
    server: ApiServer, bad_way: BadWay, virtual_service: Object, record_property: Told, toxic: Toxic
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> Live:
        live = Live()
        async with _injected(bad_way.mesh, ref, live=live):
            bad_way.misbehave(toxic)
        return live

    live = asyncio.run(story())

    assert bad_way.struck > 0
    assert live.withdrawal is not None
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


@pytest.mark.parametrize("toxic", NETWORK.values(), ids=NETWORK)
def test_20_a_bad_network_at_the_inject_leaves_nothing(
    server: ApiServer, bad_way: BadWay, virtual_service: Object, record_property: Told, toxic: Toxic
) -> None:
    ref = _stored(server, virtual_service)

    class Arming(MemoryJournal):
        """This is the last that is asked before the patch is sent."""

        async def arm(self, intent: Intent) -> None:
            await super().arm(intent)
            bad_way.misbehave(toxic)

    async def story() -> Live:
        live = Live()
        with contextlib.suppress(MeshError):
            async with _injected(bad_way.mesh, ref, live=live, journal=Arming()):
                pass
        return live

    live = asyncio.run(story())

    assert bad_way.struck > 0
    assert live.withdrawal is not None, "it was armed, so that something may have been sent"
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


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
def _somebody_writes(server: ApiServer, ref: Ref) -> Iterator[list[str]]:
    """Put one more route on top every 50 ms, beside the body, and yield the names of those that were accepted."""
    ended, names = threading.Event(), list[str]()

    def write() -> None:
        while not ended.wait(EVERY_S):
            name = f"theirs-{len(names)}"
            match = [{"uri": {"exact": f"/{name}"}}]
            route = {"name": name, "match": match, "route": [{"destination": {"host": "theirs"}}]}
            operation = {"op": "add", "path": "/spec/http/0", "value": route}
            _as_somebody(server, "PATCH", _path(ref), [operation], content_type="application/json-patch+json")
            names.insert(0, name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield names
    finally:
        ended.set()
        writer.join()


def test_24_an_inject_that_somebody_overtakes_each_time_is_given_up_and_leaves_nothing(
    server: ApiServer, luffs_own: Counting, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    live = Live()

    async def story() -> None:
        async with _injected(luffs_own, ref, live=live):
            raise AssertionError("it was injected")

    server.misbehaviour.add([Rule("delay", verb="patch", user="luff", seconds=LATE_S, times=MANY)])
    with _somebody_writes(server, ref) as theirs, pytest.raises(Conflict):
        asyncio.run(story())

    assert luffs_own.conflicts == INJECT_TRIES
    assert live.withdrawal is not None
    assert _names(server, ref) == [*theirs, "all"], "an edit was lost"
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


def test_24_a_storm_of_429_and_of_somebody_who_writes_all_the_time_is_waited_out(
    server: ApiServer, luffs_own: Counting, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    live = Live()
    late = Rule("delay", verb="patch", user="luff", seconds=LATE_S)
    busy = Rule("status", verb="patch", user="luff", code=429, retry_after=1)

    async def story() -> list[str]:
        async with _injected(luffs_own, ref, live=live):
            theirs = stack.enter_context(_somebody_writes(server, ref))
            server.misbehaviour.add([replace(rule) for rule in (late, busy, late, busy, late)])
        return theirs

    with contextlib.ExitStack() as stack:
        theirs = asyncio.run(story())

    assert luffs_own.conflicts >= 3
    assert not server.misbehaviour.left()
    assert live.withdrawal is not None
    assert live.withdrawal.tries > 5
    assert _names(server, ref) == [*theirs, "all"], "an edit was lost"
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


def _as_somebody(
    server: ApiServer, method: str, path: str, body: Any = None, content_type: str = "application/merge-patch+json"
) -> None:
    headers = {"Authorization": "Bearer t0ken", "Content-Type": content_type}
    done = httpx.request(method, server.url + path, json=body, headers=headers, trust_env=False)
    assert done.status_code == 200, done.text


def _annotate(server: ApiServer, ref: Ref, value: str) -> None:
    _as_somebody(server, "PATCH", _path(ref), {"metadata": {"annotations": {"writes": value}}})


def _path(ref: Ref) -> str:
    return f"/apis/networking.istio.io/v1/namespaces/{ref.namespace}/virtualservices/{ref.name}"


def test_26_a_replica_that_has_stopped_is_not_believed(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> Withdrawal:
        injection = await _injection(adapter, ref)
        # From here on every read shows the object as it was before there was a twin.
        server.misbehaviour.add([Rule("frozen", plural="virtualservices", times=2)])
        await adapter.patch(ref, injection.operations)
        return await withdraw(
            adapter, ref, run=RUN, clock=SystemClock(), pinned=injection.resource_version, patience_s=PATIENTLY_S
        )

    done = asyncio.run(story())

    assert done.removed
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", done.seconds)


# --- 27: an answer that never comes


def test_27_answers_that_never_come_are_given_up_and_asked_for_again(
    server: ApiServer, tmp_path: Path, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    server.misbehaviour.clear()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    connection = Connection(str(tmp_path / "kubeconfig"), "luff-lab", kind="lab")
    mesh = KubernetesMesh.connect(connection, limits=Limits(answer_s=0.3))

    async def story() -> Live:
        live = Live()
        async with _injected(mesh, ref, live=live):
            server.misbehaviour.add([Rule("hang", verb=verb, times=2) for verb in ("read", "patch")])
        return live

    live = asyncio.run(story())
    mesh.close()

    assert not server.misbehaviour.left()
    assert live.withdrawal is not None
    assert live.withdrawal.tries > 4
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


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
def test_30_a_guard_restores_though_the_certificate_authority_was_changed(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, tmp_path: Path, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    old, new = _authority(tmp_path, "old"), _authority(tmp_path, "new")
    kubeconfig = tmp_path / "through-tls"

    async def story() -> float:
        terminator = Terminator(int(server.url.rpartition(":")[2]))
        await terminator.serve(old)
        _kubeconfig(server, kubeconfig, port=terminator.port, authority=old)
        guard = await Guard.start(Connection(str(kubeconfig), "luff-lab"))
        injection = await _injection(adapter, ref)
        await guard.watch(ref, injection)
        await adapter.patch(ref, injection.operations)

        await terminator.serve(new)
        _kubeconfig(server, kubeconfig, port=terminator.port, authority=new)
        began_s = time.monotonic()
        guard._process.stdin.close()  # type: ignore[union-attr]  # as the end of its parent does
        await asyncio.wait_for(guard.died(), ROUND_S + PATIENTLY_S)
        await terminator.stop()
        return time.monotonic() - began_s

    took_s = asyncio.run(story())

    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "guard")
    record_property("seconds", took_s)


# --- 31: etcd is put back from a backup


def test_31_a_backup_from_before_the_inject_takes_the_twins_and_time_with_it(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    backup = server.store.backup()
    for number in range(20):
        _annotate(server, ref, str(number))

    async def story() -> Live:
        live = Live()
        async with _injected(adapter, ref, live=live):
            # resourceVersions are lower afterwards than what the inject was pinned to.
            server.store.restore(backup)
        return live

    live = asyncio.run(story())

    assert live.withdrawal is not None
    assert live.withdrawal.fenced, "a read of a lower version proves nothing"
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


def test_31_a_backup_from_during_the_run_brings_twins_back_and_a_reaper_takes_them(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> list[str]:
        async with _injected(adapter, ref):
            backup = server.store.backup()
        assert _names(server, ref) == ["all"]
        server.store.restore(backup)
        came_back = [str(name) for name in _names(server, ref) if name != "all"]
        found, _ = await find_injected(adapter, [NAMESPACE])
        assert [each.state for each in found if each.ref == ref] == ["orphaned"]
        done = await put_back(adapter, [each for each in found if each.ref == ref], clock=SystemClock(), patience_s=30)
        assert isinstance(done[0], Withdrawal)
        return came_back

    assert asyncio.run(story()), "the backup had twins in it"
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "luff restore")


# --- 32 to 37: admission


def test_32_a_webhook_that_is_down_at_the_inject_leaves_nothing(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    # The inject, and the first write of the restore, which proves that it was not applied.
    server.misbehaviour.add([Rule("webhook_down", verb="patch", plural="virtualservices", times=2)])

    async def story() -> Live:
        live = Live()
        with pytest.raises(MeshBusy):
            async with _injected(adapter, ref, live=live):
                raise AssertionError("it was injected")
        return live

    live = asyncio.run(story())

    assert live.withdrawal is not None
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


def test_32_a_webhook_that_is_down_at_the_restore_is_waited_for(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> Live:
        live = Live()
        async with _injected(adapter, ref, live=live):
            server.misbehaviour.add([Rule("webhook_down", verb="patch", plural="virtualservices", times=6)])
        return live

    live = asyncio.run(story())

    assert live.withdrawal is not None
    assert live.withdrawal.tries > 6
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


def test_33_fields_that_a_webhook_adds_to_a_twin_keep_nobody_from_removing_it(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    added = {"timeout": "7s", "headers": {"request": {"set": {"x-by": "webhook"}}}, "fromTheFuture": [1]}
    server.misbehaviour.add([Rule("mutate", plural="virtualservices", routes="luff.", change=added, times=MANY)])

    async def story() -> Live:
        live = Live()
        async with _injected(adapter, ref, live=live):
            [twin] = [route for route in http_routes(_now(server, ref)) if route["name"] != "all"]
            assert twin["timeout"] == "7s"
        return live

    live = asyncio.run(story())

    assert live.withdrawal is not None
    assert _names(server, ref) == ["all"]
    assert _now(server, ref)["spec"] == virtual_service["spec"]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


def test_34_a_twin_that_a_webhook_renames_is_still_known_and_removed_by_a_reaper(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)
    rename = Rule("mutate", plural="virtualservices", routes="luff.1.", change={"name": "luff.by-webhook"}, times=1)

    async def story() -> list[str | None]:
        server.misbehaviour.add([rename])
        await _put_in(adapter, ref)
        renamed = _names(server, ref)
        sweep = await Reaper(adapter, SystemClock(), namespaces=[NAMESPACE]).sweep()
        assert [(seen, reason) for seen, _, reason in sweep.removed if seen == ref] == [
            (ref, "its name is not one that luff writes")
        ]
        return renamed

    assert asyncio.run(story()) == ["luff.by-webhook", "all"]
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "reaper")


@pytest.mark.parametrize("name", [None, "theirs-{name}"])
def test_34_names_that_are_lost_at_the_inject_are_never_taken_for_clean(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told, name: str | None
) -> None:
    ref = _stored(server, virtual_service)
    # The dry run of the preflight does not show it: then nothing would have been sent.
    rule = Rule("mutate", plural="virtualservices", routes="luff.", change={"name": name}, dry_run=False, times=MANY)
    journal = MemoryJournal()

    async def story() -> RestoreNotVerified:
        server.misbehaviour.add([rule])
        with pytest.raises(RestoreNotVerified) as raised:
            async with _injected(adapter, ref, journal=journal):
                pass
        return raised.value

    error = asyncio.run(story())

    assert journal.phases[RUN][-1] is Phase.STRANDED
    assert error.next_step is not None
    assert f"kubectl edit virtualservice {ref.name} -n {NAMESPACE}" in error.next_step
    record_property("cleaned_by", "nobody: it is said, with the command (7)")


@contextmanager
def _policy(server: ApiServer, *rules: Rule) -> Iterator[None]:
    server.misbehaviour.add(list(rules))
    yield
    server.misbehaviour.clear()


@asynccontextmanager
async def _lifted(server: ApiServer, when: Callable[[], bool]) -> AsyncIterator[None]:
    """Lift every policy as soon as *when* holds, beside the body."""

    async def lift() -> None:
        while not when():  # noqa: ASYNC110  # another thread makes it so
            await asyncio.sleep(0.01)
        server.misbehaviour.clear()

    lifting = asyncio.ensure_future(lift())
    try:
        yield
    finally:
        await asyncio.wait_for(lifting, PATIENTLY_S)


def _is_disarmed(server: ApiServer, ref: Ref) -> bool:
    twins = [route for route in http_routes(_now(server, ref)) if str(route.get("name")).startswith("luff.")]
    return bool(twins) and not any("fault" in route for route in twins)


@pytest.mark.parametrize("code", [403, 422])
def test_35_a_policy_that_forbids_the_removal_leaves_a_route_that_does_nothing_until_it_is_lifted(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told, code: int
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> Withdrawal:
        injection = await _put_in(adapter, ref)
        deny = Rule("deny", verb="patch", plural="virtualservices", name=ref.name, routes="luff.", when="absent", code=code, times=MANY)  # fmt: skip
        with _policy(server, deny):
            async with _lifted(server, lambda: _is_disarmed(server, ref)):
                return await withdraw(
                    adapter, ref, run=RUN, clock=SystemClock(), pinned=injection.resource_version,
                    patience_s=PATIENTLY_S,
                )  # fmt: skip

    done = asyncio.run(story())

    assert done.removed
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "run")
    record_property("seconds", done.seconds)


@pytest.mark.parametrize("code", [403, 422])
def test_36_a_removal_that_would_leave_no_route_at_all_disarms_the_twin_until_it_may(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told, code: int
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> Withdrawal:
        injection = await _put_in(adapter, ref)
        # Somebody takes every route of their own out, and the webhook wants at least one.
        _edit(server, ref, lambda object_: object_["spec"]["http"].pop())
        with _policy(
            server, Rule("deny", plural="virtualservices", name=ref.name, when="empty", code=code, times=MANY)
        ):
            async with _lifted(server, lambda: _is_disarmed(server, ref)):
                return await withdraw(
                    adapter, ref, run=RUN, clock=SystemClock(), pinned=injection.resource_version,
                    patience_s=PATIENTLY_S,
                )  # fmt: skip

    done = asyncio.run(story())

    assert done.removed
    assert _names(server, ref) == []
    record_property("cleaned_by", "run")
    record_property("seconds", done.seconds)


@pytest.mark.parametrize("code", [403, 422])
def test_37_what_the_dry_run_allowed_and_the_write_does_not_leaves_nothing(
    server: ApiServer,
    adapter: KubernetesMesh,
    virtual_service: Object,
    record_property: Told,
    code: int,
) -> None:
    ref = _stored(server, virtual_service)
    deny = Rule("deny", plural="virtualservices", routes="luff.", when="present", dry_run=False, code=code, times=MANY)
    journal = MemoryJournal()

    async def story() -> None:
        server.misbehaviour.add([deny])
        injection = await _injection(adapter, ref)
        await adapter.patch(ref, injection.operations, dry_run=True)
        with pytest.raises(Rejected):
            async with _injected(adapter, ref, journal=journal):
                raise AssertionError("it was injected")

    asyncio.run(story())

    assert journal.phases[RUN][-1] is Phase.CLEAN
    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "nothing was injected")


# --- 29, 50: what was allowed is not any more; the namespace goes


def test_29_a_role_that_is_taken_away_in_mid_run_is_said_with_the_command(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    ref = _stored(server, virtual_service)

    async def story() -> None:
        with pytest.raises(RestoreNotVerified) as raised:
            async with _injected(adapter, ref, patience_s=1.0):
                server.misbehaviour.add([Rule("forbid", verb="patch", plural="virtualservices")])
        assert raised.value.next_step == f"run `luff restore {RUN} -n {NAMESPACE} --lab`"
        # Who may, goes on from there.
        server.misbehaviour.clear()
        await withdraw(adapter, ref, run=RUN, clock=SystemClock(), patience_s=PATIENTLY_S)

    asyncio.run(story())

    assert _names(server, ref) == ["all"]
    record_property("cleaned_by", "luff restore")


def test_50_a_namespace_that_goes_in_mid_run_takes_the_twins_along_and_that_is_proven(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going", "finalizers": ["kubernetes"]}}
    virtual_service["metadata"]["namespace"] = "going"
    server.store.put(namespace)
    ref = _stored(server, virtual_service)

    async def story() -> tuple[Live, Live]:
        staying, gone = Live(), Live()
        async with _injected(adapter, ref, live=staying):
            await asyncio.to_thread(_as_somebody, server, "DELETE", "/api/v1/namespaces/going")
        async with _injected(adapter, ref, live=gone):
            # The namespace controller comes to this object last.
            await asyncio.to_thread(_as_somebody, server, "DELETE", _path(ref))
        return staying, gone

    staying, gone = asyncio.run(story())

    assert staying.withdrawal is not None
    assert staying.withdrawal.removed, "what is Terminating can be changed all the same"
    assert gone.withdrawal is not None
    assert gone.withdrawal.object_ is None
    record_property("cleaned_by", "run")
    record_property("seconds", gone.withdrawal.seconds)


# --- 48: Argo Rollouts


def test_48_what_rollouts_does_to_an_object_survives_and_twins_go(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    """It sets weights of named routes, puts managed ones on top, and writes the whole list back as it read it."""
    ref = _stored(server, virtual_service)
    managed = {
        "name": "set-header",
        "match": [{"headers": {"x-canary": {"exact": "1"}}}],
        "route": [{"destination": {"host": "stock", "subset": "canary"}, "weight": 100}],
    }

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

    async def story() -> Live:
        live = Live()
        async with _injected(adapter, ref, live=live):
            _edit(server, ref, rollout)
            rolled.extend(_names(server, ref))
            _edit(server, ref, abort)
        return live

    rolled: list[str | None] = []
    live = asyncio.run(story())

    assert len(rolled) == 5
    assert live.withdrawal is not None
    [left] = http_routes(_now(server, ref))
    assert [each["weight"] for each in left["route"]] == [80, 20]
    record_property("cleaned_by", "run")
    record_property("seconds", live.withdrawal.seconds)


# --- 58: many at once

OBJECTS = 50
DOSES = 2
TOGETHER_WITHIN_S = 10.0


def _many(server: ApiServer, template: Object) -> list[Ref]:
    refs = []
    for number in range(OBJECTS):
        metadata = {"name": f"{template['metadata']['name']}-{number}", "namespace": NAMESPACE}
        refs.append(_stored(server, {**template, "metadata": metadata}))
    return refs


def _run(number: int) -> str:
    return f"{number:016x}"


def test_58_the_leftovers_of_100_runs_on_50_objects_are_taken_out_by_one_look_of_a_reaper(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    refs = _many(server, virtual_service)

    async def story() -> float:
        for number, ref in enumerate(refs * 2):
            await _put_in(adapter, ref, _run(number), life_s=-5)
        # One in ten of the first writes is told to come later.
        server.misbehaviour.add([Rule("status", verb="patch", plural="virtualservices", dry_run=False, code=429, retry_after=1, skip=9 * n) for n in range(1, 6)])  # fmt: skip
        began_s = time.monotonic()
        sweep = await Reaper(adapter, SystemClock()).sweep()
        assert len([ref for ref, _, _ in sweep.removed if ref in refs]) == 2 * OBJECTS, sweep.errors
        return time.monotonic() - began_s

    took_s = asyncio.run(story())

    assert all(_names(server, ref) == ["all"] for ref in refs)
    record_property("cleaned_by", "reaper")
    record_property("seconds", took_s)


@pytest.mark.timing
def test_58_50_runs_of_two_doses_each_in_one_process_are_restored_together(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, record_property: Told
) -> None:
    refs = _many(server, virtual_service)
    entered, leave = 0, asyncio.Event()

    async def run(number: int, ref: Ref) -> Live:
        """One run: a second dose is a second patch within the scope of the first, and one withdrawal takes both out."""
        nonlocal entered
        live = Live()
        hands = Hands(adapter, MemoryJournal(), NoWatcher(), SystemClock())
        async with injected(lambda: _injection(adapter, ref, _run(number)), hands, live=live, patience_s=PATIENTLY_S):
            await _put_in(adapter, ref, _run(number))
            entered += 1
            await leave.wait()
        return live

    async def story() -> tuple[list[Live], float]:
        running = [asyncio.ensure_future(run(number, ref)) for number, ref in enumerate(refs)]
        while entered < OBJECTS:
            await asyncio.sleep(0.01)
            for each in running:
                assert not each.done(), each
        assert sum(len(remaining(_now(server, ref), None)) for ref in refs) == DOSES * OBJECTS
        began_s = time.monotonic()
        leave.set()
        return await asyncio.gather(*running), time.monotonic() - began_s

    lives, took_s = asyncio.run(story())

    assert all(live.withdrawal is not None and len(live.withdrawal.removed) == DOSES for live in lives)
    assert all(_now(server, ref)["spec"] == virtual_service["spec"] for ref in refs)
    record_property("cleaned_by", "run")
    record_property("seconds", took_s)
    assert took_s < TOGETHER_WITHIN_S
