"""One stored object, many served versions: what changes between them, and what a kind is given at creation."""

from __future__ import annotations

import copy

from luff.crd import SCHEMAS, without_nulls
from luff.lab.resources import Resource
from luff.lab.statuses import ApiError, invalid
from luff.model import Object

__all__ = ["content", "give_defaults", "served", "stored", "without_times"]


_STRINGS = ("name", "namespace", "uid", "resourceVersion", "generateName")


def served(resource: Resource, object_: Object, version: str | None) -> Object:
    """Return *object_* as the API serves it in *version* of *resource*: apart from events only the name changes."""
    wanted = resource.api_version(version)
    if resource.plural == "events":
        return _event(object_, wanted)
    return object_ if object_["apiVersion"] == wanted else {**object_, "apiVersion": wanted}


_EVENT_FIELDS = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}


def _event(object_: Object, api_version: str) -> Object:
    names = _EVENT_FIELDS if api_version == "v1" else {old: new for new, old in _EVENT_FIELDS.items()}
    return {names.get(key, key): value for key, value in object_.items()} | {"apiVersion": api_version}


def stored(resource: Resource, object_: Object) -> Object:
    """Return a copy of *object_* as it is kept, in the preferred version; 400 when it is of another kind."""
    kind = object_.get("kind")
    if kind not in (None, "", resource.kind):
        if resource.custom:
            problem = ("kind", f'Invalid value: "{kind}": must be {resource.kind}')
            raise invalid(resource.group, str(kind), _name_in(object_), [problem])
        raise ApiError.bad_request(
            f'{object_.get("kind")} in version "{object_.get("apiVersion")}" cannot be handled as a {resource.kind}'
        )
    known = [resource.api_version(version) for version in resource.versions]
    if object_.get("apiVersion") not in (None, "", "v1" if resource.plural == "events" else "", *known):
        raise ApiError.bad_request(
            f"the API version in the data ({object_['apiVersion']}) does not match the expected API version ({known[0]})"
        )
    for field in ("spec", "status"):
        if isinstance(object_.get(field, {}), dict | None):
            continue
        if resource.custom:
            problem = (field, f"Invalid value: {field} in body must be of type object")
            raise invalid(resource.group, resource.kind, _name_in(object_), [problem])
        raise ApiError.bad_request(f"json: cannot unmarshal into Go struct field {resource.kind}.{field}")
    metadata = object_.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ApiError.bad_request("json: cannot unmarshal into Go struct field .metadata of type v1.ObjectMeta")
    finalizers = metadata.get("finalizers") or []
    if not isinstance(finalizers, list) or not all(isinstance(item, str) for item in finalizers):
        raise ApiError.bad_request("json: cannot unmarshal into Go struct field ObjectMeta.finalizers of type string")
    for field in ("labels", "annotations"):
        entries = metadata.get(field)
        if entries is None:
            continue
        if not isinstance(entries, dict) or not all(isinstance(value, str | None) for value in entries.values()):
            raise ApiError.bad_request(
                f'{resource.kind} in version "{resource.versions[0]}" cannot be handled as a {resource.kind}: '
                f"json: cannot unmarshal into Go struct field ObjectMeta.{field} of type map[string]string"
            )
    for field in _STRINGS:
        if not isinstance(metadata.get(field, ""), str | None):
            raise ApiError.bad_request(f"json: cannot unmarshal into Go struct field ObjectMeta.{field} of type string")
    typed = copy.deepcopy({**object_, "kind": resource.kind})
    if resource.kind in SCHEMAS:
        typed = without_nulls(typed, SCHEMAS[resource.kind])
    if resource.plural == "events":
        return {**_event(typed, "v1")}
    return {**typed, "apiVersion": resource.api_version()}


def _name_in(object_: Object) -> str:
    metadata = object_.get("metadata")
    return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""


def give_defaults(resource: Resource, new: Object) -> None:
    """Add to *new* what the server adds to every new object of its kind."""
    if resource.plural == "namespaces":
        metadata = new["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}


def content(object_: Object) -> Object:
    """Return the part of *object_* whose changes its generation counts."""
    return {key: value for key, value in object_.items() if key not in {"metadata", "status", "apiVersion", "kind"}}


def without_times(object_: Object) -> Object:
    """Return *object_* without what differs between equal writes."""
    metadata = dict(object_["metadata"])
    metadata["managedFields"] = [{**entry, "time": ""} for entry in metadata.get("managedFields", [])]
    for empty in ("labels", "annotations", "finalizers", "ownerReferences"):
        if not metadata.get(empty):
            metadata.pop(empty, None)
    return {**object_, "metadata": metadata}
