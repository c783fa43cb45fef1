"""
How a run goes, for people to watch: a live line on a terminal, plain lines elsewhere and in CI. All of it on stderr.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from luff.cli.options import Voice
from luff.cli.paint import console_for
from luff.cli.terminal import interactive
from luff.model import Arm, Phase
from luff.traffic.driver import Driver
from luff.units import show_count, show_duration

__all__ = ["PlainProgress", "SilentProgress", "TerminalProgress", "progress_for"]

FRAMES_HZ = 8


class SilentProgress:
    """This says nothing."""

    def step(self, name: str, note: str = "") -> None:
        """Say nothing."""

    def traffic(self, driver: Driver, *, phase: Phase, most_s: float) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class PlainProgress(SilentProgress):
    """This prints a line a step."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._began_s = time.monotonic()

    def step(self, name: str, note: str = "") -> None:
        at = show_duration(time.monotonic() - self._began_s)
        self._console.print(Text(f"{self._title}  {at:>8}  {name}{'  ' + note if note else ''}"))


class TerminalProgress(PlainProgress):
    """This redraws one block: the step, and both arms with their rate and latencies, several times a second."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._step = "starting"
        self._note = ""
        self._driver: Driver | None = None
        self._most_s = 0.0
        self._traffic_began_s = 0.0
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=FRAMES_HZ, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A terminal that has gone, as when its window was closed, takes no outcome with it.
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()

    def step(self, name: str, note: str = "") -> None:
        self._step, self._note = name, note

    def traffic(self, driver: Driver, *, phase: Phase, most_s: float) -> None:
        self._driver, self._most_s = driver, most_s
        self._traffic_began_s = time.monotonic()

    def _draw(self) -> Table:
        table = Table.grid(padding=(0, 2))
        spent = show_duration(time.monotonic() - self._began_s)
        table.add_row(
            Text(self._title, style="bold"), Text(self._step, style="cyan"), Text(spent), Text(self._note, style="dim")
        )
        if self._driver is not None:
            # Whole seconds: who watches wants to know how long, not how exactly.
            left_s = math.ceil(max(0.0, self._most_s - (time.monotonic() - self._traffic_began_s)))
            for arm in Arm:
                seen = self._driver.snapshot(arm)
                table.add_row(
                    Text(f"  {arm} arm"),
                    Text(f"{seen.rate_hz:5.1f}/s" if seen.rate_hz else "    –  "),
                    Text(f"p50 {_ms(seen.p50_ms)}  p99 {_ms(seen.p99_ms)}"),
                    Text(
                        f"{show_count(seen.sent)} sent, {seen.in_flight} in flight, {seen.errors} errors", style="dim"
                    ),
                )
            left = f"at most {show_duration(left_s)} to go" if left_s else "waiting for the last answers"
            table.add_row(Text(""), Text(""), Text(left, style="dim"))
        return table


def _ms(value: float | None) -> str:
    return "      –" if value is None else f"{show_duration(value / 1000):>7}"


def progress_for(voice: Voice, title: str) -> SilentProgress:
    """Return the progress that suits stderr: none when quiet, live on a terminal, lines elsewhere and in CI."""
    if voice.level < 0:
        return SilentProgress()
    console = console_for(voice, stderr=True)
    live = console.is_terminal and interactive(sys.stderr)
    return TerminalProgress(console, title) if live else PlainProgress(console, title)
