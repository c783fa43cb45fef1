"""Which resources the lab's API server has, and the columns that `kubectl get` shows of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from luff.model import Object

__all__ = ["RESOURCES", "Resource", "resource_for", "table", "timestamp"]

Cell: TypeAlias = Callable[[Object, datetime], Any]
Column: TypeAlias = tuple[str, str, Cell]


@dataclass(frozen=True, slots=True)
class Resource:
    """
    This is one kind of object and how it is served.

    *versions* has the preferred one first, which is also the stored one.
    *custom* kinds are those of a CustomResourceDefinition.
    """

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    custom: bool = False
    generation: bool = False
    status: bool = False
    unconditional: bool = True
    """A PUT without a resourceVersion is accepted."""
    upsert: bool = False
    """A PUT creates what is not there."""
    columns: tuple[Column, ...] = ()
    field_labels: tuple[str, ...] = ()

    def api_version(self, version: str | None = None) -> str:
        """Return the ``apiVersion`` of objects served as *version*."""
        chosen = version or self.versions[0]
        return f"{self.group}/{chosen}" if self.group else chosen

    @property
    def singular(self) -> str:
        """The name of one, in lower case."""
        return self.kind.lower()

    @property
    def stored_as(self) -> tuple[str, str]:
        """Where its objects are kept: both groups of events share one place."""
        return ("" if self.plural == "events" else self.group, self.plural)


def timestamp(moment: datetime) -> str:
    """Return *moment* as Kubernetes writes it: UTC, seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _at(path: str) -> Cell:
    steps = path.split(".")

    def cell(object_: Object, now: datetime) -> Any:
        found: Any = object_
        for step in steps:
            found = found.get(step) if isinstance(found, dict) else None
        return json.dumps(found, separators=(",", ":")) if isinstance(found, list | dict) else found

    return cell


def _age_of(path: str) -> Cell:
    read = _at(path)

    def cell(object_: Object, now: datetime) -> str:
        try:
            then = datetime.fromisoformat(str(read(object_, now)))
        except ValueError:
            return "<unknown>"
        return _for_people((now - then).total_seconds())

    return cell


def _for_people(seconds: float) -> str:
    # As k8s.io/apimachinery duration.HumanDuration does it.
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    m, h, d = s // 60, s // 3600, s // 86400
    for limit, big, small in ((120, f"{max(s, 0)}s", 0), (600, f"{m}m", s % 60), (10_800, f"{m}m", 0)):
        if s < limit:
            return big + (f"{small}s" if small else "")
    if h < 8:
        return f"{h}h" + (f"{m % 60}m" if m % 60 else "")
    if h < 48:
        return f"{h}h"
    if d < 8:
        return f"{d}d" + (f"{h % 24}h" if h % 24 else "")
    return f"{d}d" if d < 730 else f"{d // 365}y"


def _ready(object_: Object, now: datetime) -> str:
    statuses = (object_.get("status") or {}).get("containerStatuses") or []
    containers = (object_.get("spec") or {}).get("containers") or []
    return f"{sum(bool(status.get('ready')) for status in statuses)}/{len(containers)}"


def _restarts(object_: Object, now: datetime) -> int:
    statuses = (object_.get("status") or {}).get("containerStatuses") or []
    return sum(int(status.get("restartCount") or 0) for status in statuses)


def _replicas(object_: Object, now: datetime) -> str:
    ready = (object_.get("status") or {}).get("readyReplicas") or 0
    return f"{ready}/{(object_.get('spec') or {}).get('replicas', 1)}"


def _ports(object_: Object, now: datetime) -> str:
    ports = (object_.get("spec") or {}).get("ports") or []
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _entries(object_: Object, now: datetime) -> int:
    return len(object_.get("data") or {}) + len(object_.get("binaryData") or {})


def _involved(object_: Object, now: datetime) -> str:
    about = object_.get("involvedObject") or object_.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _or(path: str, otherwise: str) -> Cell:
    read = _at(path)
    return lambda object_, now: read(object_, now) or otherwise


def _said(object_: Object, now: datetime) -> str:
    return str(object_.get("message") or object_.get("note") or "").strip()


def _last_seen(object_: Object, now: datetime) -> str:
    for field in ("lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"):
        if object_.get(field):
            return str(_age_of(field)(object_, now))
    return str(_age_of("metadata.creationTimestamp")(object_, now))


_NAME: Column = ("Name", "string", _at("metadata.name"))
_AGE: Column = ("Age", "date", _age_of("metadata.creationTimestamp"))
_EVENT_LABELS = (
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
    "reportingComponent", "source", "type",
)  # fmt: skip
_EVENT_COLUMNS: tuple[Column, ...] = (
    ("Last Seen", "string", _last_seen),
    ("Type", "string", _at("type")),
    ("Reason", "string", _at("reason")),
    ("Object", "string", _involved),
    ("Message", "string", _said),
)
_ISTIO = "networking.istio.io"
_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")


