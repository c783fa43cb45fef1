"""
A process that only sends: it is told what and when, and says what became of it.

What must stay true: nothing is sent before it is due, or after it was told to
halt; it never outlives its parent, for whose traffic nobody would answer: it
ends when its pipe does, and where the kernel can see to it (Linux) at the
moment its parent ends. It has nothing of its parent's but the job that it is
told: no store, no credentials of a cluster, no threads. Polite signals are
for its parent, which has routes to restore first, and do not reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import pickle
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable

from luff.traffic import loop
from luff.traffic.alarm import Alarm
from luff.traffic.frames import HEAD, Answered, Kind, Order, frame, head_of, orders_in, packed_numbers
from luff.traffic.health import Pulse
from luff.traffic.sender import BURST_MOST, Job, Sender

__all__ = ["main"]

FLUSH_S = 0.02
"""For so long answers are gathered before they are said."""
_PR_SET_PDEATHSIG = 1


class _Worker:
    """This carries out what it hears; *say* takes what it says."""

    def __init__(self, job: Job, say: Callable[[bytes], None]) -> None:
        self._zero_ns = job.zero_ns
        self._say = say
        self._transport = job.way()
        self._sender = Sender(job.work, self._transport, now_ns=self._now_ns, tell=self._tell)
        self._orders = deque[Order]()
        self._more = asyncio.Event()
        self._ending = False
        self._sending: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._answers = bytearray()
        self._confessed = False

    async def hear(self, kind: Kind, content: bytes) -> None:
        """Do what a frame asks for."""
        if kind is Kind.SEND:
            self._orders.extend(orders_in(content))
            self._ending = False
            self._more.set()
            if self._sending is None or self._sending.done():
                if self._waiting is not None:
                    self._waiting.cancel()
                self._sending = asyncio.create_task(self._send_in_time())
        elif kind is Kind.END:
            self._ending = True
            self._more.set()
        elif kind is Kind.HALT:
            await self._halt()
        elif kind is Kind.CUT:
            await self._sender.cut()

    async def close(self) -> None:
        """End everything, and say the last of it."""
        await self._halt()
        await self._sender.cut()
        if self._waiting is not None:
            await asyncio.gather(self._waiting, return_exceptions=True)
        self._flush()
        await self._transport.aclose()

    async def _halt(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        dropped = [order.number for order in self._orders]
        self._orders.clear()
        self._say(frame(Kind.DROPPED, packed_numbers(dropped)))

    async def _send_in_time(self) -> None:
        """Send every order at its time, until the last one before an `Kind.END` is out."""
        pulse, in_one_go = Pulse(), 0
        try:
            with Alarm() as alarm, pulse:
                while self._orders or not self._ending:
                    if not self._orders:
                        self._more.clear()
                        await self._more.wait()
                        continue
                    due_ns = self._orders[0].due_ns
                    in_one_go = 0 if self._now_ns() < due_ns else in_one_go + 1
                    await alarm.wait(self._zero_ns + due_ns)
                    if in_one_go == BURST_MOST:
                        await asyncio.sleep(0)
                        in_one_go = 0
                    # Nothing is awaited from here on: what is taken off is sent.
                    self._sender.send(self._orders.popleft())
        finally:
            self._say(frame(Kind.PULSE, pulse.packed()))
            self._waiting = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        """Look at the event loop until nothing is in flight."""
        pulse = Pulse()
        try:
            with pulse.waiting():
                await self._sender.settled()
        finally:
            self._say(frame(Kind.WAITED, pulse.packed()))

    def _now_ns(self) -> int:
        return time.perf_counter_ns() - self._zero_ns

    def _tell(self, answered: Answered) -> None:
        if not self._answers:
            asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
        self._answers += answered.packed()
        if self._sender.mistake is not None and not self._confessed:
            self._confessed = True
            self._say(_mistake(self._sender.mistake))

    def _flush(self) -> None:
        if self._answers:
            self._say(frame(Kind.DONE, self._answers))
            self._answers.clear()


def _mistake(error: Exception) -> bytes:
    said = f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"
    return frame(Kind.MISTAKE, said.encode(errors="replace"))


class _Told(asyncio.BaseProtocol):
    """This knows when everything was said, or nobody is there to hear it."""

    def __init__(self) -> None:
        self.all = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.all.set()


async def _work(from_parent: int, to_parent: int) -> None:
    pipes = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await pipes.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_parent, "rb"))
    out, told = await pipes.connect_write_pipe(_Told, os.fdopen(to_parent, "wb"))
    # The pipe ends with its parent, and with it all that there is to do.
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        try:
            await _listen(reader, out.write)
        except Exception as error:  # the outermost place of this process, and its parent is who can say it
            out.write(_mistake(error))
    out.close()
    await told.all.wait()


async def _listen(reader: asyncio.StreamReader, say: Callable[[bytes], None]) -> None:
    async def heard() -> tuple[Kind, bytes]:
        kind, length = head_of(await reader.readexactly(HEAD))
        return kind, await reader.readexactly(length)

    _, content = await heard()
    worker = _Worker(pickle.loads(content), say)  # noqa: S301  # from its own parent, over a pipe that nobody else has
    # What is imported by now stays for good; looking through it over and over would make requests late.
    gc.freeze()
    say(frame(Kind.READY, time.perf_counter_ns().to_bytes(8, "little")))
    try:
        while True:
            await worker.hear(*await heard())
    finally:
        await worker.close()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Live as a process that sends, with its parent at both ends of the standard pipes."""
    _die_with_parent()
    for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.SIG_IGN)
    from_parent, to_parent = os.dup(0), os.dup(1)
    # Whatever else writes to stdout must not get between the frames.
    os.dup2(2, 1)
    loop.run(_work(from_parent, to_parent))


if __name__ == "__main__":
    main()
