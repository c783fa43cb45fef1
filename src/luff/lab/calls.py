"""From an HTTP request to a verb on the store, and from its result to a body."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from luff.lab import protobuf
from luff.lab.admission import Admission
from luff.lab.conversion import served
from luff.lab.misbehaviour import REVIEWS, Attempt
from luff.lab.objects import Store
from luff.lab.patching import decode, json_patch, merge_patch, strategic_patch
from luff.lab.resources import RESOURCES, Resource, resource_for, table
from luff.lab.selecting import Selector, field_selector, label_selector
from luff.lab.statuses import ApiError
from luff.lab.writes import Preconditions, Write
from luff.model import Object

__all__ = ["Answer", "Asked", "answer", "as_partial", "parse", "reviewed", "selector_of"]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
REVIEWS_GROUP = "authorization.k8s.io"
_REVIEWED = ("verb", "group", "resource", "namespace", "name")
_YAML = {"application/yaml", "application/x-yaml", "text/yaml", APPLY_PATCH}
_BODIES = ["application/json", "application/yaml", protobuf.MEDIA_TYPE]


@dataclass(frozen=True, slots=True)
class Asked:
    """This is one request for objects. *namespace* is ``None`` for all of them; *verb* as RBAC names it."""

    verb: str
    resource: Resource | None
    version: str
    plural: str
    namespace: str | None
    name: str
    subresource: str | None
    query: Mapping[str, str]
    accept: str
    content_type: str
    body: bytes
    manager: str
    dry_run: bool

    @property
    def kind_of_table(self) -> str | None:
        """What a Table's rows carry (Metadata, Object or None), or ``None`` when no Table is asked for."""
        if "as=Table" not in self.accept:
            return None
        return self.query.get("includeObject") or "Metadata"

    @property
    def partial(self) -> bool:
        """Whether only metadata is asked for."""
        return "as=PartialObjectMetadata" in self.accept

    @property
    def known(self) -> Resource:
        """The resource; 404 when there is none."""
        if self.resource is None:
            raise ApiError.no_such_path()
        return self.resource


@dataclass(frozen=True, slots=True)
class Answer:
    """This is what to send back."""

    code: int
    body: Any
    warnings: list[str] = field(default_factory=list)


