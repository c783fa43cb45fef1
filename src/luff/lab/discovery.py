"""What the API server says about itself: groups, versions, resources, and enough OpenAPI for kubectl."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from luff.lab.resources import RESOURCES, Resource
from luff.mesh import LAB_BUILD
from luff.model import Object

__all__ = ["VERSION", "describe"]

VERSION: Object = {
    "major": "1",
    "minor": "37",
    "gitVersion": f"v1.37.0{LAB_BUILD}",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_REVIEWS = ("authorization.k8s.io", "v1")


def describe(path: str) -> Any:
    """Return the document served at *path*, or ``None`` when there is none."""
    path = path.rstrip("/") or "/"
    if path == "/":
        return {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group) for group in _groups()]}
    if path == "/openapi/v2":
        return {"swagger": "2.0", "info": _INFO, "paths": {}, "definitions": {}}
    if path == "/openapi/v3":
        return {"paths": {place: {"serverRelativeURL": _address(place)} for place in map(_place, _group_versions())}}
    steps = path.strip("/").split("/")
    if steps[:2] == ["openapi", "v3"]:
        return _openapi_at("/".join(steps[2:]))
    if len(steps) == 2 and steps[0] == "apis" and steps[1] in _groups():
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(steps[1])}
    for group, version in _group_versions():
        if "/" + _place((group, version)) == path:
            return _resources(group, version)
    return None


_INFO = {"title": "Kubernetes", "version": VERSION["gitVersion"]}


def _group_versions() -> list[tuple[str, str]]:
    found = dict.fromkeys((resource.group, version) for resource in RESOURCES for version in resource.versions)
    return [*found, _REVIEWS]


def _groups() -> list[str]:
    return list(dict.fromkeys(group for group, _ in _group_versions() if group))


def _place(group_version: tuple[str, str]) -> str:
    group, version = group_version
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _group(group: str) -> Object:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for found, version in _group_versions()
        if found == group
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resources(group: str, version: str) -> Object:
    listed: list[Object] = []
    for resource in RESOURCES:
        if resource.group != group or version not in resource.versions:
            continue
        entry: Object = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _VERBS,
            "storageVersionHash": "",
        }
        if resource.short:
            entry["shortNames"] = list(resource.short)
        if resource.custom:
            entry["categories"] = ["istio-io", "networking-istio-io"]
        if resource.plural in {"pods", "services", "deployments"}:
            entry["categories"] = ["all"]
        listed.append(entry)
        if resource.status:
            listed.append(
                {
                    "name": f"{resource.plural}/status",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": resource.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    if (group, version) == _REVIEWS:
        listed.append(
            {
                "name": "selfsubjectaccessreviews",
                "singularName": "selfsubjectaccessreview",
                "namespaced": False,
                "kind": "SelfSubjectAccessReview",
                "verbs": ["create"],
            }
        )
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}


def _openapi_at(place: str) -> Object | None:
    for group, version in _group_versions():
        if _place((group, version)) == place:
            return _openapi(group, version)
    return None


def _address(place: str) -> str:
    text = json.dumps(_openapi_at(place), sort_keys=True)
    return f"/openapi/v3/{place}?hash={hashlib.sha256(text.encode()).hexdigest()[:32].upper()}"


def _openapi(group: str, version: str) -> Object:
    paths: Object = {}
    schemas: Object = {}
    for resource in RESOURCES:
        if resource.group != group or version not in resource.versions:
            continue
        gvk = {"group": group, "version": version, "kind": resource.kind}
        schemas[_schema_name(resource, version)] = _schema(resource, gvk)
        middle = "namespaces/{namespace}/" if resource.namespaced else ""
        paths[f"/{_place((group, version))}/{middle}{resource.plural}"] = _operations(resource, gvk, ("get", "post"))
        named = f"/{_place((group, version))}/{middle}{resource.plural}/{{name}}"
        paths[named] = _operations(resource, gvk, ("get", "put", "patch", "delete"))
    return {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}


def _schema_name(resource: Resource, version: str) -> str:
    return f"{resource.group or 'core'}.{version}.{resource.kind}"


def _schema(resource: Resource, gvk: Object) -> Object:
    described = {
        "apiVersion": ("string", "The version of the schema of this object."),
        "kind": ("string", "What this object is."),
        "metadata": ("object", "Name, namespace, labels and annotations."),
        "spec": ("object", "What is wanted. The lab has no schema of its fields; see the real one's documentation."),
        "status": ("object", "What was found."),
    }
    return {
        "description": f"{resource.kind}, as the lab of luff serves it: any field is accepted.",
        "type": "object",
        "properties": {name: {"type": kind, "description": text} for name, (kind, text) in described.items()},
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-group-version-kind": [gvk],
    }


def _operations(resource: Resource, gvk: Object, methods: tuple[str, ...]) -> Object:
    actions = {"get": "get", "post": "post", "put": "put", "patch": "patch", "delete": "delete"}
    found: Object = {}
    for method in methods:
        parameters = ["pretty"]
        if method in {"post", "put", "patch"}:
            parameters += ["dryRun", "fieldManager", "fieldValidation"]
        if method == "patch":
            parameters.append("force")
        found[method] = {
            "operationId": f"{method}{gvk['group']}{gvk['version']}{resource.kind}{len(methods)}",
            "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in parameters],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": actions[method],
            "x-kubernetes-group-version-kind": gvk,
        }
    return found
