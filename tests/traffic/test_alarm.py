"""Waking up at a time."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from luff.traffic.alarm import Alarm

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Factory = Callable[[], asyncio.AbstractEventLoop]
needs_timer_files = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has timers that are files")


def _files() -> set[str]:
    """Which files this process has open, after what earlier tests left to the collector is gone."""
    gc.collect()
    return {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


@LOOPS
@pytest.mark.parametrize("precise", [True, False])
def test_nobody_is_woken_before_the_time(factory: Factory, *, precise: bool) -> None:
    early = []

    async def work() -> None:
        with Alarm(precise=precise) as alarm:
            for gap_ns in (0, -5, 1, 50_000, 999_999, 1_000_001, 7_300_000):
                until_ns = time.perf_counter_ns() + gap_ns
                await alarm.wait(until_ns)
                early.append(until_ns - time.perf_counter_ns())

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())
    assert len(early) == 7
    assert max(early) <= 0


@needs_timer_files
def test_waiting_takes_a_few_turns_of_the_loop_and_no_core() -> None:
    turns = 0

    class Counting(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            nonlocal turns
            turns += 1
            super()._run_once()  # type: ignore[misc]  # every event loop of asyncio's own has it

    async def work() -> int:
        with Alarm() as alarm:
            before = turns
            await alarm.wait(time.perf_counter_ns() + 20_000_000)
            return turns - before

    with asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(work()) <= 5


@LOOPS
@needs_timer_files
def test_being_cancelled_leaves_no_file_and_the_alarm_can_be_used_again(factory: Factory) -> None:
    async def work() -> None:
        before = _files()
        with Alarm() as alarm:
            waiting = asyncio.create_task(alarm.wait(time.perf_counter_ns() + 10**12))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            until_ns = time.perf_counter_ns() + 1_000_000
            await alarm.wait(until_ns)
            assert time.perf_counter_ns() >= until_ns
        assert _files() <= before

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())