def parse(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Asked:
    """Return what a request asks for; 404 for a path that means nothing, 405 for a verb that is not there."""
    steps = [step for step in path.split("/") if step]
    if steps[:1] == ["api"] and len(steps) > 2:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[:1] == ["apis"] and len(steps) > 3:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        raise ApiError.no_such_path()
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    resource = resource_for(group, version, plural)
    review = (group, plural, method) == (REVIEWS_GROUP, REVIEWS, "POST")
    known_group = any(each.group == group and not each.custom for each in RESOURCES)
    if len(rest) > 3 or (resource is None and not review):
        raise ApiError.no_such_path(known_group=known_group)
    if resource is not None and not _is_place(resource, namespace, name, subresource):
        raise ApiError.no_such_path(known_group=known_group)
    agent = headers.get("user-agent", "").partition("/")[0].strip() or "unknown"
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    asked = Asked(
        verb=_verb(method, query, named=bool(name), custom=resource is not None and resource.custom),
        resource=resource,
        version=version,
        plural=plural,
        namespace=namespace if resource is None or resource.namespaced else "",
        name=name,
        subresource=subresource or None,
        query=query,
        accept=headers.get("accept", ""),
        content_type=content_type,
        body=body,
        manager=query.get("fieldManager") or agent,
        dry_run=False,
    )
    if asked.verb in {"get", "list", "watch"} or not _is_dry_run(asked):
        return asked
    return Asked(**{name: getattr(asked, name) for name in Asked.__dataclass_fields__} | {"dry_run": True})


def _is_place(resource: Resource, namespace: str | None, name: str, subresource: str) -> bool:
    if namespace is not None and not resource.namespaced:
        return False
    if name and resource.namespaced and namespace is None:
        return False
    return subresource == "" or (subresource == "status" and resource.status)


def _verb(method: str, query: Mapping[str, str], *, named: bool, custom: bool) -> str:
    watching = query.get("watch") in {"true", "1"}
    verbs = {
        ("GET", True): "watch" if watching else "get",
        ("GET", False): "watch" if watching else "list",
        ("POST", False): "create",
        ("PUT", True): "update",
        ("PATCH", True): "patch",
        ("DELETE", True): "delete",
        ("DELETE", False): "deletecollection",
    }
    if custom:
        # One handler serves all paths of custom resources, and asks for a name only where it needs one.
        verbs["POST", True] = "create"
    verb = verbs.get(("GET" if method == "HEAD" else method, named))
    if verb is None and custom and method in {"PUT", "PATCH"}:
        raise ApiError.bad_request("name must be provided")
    if verb is None:
        raise ApiError.method_not_allowed()
    return verb


def _is_dry_run(asked: Asked) -> bool:
    values = [asked.query["dryRun"]] if asked.query.get("dryRun") else []
    if asked.verb in {"delete", "deletecollection"}:
        values += _delete_options(asked).get("dryRun") or []
    if set(values) > {"All"} or (values and set(values) != {"All"}):
        raise ApiError.bad_request(f'Invalid value: "{values[0]}": dryRun: Unsupported value: supported values: "All"')
    return bool(values)


def answer(store: Store, asked: Asked, *, now: datetime, revision: int | None, admission: Admission) -> Answer:
    """
    Do what is *asked* (anything but a watch) and return what to send back.

    Reads show *revision*, the newest without one; writes go through *admission*.
    """
    write = Write(
        manager=asked.manager,
        version=asked.version,
        dry_run=asked.dry_run,
        subresource=asked.subresource,
        admission=admission,
    )
    code = 200
    match asked.verb:
        case "list":
            return Answer(200, _listed(store, asked, now, revision))
        case "get":
            object_ = store.get(asked.known, asked.namespace or "", asked.name, revision=revision)
        case "create":
            object_, code = store.create(asked.known, _namespace(asked), _object_in(asked), write), 201
        case "update":
            object_ = store.replace(asked.known, asked.namespace or "", asked.name, _object_in(asked), write)
            code = 201 if write.created else 200
        case "patch":
            return _patched(store, asked, write)
        case "deletecollection":
            return _delete_all(store, asked, now, write)
        case _:
            return _deleted(store, asked, write)
    body = _shown(asked, served(asked.known, object_, asked.version), now)
    return Answer(code, body, write.warnings)


def reviewed(asked: Asked, forbids: Callable[[Attempt], bool], *, user: str | None) -> Answer:
    """Return the answer to the SelfSubjectAccessReview of *user*: *forbids* is asked about what the review is about."""
    review = _object_in(asked)
    wanted = (review.get("spec") or {}).get("resourceAttributes") or {}
    verb, group, plural, namespace, name = (str(wanted.get(key) or "") for key in _REVIEWED)
    forbidden = forbids(Attempt(verb, group, plural, namespace, name, user=user))
    why = "a rule of the lab forbids it" if forbidden else "everybody may do everything in a lab"
    return Answer(201, {**review, "status": {"allowed": not forbidden, "reason": why}})


def _patched(store: Store, asked: Asked, write: Write) -> Answer:
    resource, namespace = asked.known, asked.namespace or ""
    supported = [JSON_PATCH, MERGE_PATCH, *([] if resource.custom else [STRATEGIC_PATCH]), APPLY_PATCH]
    if asked.content_type not in supported:
        raise ApiError.unsupported_type(supported)
    code = 200
    if asked.content_type == APPLY_PATCH:
        if not asked.query.get("fieldManager"):
            message = (
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            )
            cause = {"reason": "FieldValueRequired", "message": "Required value: is required for apply patch"}
            details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [{**cause, "field": "fieldManager"}]}
            raise ApiError(422, "Invalid", message, details=details)
        config = _object_in(asked)
        force = asked.query.get("force") in {"true", "1"}
        object_ = store.apply(resource, namespace, asked.name, config, write, force=force)
        code = 201 if write.created else 200
    else:
        if asked.content_type == JSON_PATCH:
            change = json_patch(asked.body)
        else:
            try:
                patch = decode(asked.body)
            except (ValueError, RecursionError) as error:
                raise ApiError.bad_request(f"error decoding patch: {error}") from error
            change = merge_patch(patch) if asked.content_type == MERGE_PATCH else strategic_patch(patch)
        object_ = store.patch(resource, namespace, asked.name, change, write)
    return Answer(code, served(resource, object_, asked.version), write.warnings)


def _deleted(store: Store, asked: Asked, write: Write) -> Answer:
    resource = asked.known
    conditions = _delete_options(asked).get("preconditions") or {}
    preconditions = Preconditions(conditions.get("uid"), conditions.get("resourceVersion"))
    object_, gone = store.delete(resource, asked.namespace or "", asked.name, write, preconditions)
    if not gone or resource.plural in {"namespaces", "pods", "services", "serviceaccounts"}:
        return Answer(200, served(resource, object_, asked.version))
    details = {"name": asked.name, "kind": resource.plural, "uid": object_["metadata"]["uid"]}
    if resource.group:
        details["group"] = resource.group
    return Answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})


def _delete_all(store: Store, asked: Asked, now: datetime, write: Write) -> Answer:
    resource = asked.known
    selects = selector_of(asked)
    objects, _ = store.list(resource, asked.namespace)
    chosen = [object_ for object_ in objects if selects(object_)]
    for object_ in chosen:
        metadata = object_["metadata"]
        store.delete(resource, metadata.get("namespace", ""), metadata["name"], write)
    return Answer(200, _list_of(asked, chosen, {"resourceVersion": str(store.revision)}, now))


