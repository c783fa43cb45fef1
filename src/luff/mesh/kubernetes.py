"""
The mesh behind a Kubernetes API server. The only importer of ``kubernetes``.

Raw dicts in and out, never typed models: a field that nobody here has heard of
survives. Every call has a time limit; nothing is retried here, also not by
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from luff.errors import Conflict, MeshBusy, MeshDenied, MeshError, MeshUnreachable, NotFound, Rejected
from luff.mesh import FIELD_MANAGER, Kind, Operation, Ref
from luff.words import Object

__all__ = ["Connection", "KubernetesMesh", "current_context"]

CONNECT_WITHIN_S = 3.0
ANSWER_WITHIN_S = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
THREADS = 16
"""Calls at once; more wait their turn."""
PAGE_SIZE = 500
RENEW_LEAST_S = 1.0
"""Credentials are not read more often than this."""
BODY_SHOWN = 300
"""Characters of an unexpected answer that an error message repeats."""

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


@dataclass(frozen=True, slots=True)
class Connection:
    """
    This is how to reach one API server, small enough to hand to another process.

    *kubeconfig* is a file, or ``None`` for the default ones; *context* one of
    its contexts, or ``None`` for the current one.
    """

    kubeconfig: str | None
    context: str | None
    kind: Literal["lab", "cluster"] = "cluster"


def current_context(kubeconfig: str | None) -> str | None:
    """Return the name of the kubeconfig's current context, or ``None`` when there is no usable kubeconfig."""
    try:
        _, current = config.list_kube_config_contexts(config_file=kubeconfig)
    except (ConfigException, OSError, yaml.YAMLError, TypeError, KeyError):
        return None
    return str(current["name"]) if current else None


class _NotAccepted(MeshDenied):
    """This is 401: the credentials are not, or no longer, accepted."""


