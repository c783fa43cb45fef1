"""A real receiver on loopback that does as it is told: answer, refuse, hang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Got:
    """This is one request, as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """This answers with *answers* in turn, then 200 for ever; 0 is no answer at all."""

    answers: list[int] = field(default_factory=list)
    headers: str = ""
    got: list[Got] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            # The values of signatures are lower case already.
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.got.append(Got(head[0].split(" ")[1], headers, body))
            self.heard.set()
            answer = self.answers.pop(0) if self.answers else 200
            if answer == 0:
                await reader.read()  # until the other side has given up
            else:
                writer.write(f"HTTP/1.1 {answer} So\r\n{self.headers}content-length: 2\r\n\r\nok".encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(answers: Iterable[int] = (), *, headers: str = "") -> AsyncIterator[Receiver]:
    """Listen on loopback."""
    receiver = Receiver(list(answers), headers)
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/t0ken"
    try:
        yield receiver
    finally:
        server.close()
