"""
The lab's replicas as Kubernetes shows pods, and what their proxies would say on Istio's metrics page.

The page is made from the real Envoy's access log, a line a request, under the
names that Istio's stats filter gives. What the fault filter answers itself has
no destination workload, as in Istio.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

from luff.builds import CONTENT_ANNOTATION
from luff.evidence.access_log import Followed
from luff.lab.content import content_of
from luff.lab.workloads import Replica
from luff.model import Object

__all__ = ["METRICS_PATH", "METRICS_PORTS", "ProxyPage", "pod_object"]

IMAGE_ANNOTATION = "luff.dev/image"
"""Where a LabWorkload says of which image its program is."""
CONTENT_SHOWN = 12
METRICS_PORTS = frozenset({15020, 15090})
METRICS_PATH = "/stats/prometheus"
READ_MOST_BYTES = 64 << 20
_REQUESTS = "istio_requests_total"


def pod_object(replica: Replica) -> Object:
    """Return *replica* as a running Pod of two containers, one of them its proxy."""
    assert replica.workload is not None
    port = {"containerPort": replica.workload.spec.port, "protocol": "TCP"}
    metadata = replica.workload.metadata
    image, content = metadata.annotations.get(IMAGE_ANNOTATION, f"lab/{metadata.name}"), content_of(replica.workload)
    annotations = {} if content is None else {CONTENT_ANNOTATION: content[:CONTENT_SHOWN]}
    digest = "" if content is None else f"{image}@sha256:{content}"
    statuses = [
        {"name": name, "ready": True, "restartCount": 0, "image": image, "imageID": id_, "state": {"running": {}}}
        for name, image, id_ in (("app", image, digest), ("istio-proxy", "envoy", ""))
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": replica.name,
            "namespace": replica.plan.proxy.namespace,
            "labels": {**replica.labels, "luff.dev/workload": replica.plan.workload},
            "annotations": {**annotations, **metadata.annotations},
        },
        "spec": {
            "containers": [
                {"name": "app", "image": image, "ports": [port]},
                {"name": "istio-proxy", "image": "envoy", "ports": [{"containerPort": 15090, "protocol": "TCP"}]},
            ]
        },
        "status": {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": statuses},
    }


class ProxyPage:
    """This counts what is in the access log at *log*, each line once, and writes it as metrics. Thread safe."""

    def __init__(self, log: Path) -> None:
        self._log = Followed(log, READ_MOST_BYTES)
        self._counts: Counter[tuple[tuple[str, str], ...]] = Counter()
        self._lock = threading.Lock()

    def text(self) -> str:
        """Return the page as it is now."""
        with self._lock:
            self._counts.update(map(_labels, self._log.new_lines()))
            lines = [f"# TYPE {_REQUESTS} counter"]
            for labels, count in sorted(self._counts.items()):
                shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
                lines.append(f"{_REQUESTS}{{{shown}}} {count}")
        return "\n".join(lines) + "\n"


def _labels(line: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the labels that Istio's stats filter gives a request."""
    outbound = line.get("direction") == "outbound"
    flags = str(line.get("flags") or "-")
    # outbound|9080|v1|ratings.bookinfo.svc.cluster.local
    cluster = str(line.get("cluster") or "").split("|")
    host = cluster[3] if len(cluster) == 4 else ""
    name, namespace = (*host.split("."), "unknown", "unknown")[:2] if host else ("unknown", "unknown")
    answered = "FI" not in flags.split(",")
    workload = str(line.get("workload") or "unknown")
    return (
        ("reporter", "source" if outbound else "destination"),
        ("source_workload", workload if outbound else "unknown"),
        ("destination_workload", (name if answered else "unknown") if outbound else workload),
        ("destination_service", host or "unknown"),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("request_protocol", "http"),
        ("response_code", str(line.get("status") or "0")),
        ("response_flags", flags),
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
