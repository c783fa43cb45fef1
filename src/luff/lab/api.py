"""The lab's API server: real Kubernetes HTTP on 127.0.0.1, for the official client and for kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from luff.errors import LabError
from luff.lab.admission import Admission
from luff.lab.calls import REVIEWS_GROUP, Asked, answer, parse, reviewed
from luff.lab.discovery import describe
from luff.lab.misbehaviour import Attempt, Misbehaviour, Rule, parse_rules
from luff.lab.objects import Backup, Store
from luff.lab.resources import resource_for
from luff.lab.statuses import ApiError
from luff.lab.watching import Watch
from luff.model import Object

__all__ = ["ApiServer"]

START_WITHIN_S = 10.0
MOST_BODY_BYTES = 3 * 1024 * 1024
_WARNINGS_MOST = 4096
_WARNING_CUT = 256
_log = logging.getLogger(__name__)
_OPEN = {"/healthz", "/readyz", "/livez", "/version"}
_PROXIED = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/:]+):(\d{1,5})/proxy(/.*)")
Do: TypeAlias = Callable[[int | None], Awaitable[Response | Watch]]
"""Does what a request asks for; reads show the revision given, the newest without one."""
_EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class ApiServer:
    """
    This is an API server with its store, in a thread of its own.

    *validate* is asked about every object of networking.istio.io that is
    written; it returns problems, which refuse the write as istiod's webhook
    does, and warnings, which reach the client. *schema* is asked before, and returns
    each field that is not as a CRD wants it: 422. *pages* answers what is asked of
    pods through the server, by pod, port and path; ``None`` is nobody there. *clock_offset_s*
    sets the server's clock apart from this machine's.
    """

    def __init__(
        self,
        *,
        token: str,
        port: int | None = None,
        clock_offset_s: float = 0.0,
        validate: Callable[[Object], tuple[list[str], list[str]]] | None = None,
        schema: Callable[[Object], list[str]] | None = None,
        pages: Callable[[str, int, str], str | None] = lambda *_: None,
    ) -> None:
        self._pages = pages
        self._token = token
        self._users: dict[str, str] = {}
        self._backup: Backup | None = None
        self._wanted_port = port or 0
        self._offset = timedelta(seconds=clock_offset_s)
        self.store = Store(now=self.now, validate=validate, schema=schema)
        self.misbehaviour = Misbehaviour(lambda: self.store.revision)
        self.url = ""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._late: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> datetime:
        """Return the server's clock."""
        return datetime.now(UTC) + self._offset

    def start(self) -> None:
        """Listen on 127.0.0.1 and return once the server answers; `LabError` when the port is taken."""
        # asyncio turns Nagle's algorithm off only where it reads IPPROTO_TCP; with it each answer takes 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._wanted_port))
        except OSError as error:
            listener.close()
            raise LabError(
                f"the lab's API server cannot listen on 127.0.0.1:{self._wanted_port}: {error.strerror}",
                next_step="choose another port, or leave it out to have a free one chosen",
            ) from error
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self._application(),
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=512,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="luff-lab-api", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_WITHIN_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise LabError(f"the lab's API server on {self.url} did not start within {START_WITHIN_S:g} s")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop serving; watches end. Does nothing when it was not started."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        if self._loop is not None and self._stopping is not None:
            # A watch never ends by itself, and the server would wait for it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=START_WITHIN_S)
        self._server = self._thread = None

    def rotate(self, token: str) -> None:
        """Accept *token* from now on, and no other. No kubeconfig is written: that is for whoever rotates."""
        self._token = token

    def add_user(self, name: str, token: str) -> None:
        """Accept *token* too; whoever comes with it is *name*, for whom rules can be made."""
        self._users[token] = name

    def write_kubeconfig(self, path: Path, *, token: str | None = None) -> None:
        """Write a kubeconfig for this server to *path*, readable by its owner only, with another user's *token* if given."""
        token = token or self._token
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "luff-lab", "cluster": {"server": self.url}}],
            # kubectl keeps a token to itself when the server is plain HTTP, but says whom it acts as.
            "users": [{"name": "luff-lab", "user": {"token": token, "as": token}}],
            "contexts": [
                {"name": "luff-lab", "context": {"cluster": "luff-lab", "user": "luff-lab", "namespace": "default"}}
            ],
            "current-context": "luff-lab",
        }
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            yaml.safe_dump(document, stream, sort_keys=False)
        beside.replace(path)

    def _serve(self, listener: socket.socket) -> None:
        assert self._server is not None
        server = self._server

        async def serve() -> None:
            self._stopping = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            try:
                await server.serve(sockets=[listener])
            finally:
                self._stopping.set()
                for task in self._late:
                    task.cancel()

        with contextlib.closing(listener), asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(serve())

    def _application(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", _Endpoint(self._respond), methods=_EVERY_METHOD)])

    async def _respond(self, request: Request) -> Response | Watch | None:
        try:
            response = await self._answer(request)
        except ApiError as error:
            response = (
                JSONResponse(error.status, status_code=error.code)
                if error.text is None
                else PlainTextResponse(error.text, status_code=error.code)
            )
            retry_after = (error.status.get("details") or {}).get("retryAfterSeconds")
            if retry_after:
                response.headers["Retry-After"] = str(retry_after)
        except ClientDisconnect:
            return None
        except Exception as error:
            _log.exception("%s %s failed", request.method, request.url.path)
            status = ApiError(500, "InternalError", f"Internal error occurred: {type(error).__name__}: {error}").status
            response = JSONResponse(status, status_code=500)
        if response is not None:
            response.headers["Date"] = format_datetime(self.now(), usegmt=True)
            response.headers["Cache-Control"] = "no-cache, private"
        return response

    async def _answer(self, request: Request) -> Response | Watch | None:
        path = request.url.path
        if path in _OPEN and path != "/version":
            return Response("ok", media_type="text/plain")
        user = self._authenticate(request) if path != "/version" else None
        if path.startswith("/luff/") and user is None:
            return await self._command(path.removeprefix("/luff/"), request)
        if request.method in {"GET", "HEAD"}:
            if path == "/openapi/v2" and "proto" in request.headers.get("accept", ""):
                # No bytes are a valid, empty document in that encoding.
                return Response(b"", media_type="application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
            document = describe(path)
            if document is not None:
                return JSONResponse(document)
        proxied = _PROXIED.fullmatch(path)
        if proxied is not None and request.method == "GET":
            namespace, pod, port, page = proxied.groups()
            attempt = Attempt("get", "", "pods/proxy", namespace, pod, user=user)
            return await self._governed(request, attempt, lambda *_: self._proxied(namespace, pod, int(port), page))
        asked = parse(request.method, path, request.query_params, request.headers, await _body(request))
        group = REVIEWS_GROUP if asked.resource is None else asked.resource.group
        attempt = Attempt(
            asked.verb, group, asked.plural, asked.namespace or "", asked.name, dry_run=asked.dry_run, user=user
        )
        return await self._governed(request, attempt, partial(self._do, asked, user))

    async def _governed(
        self, request: Request, attempt: Attempt, do: Callable[[Admission, int | None], Awaitable[Response | Watch]]
    ) -> Response | Watch | None:
        """Do what is attempted, or what the rules have in its place; ``None`` once the connection was dropped."""
        if self.misbehaviour.forbids(attempt):
            place = (attempt.group, attempt.plural, attempt.namespace)
            raise ApiError.forbidden(attempt.user or "luff-lab", attempt.verb, place, attempt.name)
        rule = self.misbehaviour.next_for(attempt)
        through = partial(do, Admission(self.misbehaviour.admission_for(attempt)))
        return await through(None) if rule is None else await self._fail(rule, request, through)

    async def _proxied(self, namespace: str, name: str, port: int, path: str) -> Response:
        """Answer in a pod's place what was asked of it through the server."""
        pods = resource_for("", "v1", "pods")
        assert pods is not None
        self.store.get(pods, namespace, name)
        page = await asyncio.to_thread(self._pages, name, port, path)
        if page is None:
            raise ApiError(
                503, "ServiceUnavailable", f"error trying to reach service: dial tcp {name}:{port}: connection refused"
            )
        return Response(page, media_type="text/plain")

    async def _do(self, asked: Asked, user: str | None, admission: Admission, revision: int | None) -> Response | Watch:
        if asked.verb == "watch":
            assert self._stopping is not None
            return Watch(self.store, asked, now=self.now, stopping=self._stopping)
        if asked.resource is None:
            done = reviewed(asked, self.misbehaviour.forbids, user=user)
        else:
            done = answer(self.store, asked, now=self.now(), revision=revision, admission=admission)
        response = Response(_dump(done.body), status_code=done.code, media_type="application/json")
        for warning in _cut_as_the_real_one(done.warnings):
            response.headers.append("Warning", _warning(warning))
        return response

    async def _command(self, command: str, request: Request) -> Response:
        """Do what a test asks for, at ``/luff/`` something: none of this is Kubernetes'."""
        body = await _body(request)
        match command.split("/"), request.method:
            case ["misbehave"], _:
                return self._misbehave(request.method, body)
            case ["token"], "PUT":
                self.rotate(body.decode())
            case ["users", name], "PUT":
                self.add_user(name, body.decode())
            case ["backup"], "PUT":
                self._backup = self.store.backup()
            case ["backup"], "POST" if self._backup is not None:
                self.store.restore(self._backup)
            case _:
                raise ApiError.no_such_path()
        return Response(status_code=204)

    def _misbehave(self, method: str, body: bytes) -> Response:
        if method == "DELETE":
            self.misbehaviour.clear()
        elif method == "POST":
            try:
                self.misbehaviour.add(parse_rules(json.loads(body)))
            except (ValueError, TypeError) as error:
                raise ApiError.bad_request(str(error)) from error
        return JSONResponse(self.misbehaviour.left())

    async def _fail(self, rule: Rule, request: Request, do: Do) -> Response | Watch | None:
        match rule.action:
            case "delay":
                await self._pause(rule.seconds)
                return await do(None)
            case "duplicate":
                with contextlib.suppress(ApiError):
                    await do(None)
                return await do(None)
            case "stale":
                return await do(self.store.revision_before(rule.revisions))
            case "frozen":
                return await do(rule.revision)
            case "status":
                raise _told(rule)
            case "drop_reply":
                with contextlib.suppress(ApiError):
                    await do(None)
            case "apply_late":
                task = asyncio.create_task(_do_late(do, rule.seconds))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            case "hang":
                await self._pause(rule.seconds or 3600.0)
            case "close":
                pass
        await _drop_connection(request)
        return None

    async def _pause(self, seconds: float) -> None:
        assert self._stopping is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _authenticate(self, request: Request) -> str | None:
        """Return the name of the user whose token came, ``None`` for the lab's own; 401 for any other token."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.headers.get("impersonate-user", "")
        given = given.strip()
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        if given not in self._users:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return self._users[given]


async def _do_late(do: Do, seconds: float) -> None:
    await asyncio.sleep(seconds)
    with contextlib.suppress(ApiError):
        await do(None)


class _Endpoint:
    """This is the one route. It may end without a response, once the connection was dropped."""

    def __init__(self, respond: Callable[[Request], Any]) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        if response is not None:
            await response(scope, receive, send)


class _Protocol(HttpToolsProtocol):
    """This is uvicorn's protocol, which tells the application how to drop its connection."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "drop": self._drop}, _loop)

    def _drop(self) -> None:
        self.transport.abort()


async def _drop_connection(request: Request) -> None:
    request.scope["state"]["drop"]()
    # Once uvicorn has seen it, it does not miss the response.
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise ApiError.too_large(f"limit is {MOST_BODY_BYTES}")
    return b"".join(parts)


def _dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _cut_as_the_real_one(warnings: Sequence[str]) -> Iterator[str]:
    """Yield *warnings* in full where all together are short enough, else the beginning of each, while there is room."""
    if sum(map(len, warnings)) <= _WARNINGS_MOST:
        yield from warnings
        return
    said = 0
    for text in warnings:
        said += min(len(text), _WARNING_CUT)
        if said > _WARNINGS_MOST:
            return
        yield text[:_WARNING_CUT]


def _warning(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'299 - "{quoted}"'.encode().decode("latin-1")


def _told(rule: Rule) -> ApiError:
    reasons = {
        400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid",
        429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
    }  # fmt: skip
    details: Object = {} if rule.retry_after is None else {"retryAfterSeconds": rule.retry_after}
    code = rule.code or 500
    return ApiError(code, reasons.get(code, ""), f"the lab was told to answer {code}", details=details)
