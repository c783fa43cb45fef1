"""
What somebody else may write into the object while a run is at it.

Each of these changes the object in place, and does the same to the object as
it would be without any luff.
"""

from __future__ import annotations

from collections.abc import Callable

from luff.model import Object
from luff.names import ours
from luff.patches import clone

__all__ = ["BASE", "EDITS", "PROCESSES", "RUN", "WRITERS"]

RUN = "0123456789abcdef"
BASE: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "inventory", "namespace": "shop"},
    "spec": {
        "hosts": ["inventory"],
        "unknownToUs": {"keep": [1, 2]},
        "http": [
            {
                "name": "canary",
                "match": [{"headers": {"x-canary": {"exact": "1"}}}],
                "route": [{"destination": {"host": "inventory", "subset": "v2"}}],
            },
            {"name": "default", "route": [{"destination": {"host": "inventory"}, "weight": 100}], "timeout": "5s"},
        ],
    },
}


def _weights(object_: Object) -> None:
    for route in object_["spec"]["http"]:
        if route.get("name") == "default":
            route["route"][0]["weight"] = 90


def _new_route(object_: Object) -> None:
    object_["spec"]["http"].insert(
        0, {"name": "hotfix", "match": [{"uri": {"exact": "/fix"}}], "route": [{"destination": {"host": "inventory"}}]}
    )


def _append(object_: Object) -> None:
    object_["spec"]["http"].append({"name": "last", "route": [{"destination": {"host": "inventory"}}]})


def _reorder(object_: Object) -> None:
    object_["spec"]["http"].reverse()


def _drop_route(object_: Object) -> None:
    object_["spec"]["http"] = [route for route in object_["spec"]["http"] if route.get("name") != "canary"]


def _gitops_revert(object_: Object) -> None:
    object_["spec"] = clone(BASE["spec"])


def _annotate(object_: Object) -> None:
    object_["metadata"].setdefault("annotations", {})["team"] = "shop"


def _replace_annotations(object_: Object) -> None:
    object_["metadata"]["annotations"] = {"managed-by": "flagger"}


def _look_alike(object_: Object) -> None:
    object_["spec"]["http"].insert(0, {"name": "luff.frontend", "route": [{"destination": {"host": "inventory"}}]})


def _flagger(object_: Object) -> None:
    """Write everything anew as a controller that owns the object does, weights and annotations too."""
    object_["spec"] = clone(BASE["spec"])
    object_["metadata"]["annotations"] = {"managed-by": "flagger"}


def _rollouts(object_: Object) -> None:
    """Put the managed route on top and set the weights, as Argo Rollouts does at each step."""
    routes = object_["spec"]["http"]
    object_["spec"]["http"] = sorted(routes, key=lambda route: route.get("name") != "canary")
    _weights(object_)


def _square(object_: Object) -> None:
    """Copy the first route, and let Argo Rollouts make four of the two of one name, since it finds each by the other."""
    routes = object_["spec"]["http"]
    twins = [route for route in routes if ours(route)]
    object_["spec"]["http"] = [clone(route) for route in twins for _ in range(3)] + routes


def _to_ours(change: Callable[[Object], None]) -> Callable[[Object], None]:
    def to_each(object_: Object) -> None:
        for route in object_["spec"]["http"]:
            if ours(route):
                change(route)

    return to_each


def _drop_ours(object_: Object) -> None:
    object_["spec"]["http"] = [route for route in object_["spec"]["http"] if not ours(route)]


def _double_ours(object_: Object) -> None:
    object_["spec"]["http"] += [clone(route) for route in object_["spec"]["http"] if ours(route)]


EDITS: dict[str, Callable[[Object], None]] = {
    "weights": _weights,
    "new route on top": _new_route,
    "new route below": _append,
    "reorder": _reorder,
    "drop route": _drop_route,
    "gitops revert": _gitops_revert,
    "annotate": _annotate,
    "replace annotations": _replace_annotations,
    "look-alike": _look_alike,
    "drop ours": _drop_ours,
    "double ours": _double_ours,
    "flagger": _flagger,
    "rollouts": _rollouts,
    "rollouts squares ours": _square,
    "strip the scope of ours": _to_ours(lambda route: route.pop("match", None)),
    "strip the fault of ours": _to_ours(lambda route: route.pop("fault", None)),
    "rename ours": _to_ours(lambda route: route.update(name="luff.renamed")),
    "break the name of ours": _to_ours(lambda route: route.update(name=f"luff.1.{RUN}.broken")),
}
PROCESSES = ("reaper", "restore all", "second luff")
"""Writers that are processes of luff, which may die and meet trouble themselves."""
OTHERS = ("stale editor", "flagger reverts", "delete", "recreate from git", "recreate from a dump", *PROCESSES)
WRITERS = ("nobody", *EDITS, *OTHERS)
