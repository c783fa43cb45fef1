"""
The process that is a lab: it owns the API, the Envoys and the workloads, and takes them with it when it ends.

It is a session and process group of its own, so a Ctrl-C meant for luff does
not reach it. It ends on SIGTERM, or when its lifeline (a pipe that luff and
luff's guard hold open) is closed at the other end; also while it comes up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from luff.claims import hosts_of, on_mesh
from luff.errors import LabError, LuffError
from luff.hosts import matches
from luff.lab.api import ApiServer
from luff.lab.envoy import FLUSH_EVERY_MS, bootstrap
from luff.lab.pods import METRICS_PATH, METRICS_PORTS, ProxyPage, pod_object
from luff.lab.ports import LOOPBACK, Ports
from luff.lab.processes import clean_environment, end_all, spawn, tail, todo_after
from luff.lab.pushing import Pusher
from luff.lab.state import LOCK, STATE, LabState, WorkloadState, labs_folder
from luff.lab.statuses import ApiError
from luff.lab.workloads import INGRESS, LUFF, Replica, Topology, expand, lay_out, program_environment
from luff.model import LabWorkload, Object
from luff.validation import problems, schema_problems, warnings

__all__ = ["main"]

ENVOY_WITHIN_S = 30.0
LOCK_WITHIN_S = 2.0
LOOK_EVERY_S = 0.02
WATCH_EVERY_S = 0.25
_ASK_WITHIN_S = 1.0
_log = logging.getLogger(__name__)


class ToldToEnd(LabError):
    """The lab was told to end before it was up."""


@dataclass(frozen=True, slots=True)
class _Awaited:
    """
    This is a child that has to serve before the lab is up; without *child* it was not started here.

    What to do is *silent* where it ended without a word in *log*, and *late* where it does not serve *within_s*.
    """

    name: str
    child: subprocess.Popen[bytes] | None
    log: Path
    within_s: float
    silent: str
    late: str

    def check(self, until_s: float) -> None:
        """Raise `LabError` when it has ended, or when it is later than *until_s*."""
        code = None if self.child is None else self.child.poll()
        if code is not None:
            said = tail(self.log).strip()
            ended = f"{self.name} ended with {code} before it was ready"
            if not said:
                raise LabError(f"{ended}, and said nothing", next_step=self.silent)
            raise LabError(f"{ended}:\n{said}", next_step=todo_after(said))
        if time.monotonic() > until_s:
            said = tail(self.log)
            raise LabError(
                f"{self.name} was not ready within {self.within_s:g} s; the end of its output:\n{said}",
                next_step=self.late,
            )


class Supervisor:
    """
    This is one lab, from its documents to its end.

    It ends when it is told on *wake*, or when *lifeline* is closed.
    """

    def __init__(self, folder: Path, order: Mapping[str, Any], *, wake: int, lifeline: int | None) -> None:
        self.folder = folder
        self.wake = wake
        self.lifeline = lifeline
        self.temporary = bool(order["temporary"])
        self.workloads = [
            LabWorkload.model_validate(each["document"]).model_copy(update={"file": each["file"]})
            for each in order["workloads"]
        ]
        self.manifests: list[dict[str, Any]] = order["manifests"]
        self.environment: dict[str, str] = order["environment"]
        self.envoy: str = order["envoy"]
        self.uid = secrets.token_hex(8)
        self.ports = Ports()
        self.topology: Topology = lay_out(
            self.workloads, folder, self.ports, scope_headers=tuple(order["scope_headers"])
        )
        self.api = ApiServer(
            token=secrets.token_hex(16), port=order["port"], validate=_validate, schema=_misshapen, pages=self._page
        )
        self.counts = {replica.name: ProxyPage(replica.plan.access_log) for replica in self.topology.replicas}
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.proxies: dict[str, subprocess.Popen[bytes]] = {}
        self.pusher = Pusher(
            self.api.store, [replica.plan for replica in self.topology.replicas], self.topology.services
        )
        self.entry: Path | None = None
        self.unsaid = ""
        """Why the description could not be written lately."""

    # Up.

    def start(self) -> LabState:
        """Bring everything up and return its description; raises `LuffError`."""
        self.api.start()
        self.api.write_kubeconfig(self.folder / "kubeconfig")
        self._create_objects()
        self.pusher.start()
        for replica in self.topology.replicas:
            self._start_proxy(replica)
        for replica in self.topology.replicas:
            if replica.workload is not None and replica.workload.spec.run is not None:
                self._start_program(replica)
        admins = {replica.name: self._await_proxy(replica) for replica in self.topology.replicas}
        for replica in self.topology.replicas:
            if replica.workload is not None:
                self._await_program(replica)
        state = self._describe(admins)
        state.write()
        self.entry = labs_folder() / f"{self.uid}.dir"
        self.entry.write_text(f"{self.folder}\n", encoding="utf-8")
        return state

    def _create_objects(self) -> None:
        """Put in the namespaces, the services, the given manifests, and a plain VirtualService where none is given."""
        store = self.api.store
        named = {str(each["object"].get("metadata", {}).get("namespace") or "") for each in self.manifests}
        given = {
            str(each["object"]["metadata"]["name"])
            for each in self.manifests
            if each["object"].get("kind") == "Namespace"
        }
        known = {"default", "kube-system", "kube-public", "kube-node-lease"}
        wanted = ({"istio-system", "luff-system"} | self.topology.namespaces | named) - known - given - {""}
        for name in sorted(wanted | given):
            store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for service in self.topology.services:
            store.put(_service_object(service.name, service.namespace, service.port))
        for replica in self.topology.replicas:
            if replica.workload is not None:
                store.put(pod_object(replica))
        for each in sorted(self.manifests, key=lambda each: each["object"].get("kind") != "Namespace"):
            thing: Object = each["object"]
            if thing.get("kind") != "Namespace":
                thing.setdefault("metadata", {}).setdefault("namespace", self.topology.namespace)
            try:
                store.put(thing)
            except ApiError as error:
                raise LabError(f"{each['file']}:{each['line']}: {error}", next_step="correct the manifest") from error
        for name, namespace in self._without_virtual_service():
            store.put(_plain_virtual_service(name, namespace))

    def _page(self, pod: str, port: int, path: str) -> str | None:
        """Answer for a pod's proxy, on the ports that Istio's metrics are on."""
        counts = self.counts.get(pod)
        return counts.text() if counts is not None and port in METRICS_PORTS and path == METRICS_PATH else None

    def _without_virtual_service(self) -> list[tuple[str, str]]:
        claimed = [
            host for each in self.api.store.objects("virtualservices") if on_mesh(each) for host in hosts_of(each)
        ]
        return [
            (service.name, service.namespace)
            for service in self.topology.services
            if not any(matches(pattern, service.host) for pattern in claimed)
        ]

    def _start_proxy(self, replica: Replica) -> None:
        folder = replica.plan.folder
        (folder / "bootstrap.json").write_text(json.dumps(bootstrap(replica.plan), indent=1), encoding="utf-8")
        command = [
            self.envoy,
            "-c", str(folder / "bootstrap.json"),
            "--disable-hot-restart",
            "--concurrency", "1",
            "--file-flush-interval-msec", str(FLUSH_EVERY_MS),
            "--admin-address-path", str(folder / "admin"),
            "-l", "warning",
        ]  # fmt: skip
        try:
            self.proxies[replica.name] = spawn(
                command,
                output=self.folder / "logs" / f"{replica.name}.envoy.log",
                environment=clean_environment(self.environment),
                cwd=folder,
            )
        except OSError as error:
            raise LabError(
                f"the Envoy {self.envoy} cannot be started: {error.strerror}", next_step=self._try_envoy()
            ) from error

    def _try_envoy(self) -> str:
        return f"check that `{self.envoy} --version` works on this machine, or name another with LUFF_ENVOY=PATH"

    def _start_program(self, replica: Replica) -> None:
        assert replica.workload is not None
        assert replica.workload.spec.run is not None
        assert replica.output is not None
        assert replica.plan.inbound is not None
        environment = program_environment(replica, self.environment)
        command = [expand(word, replica.plan) for word in replica.workload.spec.run]
        cwd = (Path(replica.workload.file).parent / replica.workload.spec.cwd).resolve()
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        self.ports.release(replica.plan.inbound.application_port)
        try:
            self.programs[replica.name] = spawn(
                [program, *command[1:]], output=replica.output, environment=environment, cwd=cwd
            )
        except OSError as error:
            what = f"the folder {cwd}" if not cwd.is_dir() else command[0]
            raise LabError(
                f"{replica.workload.file}: LabWorkload {replica.workload.metadata.name}: {what} cannot be started: {error.strerror}",
                next_step="correct spec.run or spec.cwd",
            ) from error

    def _await_proxy(self, replica: Replica) -> str:
        """Return the admin address of a proxy once it serves."""
        path = replica.plan.folder / "admin"

        def serves() -> str | None:
            if not path.exists():
                return None
            address = path.read_text(encoding="utf-8").strip()
            return address if address and _answers(f"http://{address}/ready") else None

        awaited = _Awaited(
            name=f"the Envoy of {replica.name}, {self.envoy},",
            child=self.proxies[replica.name],
            log=self.folder / "logs" / f"{replica.name}.envoy.log",
            within_s=ENVOY_WITHIN_S,
            silent=self._try_envoy(),
            late=f"{self._try_envoy()}; where it does, this machine is too busy for so many proxies: end what else runs on it",
        )
        return self._await(awaited, serves)

    def _await_program(self, replica: Replica) -> None:
        assert replica.workload is not None
        assert replica.plan.inbound is not None
        ready = replica.workload.spec.ready
        inbound = replica.plan.inbound
        within_s = 30.0 if ready is None else ready.within_s
        where = f"{inbound.host}:{inbound.application_port}"

        def serves() -> str | None:
            if ready is not None:
                return where if _answers(f"http://{where}{ready.path}") else None
            return where if _listens(inbound.host, inbound.application_port) else None

        awaited = _Awaited(
            name=f"{replica.workload.file}: LabWorkload {replica.workload.metadata.name}",
            child=self.programs.get(replica.name),
            log=replica.output or self.folder / "supervisor.log",
            within_s=within_s,
            silent="run spec.run by hand, with PORT set, to see why",
            late="correct spec.ready, or give it more time with spec.ready.within",
        )
        self._await(awaited, serves)

    def _await(self, awaited: _Awaited, serves: Callable[[], str | None]) -> str:
        """Return what *serves* finds once it finds something."""
        until_s = time.monotonic() + awaited.within_s
        while (found := serves()) is None:
            if self._told_to_end(0):
                raise ToldToEnd("the lab was told to end before it was up")
            awaited.check(until_s)
            time.sleep(LOOK_EVERY_S)
        return found

    def _describe(self, admins: Mapping[str, str]) -> LabState:
        workloads = []
        for replica in self.topology.replicas:
            plan, workload, program = replica.plan, replica.workload, self.programs.get(replica.name)
            inbound = plan.inbound
            workloads.append(
                WorkloadState(
                    name=plan.workload,
                    namespace=plan.proxy.namespace,
                    service=workload.spec.service if workload else None,
                    replica=plan.replica,
                    admin=admins[replica.name],
                    access_log=str(plan.access_log),
                    labels=dict(replica.labels),
                    port=workload.spec.port if workload else None,
                    inbound=f"{LOOPBACK}:{inbound.port}" if inbound else None,
                    application=f"{inbound.host}:{inbound.application_port}" if inbound else None,
                    peers={peer.authority: f"{LOOPBACK}:{peer.port}" for peer in plan.peers},
                    pid=program.pid if program else None,
                    proxy_pid=self.proxies[replica.name].pid,
                    output=str(replica.output) if replica.output else None,
                )
            )
        return LabState(
            name=self.folder.name,
            uid=self.uid,
            pid=os.getpid(),
            started_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            directory=str(self.folder),
            kubeconfig=str(self.folder / "kubeconfig"),
            api=self.api.url.removeprefix("http://"),
            ingress=f"{LOOPBACK}:{self.topology.one(INGRESS).plan.gateway_port}",
            sidecar=f"{LOOPBACK}:{self.topology.one(LUFF).plan.proxy_port}",
            logs=str(self.folder / "logs"),
            workloads=tuple(workloads),
            scope_headers=self.topology.replicas[0].plan.scope_headers,
            skipped=self.pusher.skipped,
        )

    # While it runs.

    def watch(self, state: LabState) -> None:
        """Stay until told to end. What dies or is left out meanwhile is written down; nothing is started again."""
        while not self._told_to_end(WATCH_EVERY_S):
            state = self._note_troubles(state)

    def _told_to_end(self, within_s: float) -> bool:
        waiting = [self.wake] if self.lifeline is None else [self.wake, self.lifeline]
        readable, _, _ = select.select(waiting, [], [], within_s)
        return any(fd == self.wake or not os.read(fd, 1) for fd in readable)

    def _note_troubles(self, state: LabState) -> LabState:
        noted = tuple(
            replace(each, exit_code=self._exit_code(each.full_name)) if each.exit_code is None else each
            for each in state.workloads
        )
        skipped = self.pusher.skipped
        if (noted, skipped) != (state.workloads, state.skipped):
            now = replace(state, workloads=noted, skipped=skipped)
            try:
                now.write()
            except LuffError as error:
                # Nothing ends over it, on a full disk say: the next look tries again.
                if str(error) != self.unsaid:
                    _log.warning("what died or is left out is not written down yet: %s", error)
                self.unsaid = str(error)
            else:
                state, self.unsaid = now, ""
        return state

    def _exit_code(self, name: str) -> int | None:
        for children in (self.programs, self.proxies):
            child = children.get(name)
            code = None if child is None else child.poll()
            if code is not None:
                return code
        return None

    # Down.

    def stop(self) -> None:
        """Take everything down; nothing of the lab is left but its logs, and for a temporary one not even those."""
        self.pusher.stop()
        if self.entry is not None:
            self.entry.unlink(missing_ok=True)
        end_all([*self.programs.values(), *self.proxies.values()])
        self.api.stop()
        self.ports.close()
        (self.folder / STATE).unlink(missing_ok=True)
        if self.temporary:
            # The lock last: without it the lab counts as gone.
            for each in self.folder.iterdir():
                if each.is_dir():
                    shutil.rmtree(each, ignore_errors=True)
                elif each.name != LOCK:
                    each.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def _validate(thing: Object) -> tuple[list[str], list[str]]:
    """Say what istiod's webhook would, about the kinds whose rules are known here."""
    return (problems(thing), warnings(thing)) if _is_known(thing) else ([], [])


