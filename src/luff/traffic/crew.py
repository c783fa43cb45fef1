"""
Sending from several processes: this process decides what is due when, and they send it.

Each gets its orders a little ahead of time, over a pipe of its own, and answers
over another; all go by one clock. What must stay true: the numbers are given
here, in order of due time, so that the samples are the same however many
processes send; whatever is handed over is answered for exactly once, by the
process or, where that has ended or does not hear, by this one for it
(`luff.samples.Failure.WORKER`, which is luff's own affair); none outlives us.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import httpx

from luff.errors import PlanRefused
from luff.samples import PENDING, Failure
from luff.traffic.frames import HEAD, Answered, Kind, Order, answers_in, frame, head_of, numbers_in
from luff.traffic.health import Pulse
from luff.traffic.sender import Job, Work

__all__ = ["AHEAD_NS", "Crew", "Spread"]

AHEAD_NS = 150_000_000
"""How long before its due time an order is handed over: so long this process may be busy with something else."""
TOGETHER_NS = 20_000_000
"""Orders of so long a time are handed over in one go."""
IN_A_ROW = 16
"""
So many orders in a row are one process's. Even, so that both of a pair are, and the arms have the same processes.

A process that has to be woken for a request spends several times what one does that is still awake from the last:
taking turns at each pair, two processes spent 15 % more CPU on 6,000 requests a second than one, and like this 4 %
(`bench/traffic.py`). One that gets more than it can send meanwhile is behind by so many at most.
"""
READY_WITHIN_S = 15.0
END_WITHIN_S = 5.0
"""A process that has not sent everything so long after it was due is ended: its samples could not be believed."""
HALT_WITHIN_S = 2.0
"""So is one that was told to halt, and does not say for so long what it had not sent."""
CLOSE_WITHIN_S = 2.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """This says that *processes* others are to send, each over what *way* makes; both it and the work must be picklable."""

    processes: int
    way: Callable[[], httpx.AsyncBaseTransport]


@dataclass(slots=True, eq=False)
class _Hand:
    """
    This is one process that sends, *asked_ns* of the clock is when it was begun. *idle* is set while it has no orders, *due* are those that are not answered for;
    one that is *halted* has still to say which of them it drops.
    """

    process: asyncio.subprocess.Process
    asked_ns: int
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    halted: bool = False
    due: set[int] = field(default_factory=set)
    orders: bytearray = field(default_factory=bytearray)
    pulse: Pulse = field(default_factory=Pulse)
    listening: asyncio.Task[None] | None = None

    def say(self, kind: Kind, content: bytes | bytearray = b"") -> None:
        assert self.process.stdin is not None
        # One that has ended is noticed by its silence.
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.process.stdin.write(frame(kind, content))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def heard(self) -> tuple[Kind, bytes]:
        """Return the next that it says; `IncompleteReadError` when there is no more."""
        assert self.process.stdout is not None
        kind, length = head_of(await self.process.stdout.readexactly(HEAD))
        return kind, await self.process.stdout.readexactly(length)


class Crew:
    """
    This is the processes that send. *tell* is called for each order when it is over; *now_ns* is the samples' time.

    *mistake* is the first of luff's own that one of them met, *lost* says that one has ended too soon.
    """

    ahead_ns = AHEAD_NS
    together_ns = TOGETHER_NS

    def __init__(
        self, spread: Spread, work: Work, *, zero_ns: int, now_ns: Callable[[], int], tell: Callable[[Answered], None]
    ) -> None:
        self._spread = spread
        self._work = work
        self._zero_ns = zero_ns
        self._now_ns = now_ns
        self._tell = tell
        self._hands: list[_Hand] = []
        self._closing = False
        self.mistake: Exception | None = None
        self.lost: str | None = None

    @property
    def pulses(self) -> Sequence[Pulse]:
        """Return the pulse of each process, of all the sending that is over."""
        return [hand.pulse for hand in self._hands]

    async def begin(self) -> None:
        """Have the processes there and without orders; `PlanRefused` when they cannot be started."""
        if not self._hands:
            for index in range(self._spread.processes):
                self._hands.append(await self._started(index))
            await asyncio.gather(*(self._ready(hand) for hand in self._hands))
        await self._idle(lambda: False, within_s=HALT_WITHIN_S)

    async def _started(self, index: int) -> _Hand:
        work = replace(self._work, seed=f"{self._work.seed}.{index}")
        job = pickle.dumps(Job(work, self._spread.way, self._zero_ns))
        asked_ns = time.perf_counter_ns()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "luff.traffic.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                # A Ctrl-C is for us: there are routes to restore before traffic ends.
                start_new_session=True,
            )
        except OSError as error:
            raise _not_started(str(error)) from error
        hand = _Hand(process, asked_ns)
        # Not in its arguments or its environment, which others on this machine can read: the scope's secret is in it.
        hand.say(Kind.JOB, job)
        return hand

    async def _ready(self, hand: _Hand) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                kind, content = await hand.heard()
        except TimeoutError as error:
            raise _not_started(f"it was not ready within {READY_WITHIN_S:.0f} s") from error
        except asyncio.IncompleteReadError as error:
            raise _not_started("it ended at once") from error
        if kind is not Kind.READY:
            raise _not_started(content.decode(errors="replace").partition("\n")[0])
        if not hand.asked_ns <= int.from_bytes(content, "little") <= time.perf_counter_ns():
            raise _not_started("its clock is not ours")
        hand.idle.set()
        hand.listening = asyncio.create_task(self._listen(hand))

    def send(self, order: Order) -> None:
        """Hand *order* over."""
        hand = self._hands[order.number // IN_A_ROW % len(self._hands)]
        hand.due.add(order.number)
        hand.idle.clear()
        if not hand.orders:
            asyncio.get_running_loop().call_soon(_flush, hand)
        hand.orders += order.packed()

    async def end(self, over: Callable[[], bool]) -> None:
        """Come back when everything that was handed over is sent, or *over* says that nothing more is wanted."""
        self._say_to_the_busy(Kind.END)
        await self._idle(over, within_s=AHEAD_NS / 1e9 + END_WITHIN_S)

    async def _idle(self, over: Callable[[], bool], *, within_s: float) -> None:
        """Come back when nobody has orders, or all is *over*; who has some after *within_s* does not hear, and is ended."""
        until_s = time.monotonic() + within_s
        for hand in self._hands:
            while not hand.idle.is_set() and not over():
                if time.monotonic() >= until_s:
                    hand.kill()
                    self._gone(hand, "stood still")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hand.idle.wait(), LOOK_EVERY_S)

    def halt(self) -> None:
        """Let nothing be sent any more; what was handed over and is not sent becomes `Failure.CUT`."""
        self._say_to_the_busy(Kind.HALT)

    def _say_to_the_busy(self, kind: Kind) -> None:
        for hand in self._hands:
            if not hand.idle.is_set():
                _flush(hand)
                hand.say(kind)
                hand.halted = kind is Kind.HALT

    async def stop(self) -> None:
        """Cut what is in flight and end the processes. It may be called again."""
        self._closing = True
        for hand in self._hands:
            _flush(hand)
            for kind in (Kind.HALT, Kind.CUT):
                hand.say(kind)
            assert hand.process.stdin is not None
            hand.process.stdin.close()
        await asyncio.gather(*(self._close(hand) for hand in self._hands))

    async def _close(self, hand: _Hand) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                if hand.listening is not None:
                    await asyncio.shield(hand.listening)
                await hand.process.wait()
        except TimeoutError:
            hand.kill()
            await hand.process.wait()
            if hand.listening is not None:
                await hand.listening

    async def _listen(self, hand: _Hand) -> None:
        why = "ended"
        try:
            while True:
                self._hear(hand, *await hand.heard())
        except asyncio.IncompleteReadError:
            if not self._closing:
                why = f"ended with {await hand.process.wait()}"
        finally:
            self._gone(hand, why)

    def _hear(self, hand: _Hand, kind: Kind, content: bytes) -> None:
        if kind is Kind.DONE:
            for answered in answers_in(content):
                self._over(hand, answered)
        elif kind is Kind.PULSE:
            hand.pulse.add(content)
            if not hand.halted:
                hand.idle.set()
        elif kind is Kind.WAITED:
            hand.pulse.add(content)
        elif kind is Kind.DROPPED:
            self._give_up(hand, numbers_in(content), Failure.CUT)
            hand.halted = False
            hand.idle.set()
        elif kind is Kind.MISTAKE:
            said, _, trace = content.decode().partition("\n")
            mistake = RuntimeError(f"in a process that sends: {said}")
            mistake.__cause__ = RuntimeError(trace)
            self.mistake = self.mistake or mistake

    def _gone(self, hand: _Hand, why: str) -> None:
        """Answer for what *hand* had, and remember that it is no more."""
        if not self._closing:
            self.lost = self.lost or f"a process of luff's that was sending {why}"
        self._give_up(hand, sorted(hand.due), Failure.WORKER)
        hand.idle.set()

    def _give_up(self, hand: _Hand, numbers: Sequence[int], failure: Failure) -> None:
        for number in numbers:
            self._over(hand, Answered(number, PENDING, self._now_ns(), failure=failure))

    def _over(self, hand: _Hand, answered: Answered) -> None:
        # What was given up may be answered after all: it stays given up.
        if answered.number in hand.due:
            hand.due.remove(answered.number)
            self._tell(answered)


def _flush(hand: _Hand) -> None:
    if hand.orders:
        hand.say(Kind.SEND, hand.orders)
        hand.orders.clear()


def _not_started(why: str) -> PlanRefused:
    return PlanRefused(
        "traffic_process_failed",
        f"the rate needs several processes that send, and one could not be started: {why}",
        next_step="see what this machine lacks (memory, processes), or lower traffic.rate to what one process can send",
    )