def _istio(
    plural: str,
    kind: str,
    short: tuple[str, ...],
    columns: tuple[Column, ...] = (),
    versions: tuple[str, ...] = _ISTIO_VERSIONS,
) -> Resource:
    return Resource(
        group=_ISTIO, versions=versions, plural=plural, kind=kind, short=short, custom=True, generation=True,
        status=True, unconditional=False, columns=columns,
    )  # fmt: skip


RESOURCES: tuple[Resource, ...] = (
    Resource("", ("v1",), "namespaces", "Namespace", ("ns",), namespaced=False,
             columns=(_NAME, ("Status", "string", _at("status.phase")), _AGE)),
    Resource("", ("v1",), "services", "Service", ("svc",), columns=(
        _NAME, ("Type", "string", _or("spec.type", "ClusterIP")), ("Cluster-IP", "string", _or("spec.clusterIP", "<none>")),
        ("External-IP", "string", lambda object_, now: "<none>"), ("Port(s)", "string", _ports), _AGE)),
    Resource("", ("v1",), "endpoints", "Endpoints", ("ep",)),
    Resource("", ("v1",), "pods", "Pod", ("po",), generation=True, field_labels=("status.phase", "spec.nodeName"), columns=(
        _NAME, ("Ready", "string", _ready), ("Status", "string", _or("status.phase", "Unknown")),
        ("Restarts", "integer", _restarts), _AGE)),
    Resource("", ("v1",), "configmaps", "ConfigMap", ("cm",), columns=(_NAME, ("Data", "integer", _entries), _AGE)),
    Resource("", ("v1",), "secrets", "Secret", (), field_labels=("type",), columns=(
        _NAME, ("Type", "string", _or("type", "Opaque")), ("Data", "integer", _entries), _AGE)),
    Resource("", ("v1",), "serviceaccounts", "ServiceAccount", ("sa",)),
    Resource("", ("v1",), "events", "Event", ("ev",), upsert=True, columns=_EVENT_COLUMNS, field_labels=_EVENT_LABELS),
    Resource("events.k8s.io", ("v1",), "events", "Event", ("ev",), upsert=True, columns=_EVENT_COLUMNS,
             field_labels=_EVENT_LABELS),
    Resource("apps", ("v1",), "deployments", "Deployment", ("deploy",), generation=True, columns=(
        _NAME, ("Ready", "string", _replicas), ("Up-to-date", "integer", _or("status.updatedReplicas", "0")),
        ("Available", "integer", _or("status.availableReplicas", "0")), _AGE)),
    Resource("coordination.k8s.io", ("v1",), "leases", "Lease", (), unconditional=False, upsert=True,
             columns=(_NAME, ("Holder", "string", _at("spec.holderIdentity")), _AGE)),
    _istio("virtualservices", "VirtualService", ("vs",), (
        _NAME, ("Gateways", "string", _at("spec.gateways")), ("Hosts", "string", _at("spec.hosts")), _AGE)),
    _istio("destinationrules", "DestinationRule", ("dr",), (_NAME, ("Host", "string", _at("spec.host")), _AGE)),
    _istio("gateways", "Gateway", ("gw",)),
    _istio("serviceentries", "ServiceEntry", ("se",), (
        _NAME, ("Hosts", "string", _at("spec.hosts")), ("Location", "string", _at("spec.location")),
        ("Resolution", "string", _at("spec.resolution")), _AGE)),
    _istio("sidecars", "Sidecar", ()),
    _istio("envoyfilters", "EnvoyFilter", (), versions=("v1alpha3",)),
)  # fmt: skip


def resource_for(group: str, version: str, plural: str) -> Resource | None:
    """Return the resource served under that path, or ``None``."""
    for resource in RESOURCES:
        if (resource.group, resource.plural) == (group, plural) and version in resource.versions:
            return resource
    return None


def _shown(read: Cell, object_: Object, now: datetime) -> Any:
    try:
        return read(object_, now)
    except (AttributeError, TypeError, ValueError):
        return "<invalid>"  # an object of any shape can be stored, and must not hide the others


def table(resource: Resource, objects: list[Object], *, now: datetime, include: str, metadata: Object) -> Object:
    """Return *objects* as the Table that `kubectl get` asks for; *include* is Metadata, Object or None."""
    columns = resource.columns or (_NAME, _AGE)
    rows: list[Object] = []
    for object_ in objects:
        row: Object = {"cells": [_shown(read, object_, now) for _, _, read in columns]}
        if include == "Object":
            row["object"] = object_
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object_["metadata"],
            }
        rows.append(row)
    definitions = [
        {
            "name": name,
            "type": "string" if kind == "date" else kind,
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": 0,
        }
        for name, kind, _ in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }
