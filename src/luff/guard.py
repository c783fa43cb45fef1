"""
The guard: a child process that takes the routes out when its parent cannot.

It holds one end of a pipe. Before a patch is sent it is told which object and
which run; when the pipe ends without a release, its parent is gone, and it
withdraws until nothing is left. It lives in a session of its own, so that a
Ctrl-C or the end of the parent's process group does not reach it, ignores
polite signals, and imports nothing but the way back.

The lines on the pipe, each a JSON object:
``{"watch": run, "namespace": …, "name": …, "pinned": …, "life_s": …}`` and
``{"release": run}`` or ``{"stranded": run}`` from the parent; ``{"ready": true}``,
``{"watching": run}`` and ``{"error": …}`` from the guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from luff.clock import Clock, SystemClock
from luff.errors import LuffError, NoGuard
from luff.lock import release
from luff.mesh import Kind, Mesh, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.routes import Injection
from luff.withdraw import give_back, withdraw

__all__ = ["Guard", "main"]

READY_WITHIN_S = 15.0
CONFIRM_WITHIN_S = 5.0
ROUND_PAUSE_S = 0.5
ROUND_S = 30.0
"""After so long without success the credentials are read anew: they may have been renewed meanwhile."""
LAB_PATIENCE_S = 60.0
"""How long a guard looks for a lab that may have ended together with its parent; for a cluster there is no limit."""
CLOSE_WITHIN_S = 5.0
SWEEP_MARKS = frozenset(
    {
        "RUNNER_TRACKING_ID",  # GitHub Actions, Gitea, Forgejo
        "BUILD_ID", "HUDSON_COOKIE", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE",  # Jenkins
        "VSTS_PROCESS_LOOKUP_ID",  # Azure Pipelines
    }
)  # fmt: skip
"""By these variables a CI runner finds what a job has left running, and kills it: the guard has to outlive its job."""


class Guard:
    """This is the parent's side. Use `Guard.start`, then `watch` before and `release` after each injection."""

    def __init__(self, process: asyncio.subprocess.Process, *, log: Path | None = None) -> None:
        self._process = process
        self._log = log
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, connection: Connection, *, log: Path | None = None, keep_open: Sequence[int] = ()) -> Guard:
        """
        Start the child and return when it has reached the API server by itself.

        *log* takes what it has to say after our end; *keep_open* are file
        descriptors that it holds open with us (a lab's lifeline).
        """
        stderr: int | Any = asyncio.subprocess.DEVNULL
        with contextlib.ExitStack() as files:
            if log is not None:
                with contextlib.suppress(OSError):
                    log.parent.mkdir(parents=True, exist_ok=True)
                    stderr = files.enter_context(log.open("ab"))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # Else a queue.py or a calendar.py in the folder where luff is run would take the place of Python's own.
                "-P",
                "-m",
                "luff.guard",
                json.dumps(asdict(connection)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in SWEEP_MARKS},
                pass_fds=tuple(keep_open),
            )
        guard = cls(process, log=log)
        try:
            await guard._expect("ready", True, within_s=READY_WITHIN_S)
        except NoGuard:
            await guard.close()
            raise
        return guard

    @property
    def pid(self) -> int:
        """Return the child's process id."""
        return self._process.pid

    async def watch(self, ref: Ref, injection: Injection) -> None:
        """Tell the guard what may be in the mesh from now on; raises `NoGuard` when it does not confirm."""
        line = {
            "watch": injection.run,
            "namespace": ref.namespace,
            "name": ref.name,
            "pinned": injection.resource_version,
            "life_s": injection.expires_s - injection.created_s,
        }
        async with self._turn:
            await self._say(line)
            await self._expect("watching", injection.run, within_s=CONFIRM_WITHIN_S)

    async def release(self, run: str) -> None:
        """Tell the guard that *run* is clean."""
        with contextlib.suppress(NoGuard):
            await self._say({"release": run})

    async def take_over(self, run: str) -> None:
        """Tell the guard that *run* is not proven clean: it takes it out at once, and goes on where this process gave up."""
        with contextlib.suppress(NoGuard):
            await self._say({"stranded": run})

    async def died(self) -> int:
        """Come back when the child has ended, with its exit code."""
        return await self._process.wait()

    async def close(self) -> None:
        """Let the child go. What was not released it withdraws on its own."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), CLOSE_WITHIN_S)

    async def _say(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            await asyncio.wait_for(self._process.stdin.drain(), CONFIRM_WITHIN_S)
        except TimeoutError as error:
            raise NoGuard(f"the guard has read nothing for {CONFIRM_WITHIN_S:.0f} s") from error
        except (ConnectionError, RuntimeError) as error:
            raise NoGuard("the guard has died, so nobody could clean up after this process") from error

    async def _expect(self, word: str, value: object, *, within_s: float) -> None:
        """Read until the guard says *word* with *value*; what it says about an earlier question confirms nothing."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                while line := await self._process.stdout.readline():
                    answer = json.loads(line)
                    if answer.get(word) == value:
                        return
                    if "error" in answer:
                        raise NoGuard(f"the guard could not start: {answer['error']}")
        except (TimeoutError, ValueError, AttributeError) as error:
            raise NoGuard(f"the guard did not answer {word!r} within {within_s:.0f} s") from error
        read = None if self._log is None else f"read the end of {self._log}"
        raise NoGuard("the guard could not start: it ended without a word", next_step=read)


@dataclass(frozen=True, slots=True)
class _Watched:
    """This is one run's routes in *ref*, until when they may be there, and whether the run is alive and has *given_up*."""

    ref: Ref
    run: str
    pinned: str
    until_s: float
    given_up: bool = False