def _misshapen(thing: Object) -> list[str]:
    return schema_problems(thing) if _is_known(thing) else []


def _is_known(thing: Object) -> bool:
    return thing.get("kind") in ("VirtualService", "DestinationRule")


def _service_object(name: str, namespace: str, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": port}]},
    }


def _plain_virtual_service(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace, "labels": {"luff.dev/made-by": "lab"}},
        "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}]}]},
    }


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_ASK_WITHIN_S, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_ASK_WITHIN_S):
        return True
    return False


def _wake_on_signals() -> int:
    """Return a descriptor that becomes readable when this process is told to end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reader


def main(arguments: Sequence[str]) -> int:
    """Run the lab whose order is ``order.json`` in the folder given; report on the descriptor given."""
    folder, report = Path(arguments[0]), int(arguments[1])
    lifeline = int(arguments[2]) if len(arguments) > 2 else None
    wake = _wake_on_signals()
    with (folder / LOCK).open("a") as lock:
        if not _locked(lock.fileno()):
            _report(
                report, {"error": f"a lab is already running in {folder}", "next": "name another folder with --dir"}
            )
            return 1
        try:
            _run(folder, report, wake=wake, lifeline=lifeline)
        except Exception:
            traceback.print_exc()
        finally:
            # What the workloads started themselves is in this process group too; all of it ends with this, and
            # only then is the lock free.
            os.killpg(os.getpgrp(), signal.SIGKILL)
    return 1


def _locked(descriptor: int) -> bool:
    """Take the lab's lock; who only looks whether there is a lab holds it for a moment too."""
    until_s = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until_s:
                return False
            time.sleep(LOOK_EVERY_S)
        else:
            return True


def _run(folder: Path, report: int, *, wake: int, lifeline: int | None) -> None:
    order_path = folder / "order.json"
    order = json.loads(order_path.read_text(encoding="utf-8"))
    order_path.unlink()
    supervisor: Supervisor | None = None
    try:
        supervisor = Supervisor(folder, order, wake=wake, lifeline=lifeline)
        state = supervisor.start()
    except Exception as error:
        if not isinstance(error, LuffError):
            traceback.print_exc()
        _report(report, {"error": getattr(error, "message", repr(error)), "next": getattr(error, "next_step", None)})
        if supervisor is not None:
            # Its logs say why it failed; of one that was not wanted any more nothing is kept.
            supervisor.temporary &= isinstance(error, ToldToEnd)
            supervisor.stop()
        return
    _report(report, {"ok": True})
    try:
        supervisor.watch(state)
    finally:
        supervisor.stop()


def _report(descriptor: int, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError), os.fdopen(descriptor, "w") as pipe:
        pipe.write(json.dumps(message))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
