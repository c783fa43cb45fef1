"""Watches: changes as they happen, one line of JSON each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Receive, Scope, Send

from luff.lab.calls import Asked, as_partial, selector_of
from luff.lab.conversion import served
from luff.lab.objects import Store
from luff.lab.resources import table
from luff.lab.statuses import ApiError
from luff.lab.writes import Change
from luff.model import Object

__all__ = ["Watch"]

BOOKMARK_EVERY_S = 30.0
LONGEST_S = 3600.0


class Watch:
    """This is the answer to a watch: it ends after its timeoutSeconds, or when the client or the server goes."""

    def __init__(self, store: Store, asked: Asked, *, now: Callable[[], datetime], stopping: asyncio.Event) -> None:
        self.headers = MutableHeaders(raw=[(b"content-type", b"application/json")])
        self._store = store
        self._asked = asked
        self._now = now
        self._stopping = stopping
        self._selects = selector_of(asked)
        self._defined = False
        try:
            self._since = int(asked.query.get("resourceVersion") or 0)
            self._timeout_s = min(float(int(asked.query.get("timeoutSeconds") or LONGEST_S)), LONGEST_S)
        except ValueError as error:
            raise ApiError.bad_request(f"resourceVersion: Invalid value: {error}") from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def tell(type_: str, object_: Object) -> None:
            loop.call_soon_threadsafe(changed.set)

        self._store.subscribe(tell)
        gone = asyncio.create_task(_disconnected(receive))
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers.raw})
            await self._send_all(send, changed, gone, stopped)
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._store.unsubscribe(tell)
            gone.cancel()
            stopped.cancel()

    async def _send_all(
        self, send: Send, changed: asyncio.Event, gone: asyncio.Task[None], stopped: asyncio.Task[Any]
    ) -> None:
        ends = time.monotonic() + self._timeout_s
        bookmarks = self._asked.query.get("allowWatchBookmarks") in {"true", "1"}
        next_bookmark = time.monotonic() + BOOKMARK_EVERY_S
        since = self._since
        epoch = self._store.epoch
        initial = self._asked.query.get("sendInitialEvents")
        if initial in {"true", "1"} or (since == 0 and initial is None):
            objects, since = self._store.list(self._asked.known, self._asked.namespace)
            lines = [self._line("ADDED", object_) for object_ in objects if self._selects(object_)]
            if bookmarks and initial:
                lines.append(self._bookmark(since, {"k8s.io/initial-events-end": "true"}))
            await _write(send, b"".join(lines))
        while not gone.done() and not stopped.done():
            changed.clear()
            if self._store.epoch != epoch:
                return  # what it has told so far may never have been
            try:
                changes, newest = self._store.changes(self._asked.known, since)
            except ApiError as error:
                await _write(send, _line("ERROR", error.status))
                return
            since = max(since, newest)
            await _write(send, b"".join(self._lines(changes)))
            left = ends - time.monotonic()
            if left <= 0:
                if bookmarks:
                    await _write(send, self._bookmark(since))
                return
            if bookmarks and time.monotonic() >= next_bookmark:
                next_bookmark += BOOKMARK_EVERY_S
                await _write(send, self._bookmark(since))
            waiting = asyncio.create_task(changed.wait())
            await asyncio.wait(
                {waiting, gone, stopped}, timeout=min(left, BOOKMARK_EVERY_S), return_when=asyncio.FIRST_COMPLETED
            )
            waiting.cancel()

    def _lines(self, changes: list[Change]) -> Iterator[bytes]:
        for change in changes:
            if self._asked.namespace not in {None, change.key[0]}:
                continue
            was = change.old is not None and self._selects(change.old)
            is_ = change.type != "DELETED" and self._selects(change.new)
            if is_:
                yield self._line("MODIFIED" if was else "ADDED", change.new)
            elif was:
                yield self._line("DELETED", change.new)

    def _line(self, type_: str, object_: Object) -> bytes:
        asked = self._asked
        shown = served(asked.known, object_, asked.version)
        if asked.kind_of_table:
            metadata = {"resourceVersion": shown["metadata"]["resourceVersion"]}
            shown = table(asked.known, [shown], now=self._now(), include=asked.kind_of_table, metadata=metadata)
            if self._defined:
                shown["columnDefinitions"] = None
            self._defined = True
        elif asked.partial:
            shown = as_partial(shown)
        return _line(type_, shown)

    def _bookmark(self, revision: int, annotations: dict[str, str] | None = None) -> bytes:
        resource = self._asked.known
        metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        bare: Object = {
            "kind": resource.kind,
            "apiVersion": resource.api_version(self._asked.version),
            "metadata": metadata,
        }
        if self._asked.kind_of_table:
            row = {"cells": [""], "object": as_partial(bare)}
            bare = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": None,
                "rows": [row],
            }
        elif self._asked.partial:
            bare = as_partial(bare)
        return _line("BOOKMARK", bare)


def _line(type_: str, object_: Object) -> bytes:
    return json.dumps({"type": type_, "object": object_}, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


async def _write(send: Send, data: bytes) -> None:
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
