"""
What the callers' proxies count, read from their pods through the API server.

Needs ``list`` on pods and ``get`` on ``pods/proxy`` in the callers' namespace
(see deploy/runs.yaml), and nothing inside the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from luff.errors import MeshDenied, MeshError
from luff.evidence.istio_metrics import Labels, fired, parse, why_blind
from luff.evidence.proxy_counts import Reading, Unreadable
from luff.words import Object

__all__ = ["PODS_MOST", "PROXY_RULE", "PodMetrics"]

PORTS = (15090, 15020)
"""The proxy's own page, and the one that istio's agent merges with the application's."""
PATH = "/stats/prometheus"
PODS_MOST = 100
"""More are not read at once: each page may be megabytes."""
PAGES_AT_ONCE = 8
PAGE_WITHIN_S = 8.0
PROXY_RULE = '{apiGroups: [""], resources: [pods, pods/proxy], verbs: [get, list]}'
"""What a role needs, to be read by who may add it."""


@dataclass(slots=True)
class PodMetrics:
    """
    This is a `luff.evidence.proxy_counts.Reader` on the pods of *namespace* that have *labels*.

    *pods* lists a namespace's pods; *page* is a GET of a pod's port and path.
    """

    pods: Callable[[str], Awaitable[Sequence[Object]]]
    page: Callable[[str, str, int, str], Awaitable[str]]
    namespace: str
    labels: Mapping[str, str]
    destinations: frozenset[str]
    target_namespace: str
    name: str = "pod-metrics"
    every_s: float = 1.0
    late_s: float = 0.0
    _ports: dict[str, int] = field(default_factory=dict)

    async def read(self) -> Reading:
        pods = await self._proxies()
        room = asyncio.Semaphore(PAGES_AT_ONCE)

        async def one(pod: Object) -> dict[Labels, float] | str:
            async with room:
                return await self._series(pod)

        answers = await asyncio.gather(*(one(pod) for pod in pods))
        pages, unread = {}, {}
        for pod, answer in zip(pods, answers, strict=True):
            if isinstance(answer, str):
                unread[_uid(pod)] = f"{pod['metadata']['name']}: {answer}"
            else:
                pages[_uid(pod)] = answer
        found = {
            uid: fired(page, destinations=self.destinations, namespace=self.target_namespace)
            for uid, page in pages.items()
        }
        if not found:
            raise Unreadable(
                f"none of the {len(pods)} proxies of pods {self._where} could be read: {next(iter(unread.values()))}",
                f"let luff read them: {PROXY_RULE} in {self.namespace} (deploy/runs.yaml)",
            )
        return Reading(found, unread, self._blind(pages.values()))

    def _blind(self, pages: Iterable[Mapping[Labels, float]]) -> Unreadable | None:
        why = why_blind(pages)
        if why is None:
            return None
        return Unreadable(
            f"the proxies of pods {self._where} show no fault: {why}",
            "see what Telemetry says of the metrics, or name the pods that call the broken hop in target.from",
        )

    async def close(self) -> None:
        """Do nothing: the connections are the mesh's."""

    @property
    def _where(self) -> str:
        labels = ",".join(f"{key}={value}" for key, value in sorted(self.labels.items()))
        return f"{labels} in {self.namespace}"

    async def _proxies(self) -> list[Object]:
        try:
            every = await self.pods(self.namespace)
        except MeshDenied as error:
            raise Unreadable(
                f"pods in {self.namespace} may not be listed: {error.message}",
                f"add {PROXY_RULE} to luff's role in {self.namespace} (deploy/runs.yaml)",
            ) from error
        except MeshError as error:
            raise Unreadable(
                f"pods in {self.namespace} could not be listed: {error.message}",
                "try again once the API server answers",
            ) from error
        callers = [pod for pod in every if self._is_caller(pod)]
        if not callers:
            raise Unreadable(
                f"no running pod with a proxy has the labels {self._where}",
                "name the caller's labels in target.from",
            )
        if len(callers) > PODS_MOST:
            raise Unreadable(
                f"{len(callers)} pods are {self._where}, and {PODS_MOST} are read at most",
                "use evidence.source: prometheus, or narrow target.from",
            )
        return callers

    def _is_caller(self, pod: Object) -> bool:
        labels = pod["metadata"].get("labels") or {}
        spec = pod.get("spec") or {}
        # Since 1.29 of Kubernetes a sidecar may be an init container that stays.
        containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
        return (
            all(labels.get(key) == value for key, value in self.labels.items())
            and (pod.get("status") or {}).get("phase") == "Running"
            and any(container.get("name") == "istio-proxy" for container in containers)
        )

    async def _series(self, pod: Object) -> dict[Labels, float] | str:
        name, uid = pod["metadata"]["name"], _uid(pod)
        why = ""
        for port in (self._ports[uid],) if uid in self._ports else PORTS:
            try:
                text = await asyncio.wait_for(self.page(self.namespace, name, port, PATH), PAGE_WITHIN_S)
                series = parse(text)
            except TimeoutError:
                why = why or f"no answer within {PAGE_WITHIN_S:g} s"
            except MeshDenied as error:
                return error.message
            except MeshError as error:
                why = why or error.message
            except ValueError as error:
                why = why or str(error)
            else:
                self._ports[uid] = port
                return series
        return why


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid") or pod["metadata"]["name"])
