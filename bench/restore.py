"""
What putting routes back costs: from -9 to clean with a guard, and our own CPU on a VirtualService with 1,000 routes.

The API server is the lab's, in a process of its own; what is killed is a process that holds a fault and a guard.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from luff.clock import SystemClock
from luff.guard import Guard
from luff.lab.api import ApiServer
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.model import Abort, Fault, Target
from luff.names import Stamp, http_routes
from luff.routes import Injection, inject
from luff.scope import Scope
from luff.selection import select
from luff.withdraw import remaining, withdraw
from luff.words import Object

KILLS = 30
WITHDRAWALS = 30
ROUTES = 1_000
RUN = "0123456789abcdef"
TARGET = Target(host="stock")
GIVE_UP_S = 60.0


def virtual_service(name: str, *, routes: int) -> Object:
    """Return an object with so many *routes* of somebody else and one to the target."""
    others = [
        {
            "name": f"route-{number}",
            "match": [{"uri": {"prefix": f"/api/{number}/"}, "headers": {"x-team": {"exact": f"team-{number}"}}}],
            "route": [{"destination": {"host": "other", "subset": "v1"}, "weight": 100}],
            "timeout": "5s",
            "retries": {"attempts": 2, "perTryTimeout": "1s"},
        }
        for number in range(routes)
    ]
    last = {"name": "all", "route": [{"destination": {"host": "stock"}}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hosts": [name], "http": [*others, last]},
    }


def planned(object_: Object) -> Injection:
    """Return the patch for one twin."""
    now_s = int(time.time())
    stamp = Stamp(RUN, Scope("a" * 32, "b" * 32), created_s=now_s, expires_s=now_s + 600)
    return inject(select(object_, TARGET, namespace="default"), stamp, Fault(abort=Abort(http=503)))


def say(what: str, seconds: list[float]) -> None:
    """Print a distribution in milliseconds."""
    ordered = sorted(seconds)
    at = {"median": statistics.median(ordered), "p95": ordered[int(0.95 * (len(ordered) - 1))], "most": ordered[-1]}
    figures = "   ".join(f"{name} {value * 1000:7.1f} ms" for name, value in at.items())
    print(f"{what:<58} n {len(ordered):>3}   {figures}", flush=True)


async def own_cpu(connection: Connection, who: str) -> None:
    """Print what a withdrawal costs this process, which is like *who*: it has imported as much, and freezes it as well."""
    mesh = KubernetesMesh.connect(connection)
    there = await mesh.create(virtual_service(f"large-{who}", routes=ROUTES))
    ref, spent = Ref.of(there), []
    gc.freeze()
    for _ in range(WITHDRAWALS):
        there = await mesh.patch(ref, planned(there).operations)
        began_s = time.process_time()
        done = await withdraw(mesh, ref, run=RUN, clock=SystemClock())
        spent.append(time.process_time() - began_s)
        assert done.object_ is not None
        there = done.object_
    say(f"own CPU of a withdrawal among {ROUTES:,} routes, {who}", spent)
    mesh.close()


async def hold(connection: Connection) -> None:
    """Hold a fault, with a guard, until killed."""
    mesh = KubernetesMesh.connect(connection)
    guard = await Guard.start(connection)
    ref = Ref(Kind.VIRTUAL_SERVICE, "default", "held")
    plan = planned(await mesh.read(ref))
    await guard.watch(ref, plan)
    await mesh.patch(ref, plan.operations)
    print("live", flush=True)
    await asyncio.Event().wait()


async def kills(connection: Connection) -> None:
    """Print how long it takes from -9 until the guard has taken the fault out."""
    mesh = KubernetesMesh.connect(connection)
    there = await mesh.create(virtual_service("held", routes=5))
    ref, took = Ref.of(there), []
    for _ in range(KILLS):
        holder = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "hold", str(connection.kubeconfig), stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"live\n"
        holder.send_signal(signal.SIGKILL)
        began_s = time.monotonic()
        while remaining(await mesh.read(ref), None):
            assert time.monotonic() - began_s < GIVE_UP_S, "it is not cleaned up"
            await asyncio.sleep(0.005)
        took.append(time.monotonic() - began_s)
        await holder.wait()
    assert len(http_routes(await mesh.read(ref))) == len(http_routes(there))
    say("from -9 of the parent to clean, by its guard", took)
    mesh.close()


def serve(folder: Path) -> None:
    """Be the API server until standard input ends."""
    server = ApiServer(token="bench")
    server.start()
    server.write_kubeconfig(folder / "kubeconfig")
    print("ready", flush=True)
    sys.stdin.read()
    server.stop()


def main() -> None:
    """Measure, or be one of the processes that this needs."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["hold"]:
        asyncio.run(hold(Connection(sys.argv[2], None)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            pipe = subprocess.PIPE
            with subprocess.Popen([sys.executable, __file__, "serve", folder], stdin=pipe, stdout=pipe) as server:
                assert server.stdout is not None
                server.stdout.readline()
                connection = Connection(str(Path(folder) / "kubeconfig"), None)
                asyncio.run(own_cpu(connection, "guard"))
                importlib.import_module("luff.cli.running")
                asyncio.run(own_cpu(connection, "run"))
                asyncio.run(kills(connection))
                assert server.stdin is not None
                server.stdin.close()
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