class _Child:
    """This is the child's side. *anew* comes back with a client that has read its credentials anew, or raises anything."""

    def __init__(self, mesh: Mesh, anew: Callable[[], Awaitable[Mesh]], clock: Clock) -> None:
        self._mesh = mesh
        self._anew = anew
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._expiring: dict[str, asyncio.Task[None]] = {}

    async def live(self) -> None:
        """Listen until the pipe ends, then take out everything that was not released."""
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer)
        _answer({"ready": True})
        expiry = asyncio.create_task(self._expire())
        while line := await lines.readline():
            # A parent that dies while it writes leaves half a line behind.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self._hear(json.loads(line))
        expiry.cancel()
        await self._take_out(tuple(self._watched.values()), why="its parent is gone")

    def _hear(self, said: dict[str, Any]) -> None:
        if "watch" in said:
            ref = Ref(Kind.VIRTUAL_SERVICE, said["namespace"], said["name"])
            until_s = self._clock.monotonic_s() + float(said["life_s"])
            self._watched[said["watch"]] = _Watched(ref, said["watch"], said["pinned"], until_s)
            _answer({"watching": said["watch"]})
        elif "stranded" in said:
            self._give_up_waiting(said["stranded"])
        else:
            self._watched.pop(said.get("release", ""), None)

    def _give_up_waiting(self, run: str) -> None:
        """Let the time of *run* be over now: its own process could not take it out."""
        watched, now_s = self._watched.get(run), self._clock.monotonic_s()
        if watched is not None and now_s < watched.until_s:
            self._watched[run] = replace(watched, until_s=now_s, given_up=True)
            self._begin_what_is_over()

    async def _expire(self) -> None:
        """Take out what outlived its time: its parent may be stopped, or stuck."""
        while True:
            await self._clock.sleep(1.0)
            self._begin_what_is_over()

    def _begin_what_is_over(self) -> None:
        now_s = self._clock.monotonic_s()
        for watched in self._watched.values():
            if now_s >= watched.until_s and watched.run not in self._expiring:
                # One that takes long must not keep the others waiting.
                self._expiring[watched.run] = asyncio.create_task(self._expire_one(watched))

    async def _expire_one(self, watched: _Watched) -> None:
        why = "its run gave up" if watched.given_up else "its time is over"
        try:
            if await self._take_one_out(watched, why=why) and self._watched.get(watched.run) is watched:
                del self._watched[watched.run]
        finally:
            # Where that failed it is tried again.
            del self._expiring[watched.run]

    async def _take_out(self, all_watched: Sequence[_Watched], *, why: str) -> None:
        await asyncio.gather(*(self._take_one_out(watched, why=why) for watched in all_watched))

    async def _take_one_out(self, watched: _Watched, *, why: str) -> bool:
        """Take the routes of one run out, and return whether that is proven; a cluster is tried for ever."""
        began_s = self._clock.monotonic_s()
        while True:
            mesh = self._mesh
            try:
                done = await withdraw(
                    mesh, watched.ref, run=watched.run, clock=self._clock, pinned=watched.pinned, patience_s=ROUND_S
                )
                break
            except Exception as error:
                # RestoreNotVerified, or a defect of ours: either way the next round may do it, and others go on.
                _log(f"run {watched.run}: {type(error).__name__}: {error}")
                await self._clock.sleep(ROUND_PAUSE_S)
            if self._mesh.kind == "lab" and self._clock.monotonic_s() - began_s >= LAB_PATIENCE_S:
                return False
            if mesh is self._mesh:
                await self._renew()
        if not watched.given_up:
            # The lock of a dead run would keep the next one out until it expires. One that is alive would take its loss
            # for what ended it.
            await release(self._mesh, watched.ref, run=watched.run)
        owned = None if done.object_ is None else await give_back(self._mesh, watched.ref, done.object_)
        _log(
            f"run {watched.run}: {why}; {watched.ref} is clean, removed {len(done.removed)} route(s), {done.seconds:.2f} s"
            + (f", ownership {owned}" if owned else "")
        )
        return True

    async def _renew(self) -> None:
        """Go on with a new client, or with the old one where there is none to be had."""
        try:
            # The old one is left to the others that may be using it.
            self._mesh = await self._anew()
        except Exception as error:
            # Half a kubeconfig, one for another cluster, or no thread: a guard does not end over it.
            _log(f"goes on with the credentials that it has: {type(error).__name__}: {error}")


def _answer(line: dict[str, Any]) -> None:
    # Nobody may be left to read it; what is watched by then must be taken out all the same.
    with contextlib.suppress(OSError, ValueError):
        print(json.dumps(line), flush=True)  # noqa: T201  # the pipe to the parent


def _log(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"luff guard: {line}", file=sys.stderr, flush=True)  # noqa: T201  # its only way to speak


async def _main(connection: Connection) -> int:
    try:
        mesh = KubernetesMesh.connect(connection)
        await mesh.server_time_s()
    except LuffError as error:
        _answer({"error": str(error)})
        return 1
    # In a thread: a credential plugin takes its time, and other runs must not wait for it.
    await _Child(mesh, partial(asyncio.to_thread, mesh.anew), SystemClock()).live()
    return 0


def main() -> None:
    """Be the guard. The one argument is the connection, as JSON."""
    for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.SIG_IGN)
    # What is imported by now stays for good; looking through it over and over would cost more than a removal does.
    gc.freeze()
    code = asyncio.run(_main(Connection(**json.loads(sys.argv[1]))))
    # Threads of calls to a server that is away must not hold the process.
    os._exit(code)


if __name__ == "__main__":
    main()