def _listed(store: Store, asked: Asked, now: datetime, revision: int | None) -> Object:
    resource = asked.known
    limit = _whole(asked.query, "limit") or 0
    token = asked.query.get("continue")
    after: tuple[str, str] | None = None
    if token:
        revision, after = _continued(token)
    elif asked.query.get("resourceVersionMatch") == "Exact":
        revision = _whole(asked.query, "resourceVersion")
    objects, at = store.list(resource, asked.namespace, revision=revision)
    selects = selector_of(asked)
    chosen = [object_ for object_ in objects if selects(object_) and (after is None or _key(object_) > after)]
    metadata: Object = {"resourceVersion": str(at)}
    if resource.custom and not (asked.kind_of_table or asked.partial):
        metadata["continue"] = ""
    if limit and len(chosen) > limit:
        if not (asked.query.get("labelSelector") or asked.query.get("fieldSelector")):
            metadata["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
        last = json.dumps({"v": "meta.k8s.io/v1", "rv": at, "start": _key(chosen[-1])})
        metadata["continue"] = base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")
    return _list_of(asked, chosen, metadata, now)


def _list_of(asked: Asked, objects: list[Object], metadata: Object, now: datetime) -> Object:
    resource = asked.known
    items = [served(resource, object_, asked.version) for object_ in objects]
    if asked.kind_of_table:
        return table(resource, items, now=now, include=asked.kind_of_table, metadata=metadata)
    if asked.partial:
        items = [as_partial(item) for item in items]
        return {
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": items,
        }
    if not resource.custom:
        # Items of built-in kinds do not say what they are.
        items = [{key: value for key, value in item.items() if key not in {"apiVersion", "kind"}} for item in items]
    return {
        "apiVersion": resource.api_version(asked.version),
        "items": items,
        "kind": f"{resource.kind}List",
        "metadata": metadata,
    }


def _shown(asked: Asked, object_: Object, now: datetime) -> Object:
    if asked.verb == "get" and asked.kind_of_table:
        metadata = {"resourceVersion": object_["metadata"]["resourceVersion"]}
        return table(asked.known, [object_], now=now, include=asked.kind_of_table, metadata=metadata)
    return as_partial(object_) if asked.verb == "get" and asked.partial else object_


def as_partial(object_: Object) -> Object:
    """Return only the metadata of *object_*, as a PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object_["metadata"]}


def selector_of(asked: Asked) -> Selector:
    """Return what a request's selectors and name select."""
    by_label = label_selector(asked.query.get("labelSelector") or "")
    by_field = field_selector(asked.query.get("fieldSelector") or "", asked.known)
    name = asked.name
    return lambda object_: (not name or object_["metadata"]["name"] == name) and by_label(object_) and by_field(object_)


def _namespace(asked: Asked) -> str:
    if asked.namespace is None:
        raise ApiError.method_not_allowed()
    return asked.namespace


def _key(object_: Object) -> tuple[str, str]:
    return object_["metadata"].get("namespace", ""), object_["metadata"]["name"]


def _continued(token: str) -> tuple[int, tuple[str, str]]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(found["rv"]), (found["start"][0], found["start"][1])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ApiError.bad_request("continue key is not valid: unable to decode token") from error


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not re.fullmatch(r"\d{1,18}", text):
        raise ApiError.bad_request(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _object_in(asked: Asked) -> Object:
    if asked.content_type not in {"", *_BODIES, *_YAML}:
        raise ApiError.unsupported_type(_BODIES)
    try:
        if asked.content_type == protobuf.MEDIA_TYPE:
            found: Any = protobuf.object_in(asked.body)
        elif asked.content_type in _YAML and not asked.body.lstrip().startswith(b"{"):
            found = decode(json.dumps(yaml.safe_load(asked.body), default=str))
        else:
            found = decode(asked.body)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ApiError.bad_request(f"the object provided is unrecognized: {error}") from error
    if not isinstance(found, dict):
        raise ApiError.bad_request("the object provided is unrecognized (must be of type object)")
    if asked.resource is None or not asked.resource.custom:
        # A built-in kind need not say what it is: the path does.
        named = (
            {"apiVersion": asked.known.api_version(asked.version), "kind": asked.known.kind} if asked.resource else {}
        )
        found = {**named, **{key: value for key, value in found.items() if value or key not in named}}
    said = str(found.get("apiVersion") or "")
    expected = asked.resource.api_version(asked.version) if asked.resource else said
    if said != expected:
        raise ApiError.bad_request(
            f"the API version in the data ({said}) does not match the expected API version ({expected})"
        )
    if not found.get("kind"):
        body, kind = asked.body[:200].decode(errors="replace"), asked.resource.kind if asked.resource else "object"
        raise ApiError.bad_request(
            f"the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing in '{body}'"
        )
    object_: Object = found
    return object_


def _delete_options(asked: Asked) -> Object:
    if not asked.body.strip():
        return {}
    if asked.content_type not in {"", *_BODIES, *_YAML}:
        raise ApiError.unsupported_type(_BODIES)
    try:
        found = protobuf.object_in(asked.body) if asked.content_type == protobuf.MEDIA_TYPE else decode(asked.body)
    except ValueError as error:
        raise ApiError.bad_request(f"the object provided is unrecognized: {error}") from error
    if not isinstance(found, dict):
        raise ApiError.bad_request("the object provided is unrecognized (must be of type DeleteOptions)")
    return found
