"""
The mesh behind a Kubernetes API server, by the official client.

Raw dicts in and out, never typed models: a field that nobody here has heard of
survives. Nothing but `MeshError` leaves it, whatever the client raises: who
restores goes on after those. Every call has a time limit; nothing is retried here, also not by
urllib3, since a write whose answer was lost must be *known* to be of unknown
outcome. The client is synchronous and runs in threads; a call that was started
is awaited to its own time limit even when its caller is cancelled, because a
thread cannot be cancelled and its patch may still arrive.

Credentials are read anew when the server does not accept them: tokens are
rotated while a fault is live. That one call is made again, since a 401 says
that nothing was done.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from kubernetes import client

from luff.errors import MeshError, MeshUnreachable
from luff.mesh import FIELD_MANAGER, LAB_BUILD, Kind, Operation, Ref
from luff.mesh.answers import BODY_SHOWN, NotAccepted, error_of
from luff.mesh.bounded import bind
from luff.mesh.kubeconfig import Connection, client_of, current_context, has_certificate, kubectl
from luff.words import Object

__all__ = ["Connection", "KubernetesMesh", "Limits", "current_context", "kubectl"]

THREADS = 16
"""Calls at once; more wait their turn."""
PAGE_THREADS = 8
"""The same for pages of pods, which have threads of their own: a pod that is silent keeps no restore waiting."""
PAGE_SIZE = 500
RENEW_LEAST_S = 1.0
"""Credentials are not read more often than this."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    This is how long a call may take.

    *connect_s* to be connected, *answer_s* for each read of an answer,
    *whole_s* and *most_bytes* for all of it, *pages_most* for a list; after
    *silent_after_s* without an answer a person is told.
    """

    connect_s: float = 3.0
    answer_s: float = 10.0
    whole_s: float = 30.0
    most_bytes: int = 256 * 1024 * 1024
    pages_most: int = 1_000
    silent_after_s: float = 1.5


_PATHS: dict[Kind, tuple[str, str]] = {
    Kind.VIRTUAL_SERVICE: ("/apis/networking.istio.io/v1", "virtualservices"),
    Kind.DESTINATION_RULE: ("/apis/networking.istio.io/v1", "destinationrules"),
    Kind.LEASE: ("/apis/coordination.k8s.io/v1", "leases"),
    Kind.CONFIG_MAP: ("/api/v1", "configmaps"),
    Kind.EVENT: ("/apis/events.k8s.io/v1", "events"),
    Kind.NAMESPACE: ("/api/v1", "namespaces"),
    Kind.SERVICE: ("/api/v1", "services"),
    Kind.POD: ("/api/v1", "pods"),
}


class KubernetesMesh:
    """This is `luff.mesh.Mesh` on the official client. Close it when done."""

    def __init__(
        self,
        api: client.ApiClient,
        connection: Connection,
        *,
        name: str,
        on_silence: Callable[[str], None] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.kind: Literal["lab", "cluster"] = connection.kind
        self.name = name
        self.kubeconfig = connection.kubeconfig
        self._api = api
        self._connection = connection
        self._renewing = threading.Lock()
        self._renewed_s = -RENEW_LEAST_S
        self._limits = limits
        self._on_silence = on_silence
        self._silence_is_known = False
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="luff-mesh")
        self._page_threads = ThreadPoolExecutor(max_workers=PAGE_THREADS, thread_name_prefix="luff-pages")

    @classmethod
    def connect(
        cls,
        connection: Connection,
        *,
        on_silence: Callable[[str], None] | None = None,
        limits: Limits = Limits(),
    ) -> KubernetesMesh:
        """
        Read the kubeconfig and return a client that has not called anything yet; `MeshError` when it is unusable.

        *on_silence* is called with the server's name and address when a call
        has had no answer for a while, or ended without one; then not again before
        there was an answer.
        """
        api = _bounded_client(connection, limits)
        name = connection.context or current_context(connection.kubeconfig) or "unnamed"
        return cls(api, connection, name=name, on_silence=on_silence, limits=limits)

    def anew(self) -> KubernetesMesh:
        """
        Return another client for the same server, with what the kubeconfig says now.

        Raises `MeshError` when that is unusable, or means another server by now.
        """
        return type(self)(
            self._api_now(), self._connection, name=self.name, on_silence=self._on_silence, limits=self._limits
        )

    def close(self) -> None:
        """Let go of threads and connections. A call that is still under way is not waited for."""
        for threads in (self._threads, self._page_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        self._api.rest_client.close()

    async def read(self, ref: Ref) -> Object:
        return await self._object(ref, "GET", _path(ref))

    async def list(self, kind: Kind, namespace: str | None) -> list[Object]:
        prefix, plural = _PATHS[kind]
        path = f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"
        where = Ref(kind, namespace or "", "*")
        found: list[Object] = []
        query = [("limit", str(PAGE_SIZE))]
        for _ in range(self._limits.pages_most):
            page = await self._object(where, "GET", path, query=query)
            api_version = page.get("apiVersion", "")
            # Items of a list carry no kind of their own; whoever gets one wants to know what it is.
            found += [{"apiVersion": api_version, "kind": str(kind), **item} for item in page.get("items") or []]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            query = [("limit", str(PAGE_SIZE)), ("continue", str(more))]
        raise MeshUnreachable(
            f"{where}: the list did not end after {self._limits.pages_most:,} pages of up to {PAGE_SIZE}"
        )

    async def create(self, object_: Object, *, dry_run: bool = False) -> Object:
        ref = Ref.of(object_)
        prefix, plural = _PATHS[ref.kind]
        path = f"{prefix}/namespaces/{ref.namespace}/{plural}" if ref.namespace else f"{prefix}/{plural}"
        return await self._object(ref, "POST", path, query=_write_query(dry_run=dry_run), body=object_)

    async def patch(self, ref: Ref, operations: Sequence[Operation], *, dry_run: bool = False) -> Object:
        return await self._object(
            ref,
            "PATCH",
            _path(ref),
            query=_write_query(dry_run=dry_run),
            body=[dict(operation) for operation in operations],
            content_type="application/json-patch+json",
        )

    async def replace(self, object_: Object) -> Object:
        ref = Ref.of(object_)
        return await self._object(ref, "PUT", _path(ref), query=_write_query(dry_run=False), body=object_)

    async def delete(self, ref: Ref, *, resource_version: str | None = None) -> None:
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if resource_version is not None:
            body["preconditions"] = {"resourceVersion": resource_version}
        await self._object(ref, "DELETE", _path(ref), body=body)

    async def pod_page(self, namespace: str, pod: str, port: int, path: str) -> str:
        """
        Return what *pod* answers to a GET of *path* on *port*, through the API server.

        Raises `MeshError`: `MeshDenied` without ``get`` on ``pods/proxy``, `NotFound`
        for a pod that is gone, `MeshBusy` for one that does not answer. A slow pod
        is not a slow API server, so nobody is told of it.
        """
        ref = Ref(Kind.POD, namespace, pod)
        where = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"
        loop = asyncio.get_running_loop()
        # Not shielded: a page that nobody waits for any more is not asked for.
        text, _ = await loop.run_in_executor(self._page_threads, self._call_now, ref, "GET", where, [], None, "")
        return text

    async def server_time_s(self) -> float:
        _, headers = await self._call(Ref(Kind.NAMESPACE, "", "(server clock)"), "GET", "/version", [], None, "")
        try:
            return parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except ValueError as error:
            raise MeshError(
                f"the API server {self.name} sends no usable Date header",
                next_step="luff dates its routes by that clock; check what stands between",
            ) from error

    async def is_lab(self) -> bool:
        """Return whether this is the API of a lab, whatever led to it."""
        version, _ = await self._call(Ref(Kind.NAMESPACE, "", "(version)"), "GET", "/version", [], None, "")
        try:
            return str(json.loads(version)["gitVersion"]).endswith(LAB_BUILD)
        except (ValueError, KeyError, TypeError):
            return False

    async def _object(
        self,
        ref: Ref,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        text, _ = await self._call(ref, method, path, query, body, content_type)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MeshUnreachable(f"{ref}: the answer is not JSON: {text[:BODY_SHOWN]!r}") from error
        if not isinstance(found, dict):
            raise MeshUnreachable(f"{ref}: the answer is not an object: {text[:BODY_SHOWN]!r}")
        return found

    async def _call(
        self, ref: Ref, method: str, path: str, query: Sequence[tuple[str, str]], body: Any, content_type: str
    ) -> tuple[str, Any]:
        loop = asyncio.get_running_loop()
        silence = loop.call_later(self._limits.silent_after_s, self._say_silence)
        try:
            answer = await asyncio.shield(
                loop.run_in_executor(self._threads, self._call_now, ref, method, path, query, body, content_type)
            )
        except MeshUnreachable:
            self._say_silence()
            raise
        finally:
            silence.cancel()
        self._silence_is_known = False
        return answer

    def _say_silence(self) -> None:
        if self._on_silence is not None and not self._silence_is_known:
            self._silence_is_known = True
            self._on_silence(f"{self.name} at {self._api.configuration.host}")

    def _call_now(
        self, ref: Ref, method: str, path: str, query: Sequence[tuple[str, str]], body: Any, content_type: str
    ) -> tuple[str, Any]:
        api = self._api
        try:
            return self._ask(api, ref, method, path, query, body, content_type)
        except NotAccepted:
            renewed = self._renewed(api)
            if renewed is None:
                raise
        return self._ask(renewed, ref, method, path, query, body, content_type)

    def _api_now(self) -> client.ApiClient:
        now = _bounded_client(self._connection, self._limits, renewing=True)
        meant, named = self._api.configuration.host, now.configuration.host
        if named != meant:
            # Whoever changed the kubeconfig means another server; what we do belongs to this one.
            raise MeshError(f"the kubeconfig of {self.name} means {named} by now, and not {meant}")
        return now

    def _renewed(self, refused: client.ApiClient) -> client.ApiClient | None:
        """Return a client with the credentials as they are now in place of the one *refused*, ``None`` if there is none."""
        with self._renewing:
            if self._api is not refused:
                return self._api
            if time.monotonic() - self._renewed_s < RENEW_LEAST_S:
                return None
            self._renewed_s = time.monotonic()
            try:
                now = self._api_now()
            except MeshError:
                # It is being written right now, perhaps; the next call looks again.
                return None
            if now.configuration.api_key == refused.configuration.api_key and not has_certificate(now):
                return None
            self._api = now
            refused.rest_client.close()
            return self._api

    def _ask(
        self, api: client.ApiClient, ref: Ref, method: str, path: str, query: Sequence[tuple[str, str]], body: Any,
        content_type: str,
    ) -> tuple[str, Any]:  # fmt: skip
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body is not None else {})
        try:
            request = api.param_serialize(
                method,
                path,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = api.call_api(*request, _request_timeout=(self._limits.connect_s, self._limits.answer_s))
            text = (response.read() or b"").decode("utf-8", errors="replace")
        except client.ApiException as error:
            # Status 0 is how the client says that TLS broke, at any time: the request may have been read by then.
            raise error_of(ref, error.status or 0, str(error.body or error.reason), None) from error
        except Exception as error:
            # Whatever else the client and what is below it raise, an answer it is not.
            raise MeshUnreachable(
                f"{ref}: the API server {self.name} at {api.configuration.host} gave no answer "
                f"({type(error).__name__}: {str(error)[:BODY_SHOWN]})",
                next_step=f"check that `{kubectl(self._connection)} get --raw /readyz` works",
            ) from error
        if not 200 <= response.status < 300:
            raise error_of(ref, response.status, text, response.headers.get("Retry-After"))
        return text, response.headers


def _bounded_client(connection: Connection, limits: Limits, *, renewing: bool = False) -> client.ApiClient:
    api = client_of(connection, connections=THREADS + PAGE_THREADS, renewing=renewing)
    bind(api.rest_client.pool_manager, within_s=limits.whole_s, most_bytes=limits.most_bytes)
    return api


def _path(ref: Ref) -> str:
    prefix, plural = _PATHS[ref.kind]
    return (
        f"{prefix}/namespaces/{ref.namespace}/{plural}/{ref.name}" if ref.namespace else f"{prefix}/{plural}/{ref.name}"
    )


def _write_query(*, dry_run: bool) -> list[tuple[str, str]]:
    # Warn, not Strict: an object may hold fields that a newer schema knows, and none of those are ours to refuse.
    query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Warn")]
    return [*query, ("dryRun", "All")] if dry_run else query