class KubernetesMesh:
    """This is `luff.mesh.Mesh` on the official client. Close it when done."""

    def __init__(self, api: client.ApiClient, connection: Connection, *, name: str) -> None:
        self.kind: Literal["lab", "cluster"] = connection.kind
        self.name = name
        self._api = api
        self._connection = connection
        self._renewing = threading.Lock()
        self._renewed_s = -RENEW_LEAST_S
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="luff-mesh")

    @classmethod
    def connect(cls, connection: Connection) -> KubernetesMesh:
        """Read the kubeconfig and return a client that has not called anything yet; `MeshError` when it is unusable."""
        api = client.ApiClient(_configuration(connection))
        name = connection.context or current_context(connection.kubeconfig) or "unnamed"
        return cls(api, connection, name=name)

    def close(self) -> None:
        """Let go of threads and connections. A call that is still under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._api.rest_client.close()

    async def read(self, ref: Ref) -> Object:
        return await self._object(ref, "GET", _path(ref))

    async def list(self, kind: Kind, namespace: str | None) -> list[Object]:
        prefix, plural = _PATHS[kind]
        path = f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"
        where = Ref(kind, namespace or "", "*")
        found: list[Object] = []
        query = [("limit", str(PAGE_SIZE))]
        while True:
            page = await self._object(where, "GET", path, query=query)
            api_version = page.get("apiVersion", "")
            # Items of a list carry no kind of their own; whoever gets one wants to know what it is.
            found += [{"apiVersion": api_version, "kind": str(kind), **item} for item in page.get("items") or []]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            query = [("limit", str(PAGE_SIZE)), ("continue", more)]

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

    async def server_time_s(self) -> float:
        _, headers = await self._call(Ref(Kind.NAMESPACE, "", "(server clock)"), "GET", "/version", [], None, "")
        try:
            return parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except ValueError as error:
            raise MeshError(
                f"the API server {self.name} sends no usable Date header",
                next_step="luff dates its routes by that clock; check what stands between",
            ) from error

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
        except ValueError as error:
            raise MeshUnreachable(f"{ref}: the answer is not JSON: {text[:BODY_SHOWN]!r}") from error
        if not isinstance(found, dict):
            raise MeshUnreachable(f"{ref}: the answer is not an object: {text[:BODY_SHOWN]!r}")
        return found

    async def _call(
        self, ref: Ref, method: str, path: str, query: Sequence[tuple[str, str]], body: Any, content_type: str
    ) -> tuple[str, Any]:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(
            loop.run_in_executor(self._threads, self._call_now, ref, method, path, query, body, content_type)
        )

    def _call_now(
        self, ref: Ref, method: str, path: str, query: Sequence[tuple[str, str]], body: Any, content_type: str
    ) -> tuple[str, Any]:
        api = self._api
        try:
            return self._ask(api, ref, method, path, query, body, content_type)
        except _NotAccepted:
            renewed = self._renewed(api)
            if renewed is None:
                raise
        return self._ask(renewed, ref, method, path, query, body, content_type)

    def _renewed(self, refused: client.ApiClient) -> client.ApiClient | None:
        """Return a client with the credentials as they are now in place of the one *refused*, ``None`` if there is none."""
        with self._renewing:
            if self._api is not refused:
                return self._api
            if time.monotonic() - self._renewed_s < RENEW_LEAST_S:
                return None
            self._renewed_s = time.monotonic()
            try:
                now = _configuration(self._connection)
            except MeshError:
                # It is being written right now, perhaps; the next call looks again.
                return None
            if now.host != refused.configuration.host:
                # Whoever changed the kubeconfig means another server; what we do belongs to this one.
                return None
            if now.api_key == refused.configuration.api_key and not now.cert_file:
                return None
            self._api = client.ApiClient(now)
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
            response = api.call_api(*request, _request_timeout=(CONNECT_WITHIN_S, ANSWER_WITHIN_S))
            text = (response.read() or b"").decode("utf-8", errors="replace")
        except client.ApiException as error:
            raise _from_status(ref, error.status or 0, str(error.body or error.reason), None) from error
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            raise MeshUnreachable(
                f"{ref}: the API server {self.name} at {api.configuration.host} gave no answer "
                f"({type(error).__name__}: {str(error)[:BODY_SHOWN]})",
                next_step=f"check that `kubectl --context {self.name} get --raw /readyz` works",
            ) from error
        if not 200 <= response.status < 300:
            raise _from_status(ref, response.status, text, response.headers.get("Retry-After"))
        return text, response.headers


def _configuration(connection: Connection) -> client.Configuration:
    """Return what the kubeconfig says now; `MeshError` when it is unusable."""
    configuration = client.Configuration()
    try:
        config.load_kube_config(
            config_file=connection.kubeconfig, context=connection.context, client_configuration=configuration
        )
    except (ConfigException, OSError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        where = connection.kubeconfig or "the default kubeconfig"
        asked = f" with the context {connection.context}" if connection.context else ""
        raise MeshError(
            f"{where}{asked} cannot be used: {error}",
            next_step="name a kubeconfig with --kubeconfig or KUBECONFIG, or run against a lab with --lab",
        ) from error
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = THREADS
    if (urlsplit(configuration.host or "").hostname or "") in _LOOPBACK:
        # The client would send loopback addresses through HTTP_PROXY; kubectl never does.
        configuration.proxy = None
    return configuration


def _path(ref: Ref) -> str:
    prefix, plural = _PATHS[ref.kind]
    return (
        f"{prefix}/namespaces/{ref.namespace}/{plural}/{ref.name}" if ref.namespace else f"{prefix}/{plural}/{ref.name}"
    )


def _write_query(*, dry_run: bool) -> list[tuple[str, str]]:
    # Warn, not Strict: an object may hold fields that a newer schema knows, and none of those are ours to refuse.
    query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Warn")]
    return [*query, ("dryRun", "All")] if dry_run else query


def _from_status(ref: Ref, status: int, text: str, retry_after: str | None) -> MeshError:
    said = _message_in(text)
    if status == 404:
        return NotFound(f"{ref} is not there: {said}", next_step=f"check with `kubectl get {str(ref.kind).lower()} -A`")
    if status in (401, 403):
        what = "does not accept the credentials" if status == 401 else "does not allow it"
        step = "log in again, or renew the token in the kubeconfig" if status == 401 else "ask for the role in deploy/"
        denied = _NotAccepted if status == 401 else MeshDenied
        return denied(f"{ref}: the API server {what} ({status}): {said}", next_step=step)
    if status == 409 or (status == 422 and _is_failed_test(text)):
        return Conflict(f"{ref} was changed by somebody else meanwhile ({status}): {said}")
    if status == 429 or (status >= 500 and not _is_refusal(text)):
        wait_s = float(retry_after) if retry_after and retry_after.isdigit() else None
        return MeshBusy(f"{ref}: the API server is not able to answer now ({status}): {said}", retry_after_s=wait_s)
    return Rejected(f"{ref}: the API server refused ({status}): {said}")


def _message_in(text: str) -> str:
    try:
        status = json.loads(text)
    except ValueError:
        return text[:BODY_SHOWN].strip() or "no reason given"
    message = status.get("message") if isinstance(status, dict) else None
    return str(message or text)[:BODY_SHOWN]


def _is_failed_test(text: str) -> bool:
    # A schema refusal names fields in details.causes; a JSON Patch that does not apply names none.
    try:
        status = json.loads(text)
    except ValueError:
        return True
    details = status.get("details") if isinstance(status, dict) else None
    return not (isinstance(details, dict) and details.get("causes"))


def _is_refusal(text: str) -> bool:
    return "admission webhook" in text and "denied the request" in text
