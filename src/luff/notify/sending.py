"""
Sending notices: a short queue per channel, a few tries each, and an end.

A channel that hangs keeps only its own queue waiting. What could not be told is
handed to *untold*, once for each notice and channel, with why.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import httpx

from luff import __version__
from luff.clock import Clock, SystemClock
from luff.notify.channels import Channel, Shape
from luff.notify.notices import Notice, as_json, as_slack
from luff.notify.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature
from luff.units import show_duration

__all__ = ["Limits", "Notifier", "Untold"]

_TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Limits:
    """This is how much is waited, in seconds, and how often it is tried; *waiting_most* is the queue of one channel."""

    waiting_most: int = 100
    tries_most: int = 6
    try_s: float = 10.0
    total_s: float = 120.0
    back_off_s: float = 1.0
    back_off_most_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Untold:
    """This is a notice that a channel did not get, and why."""

    channel: Channel
    notice: Notice
    why: str

    def __str__(self) -> str:
        return f"{self.channel.shown} was not told: {self.why}. It was: {self.notice.text}"


@dataclass(slots=True)
class _Line:
    """This is the queue of one channel; the notice that is being sent is still its first."""

    channel: Channel
    waiting: deque[Notice] = field(default_factory=deque)
    worker: asyncio.Task[None] | None = None


class Notifier:
    """This tells *channels*; *link* is where people open the server. Its methods belong to one event loop."""

    def __init__(
        self,
        channels: Iterable[Channel],
        *,
        untold: Callable[[Untold], None],
        link: str | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._lines = {channel.name: _Line(channel) for channel in channels}
        self._untold = untold
        self._link = link
        self._clock = clock or SystemClock()
        self._limits = limits or Limits()
        self._closed = False
        # Once: it reads every authority that this machine trusts.
        self._trust = httpx.create_ssl_context() if self._lines else None

    def tell(self, notice: Notice, *, to: Collection[str] | None = None) -> None:
        """Tell *notice* to the channels named in *to*, or to all that want it. Comes back at once, and never raises."""
        for name, line in self._lines.items():
            if line.channel.wants(notice) if to is None else name in to:
                self._enqueue(line, notice)

    def _enqueue(self, line: _Line, notice: Notice) -> None:
        if self._closed:
            self._untold(Untold(line.channel, notice, "luff was ending"))
            return
        if len(line.waiting) >= self._limits.waiting_most:
            left_out = notice
            if notice.urgent:
                # The first is being sent.
                left_out = next((each for each in list(line.waiting)[1:] if not each.urgent), notice)
            if left_out is not notice:
                line.waiting.remove(left_out)
                line.waiting.append(notice)
            self._untold(Untold(line.channel, left_out, f"{self._limits.waiting_most} others waited already"))
            return
        line.waiting.append(notice)
        if line.worker is None:
            line.worker = asyncio.create_task(self._work(line), name=f"luff-notify-{line.channel.name}")

    async def close(self, *, within_s: float) -> None:
        """Take no more, and come back once everything is told, or after *within_s*: what waits then is untold."""
        self._closed = True
        workers = [line.worker for line in self._lines.values() if line.worker is not None]
        if workers:
            await asyncio.wait(workers, timeout=within_s)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for line in self._lines.values():
            for notice in line.waiting:
                self._untold(Untold(line.channel, notice, "luff ended before it could be"))
            line.waiting.clear()

    async def _work(self, line: _Line) -> None:
        try:
            while line.waiting:
                notice = line.waiting[0]
                # A connection each: news is rare, and what a receiver leaves open for hours is of no use.
                async with httpx.AsyncHTTPTransport(verify=self._trust or True) as transport:
                    why = await self._deliver(transport, line.channel, notice)
                line.waiting.popleft()
                if why is not None:
                    self._untold(Untold(line.channel, notice, why))
        except Exception as error:  # whatever it meets, telling is in nobody's way
            while line.waiting:
                self._untold(
                    Untold(line.channel, line.waiting.popleft(), f"luff made a mistake: {type(error).__name__}")
                )
        finally:
            line.worker = None

    async def _deliver(self, transport: httpx.AsyncHTTPTransport, channel: Channel, notice: Notice) -> str | None:
        """Return ``None`` once *channel* has taken *notice*, else why it has not."""
        limits = self._limits
        until_s = self._clock.monotonic_s() + limits.total_s
        body = (as_slack if channel.shape is Shape.SLACK else as_json)(notice, self._link)
        tries = 0
        while True:
            tries += 1
            why, again, wait_s = await self._try(transport, channel, notice, body)
            if why is None:
                return None
            back_off_s = min(limits.back_off_most_s, limits.back_off_s * 2 ** (tries - 1)) * random.uniform(0.75, 1.0)
            pause_s = max(back_off_s, wait_s)
            if not again or tries >= limits.tries_most or self._clock.monotonic_s() + pause_s > until_s:
                return why if tries == 1 else f"{why} ({tries} tries)"
            await self._clock.sleep(pause_s)

    async def _try(
        self, transport: httpx.AsyncHTTPTransport, channel: Channel, notice: Notice, body: bytes
    ) -> tuple[str | None, bool, float]:
        """Send it once; return what went wrong, whether trying again may help, and how long the receiver asked to wait."""
        request = self._request(channel, notice, body)
        try:
            async with asyncio.timeout(self._limits.try_s):
                # No client around it: a redirect is not followed, and no log of httpx's shows the address.
                response = await transport.handle_async_request(request)
                await response.aclose()  # unread: what it says is nobody's business, however long it is
        except TimeoutError:
            return f"no answer within {show_duration(self._limits.try_s)}", True, 0.0
        except httpx.HTTPError as error:
            return f"it cannot be reached ({type(error).__name__})", True, 0.0
        status = response.status_code
        if 200 <= status < 300:
            return None, False, 0.0
        if 300 <= status < 400:
            return f"it answered {status}, and redirects are not followed", False, 0.0
        return f"it answered {status}", status >= 500 or status in _TRY_AGAIN, _retry_after_s(response)

    def _request(self, channel: Channel, notice: Notice, body: bytes) -> httpx.Request:
        headers = {
            "content-type": "application/json",
            "user-agent": f"luff/{__version__}",
            "x-luff-event": str(notice.event),
            "x-luff-delivery": notice.id,
        }
        if channel.secret is not None:
            # Of each try: a receiver takes what is a few minutes old at most.
            now = int(self._clock.now_s())
            headers[TIMESTAMP_HEADER] = str(now)
            headers[SIGNATURE_HEADER] = signature(channel.secret, now, body)
        bounds = httpx.Timeout(self._limits.try_s).as_dict()
        return httpx.Request("POST", channel.url, content=body, headers=headers, extensions={"timeout": bounds})


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0
