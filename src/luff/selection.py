"""
Which http routes of a VirtualService lead to a target, and which do not and why.

What a target says is read in the namespace that the experiment means, what an
object says in its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from luff.decide import catches_all
from luff.delegates import RootRoute, delegate_of
from luff.errors import PlanRefused
from luff.hosts import MESH, meanings, namespace_of, qualify, qualify_gateway
from luff.names import http_routes, ours
from luff.words import Object

if TYPE_CHECKING:  # the documents cost a quarter of a second, and who restores has no use for them
    from luff.model import Target

__all__ = ["TWINS_MOST", "Selection", "called", "check_gateways", "destinations", "leading", "select"]

TWINS_MOST = 2000


@dataclass(frozen=True, slots=True)
class Selection:
    """
    This is where twins go: the routes of *object_* that lead to *target*, by index.

    The target's names are read in *namespace*. *roots* are the routes that
    delegate to *object_*, none where it has hosts; *delegates* are the
    namespaces and names of what its own routes delegate to.
    """

    object_: Object
    target: Target
    namespace: str
    indices: tuple[int, ...]
    roots: tuple[RootRoute, ...] = ()
    delegates: tuple[tuple[str, str], ...] = ()


def select(virtual_service: Object, target: Target, *, namespace: str, roots: tuple[RootRoute, ...] = ()) -> Selection:
    """
    Return which http routes of *virtual_service* lead to *target*, whose names are read in *namespace*.

    *roots* are the routes that delegate to it, if it is a delegate. Raises
    `PlanRefused` when none can get a twin, with the reason.
    """
    where = _where(virtual_service)
    routes = http_routes(virtual_service)
    if not routes:
        raise PlanRefused(
            "no_http_routes",
            f"{where} has no http routes, and a fault can only be put on those",
            next_step="target a VirtualService with http routes",
        )
    if virtual_service["spec"].get("hosts"):  # a delegate has no gateways of its own; its roots' count
        check_gateways(virtual_service, target, namespace)
    _check_route_names(routes, target, where)
    indices, skipped, delegates = [], [], []
    ended = False
    for index, route in enumerate(routes):
        if ended:
            skipped.append((index, "it is dead: a route before it takes every request"))
            continue
        if not isinstance(route, dict):
            skipped.append((index, "there is nothing in it"))
            continue
        # What a route lets through that delegates is for its delegate to say.
        ended = route.get("delegate") is None and catches_all(route)
        why = _why_not(route, target, namespace, virtual_service)
        if route.get("delegate") and why is None:
            delegates.append(delegate_of(route, namespace_of(virtual_service)))
        elif why is None:
            indices.append(index)
        else:
            skipped.append((index, why))
    if len(indices) > TWINS_MOST:
        raise PlanRefused(
            "too_many_twins",
            f"{where} has {len(indices)} routes to the target, and at most {TWINS_MOST} twins are made",
            next_step="name the ones that you mean in target.routes",
        )
    if not indices and not delegates:
        raise _nowhere(virtual_service, target, skipped, namespace=namespace)
    return Selection(virtual_service, target, namespace, tuple(indices), roots, tuple(delegates))


def _nowhere(
    virtual_service: Object, target: Target, skipped: Sequence[tuple[int, str]], *, namespace: str
) -> PlanRefused:
    routes = http_routes(virtual_service)
    reasons = "; ".join(f"{called(routes[index], index)}: {why}" for index, why in skipped[:5])
    answering = all(
        isinstance(route, dict) and (route.get("redirect") or route.get("directResponse")) for route in routes
    )
    do = "correct the target"
    if target.subset is not None:
        there = _subsets(virtual_service, target, namespace=namespace)
        near = get_close_matches(target.subset, there, 1)
        do = (
            f"there are the subsets {', '.join(there)}" if there else "leave target.subset out: no route names a subset"
        )
        do += f"; did you mean {near[0]}?" if near else ""
    return PlanRefused(
        "only_redirects" if answering else "no_route_to_target",
        f"{_where(virtual_service)} has no route that could get a twin ({reasons})",
        next_step=do,
    )


def _subsets(virtual_service: Object, target: Target, *, namespace: str) -> list[str]:
    of = namespace_of(virtual_service)
    routes = [route for route in http_routes(virtual_service) if isinstance(route, dict)]
    found = (each.get("subset") for route in routes for each in leading(route, target, namespace=namespace, of=of))
    return sorted({str(subset) for subset in found if subset})


def _where(virtual_service: Object) -> str:
    return f"VirtualService {namespace_of(virtual_service)}/{virtual_service['metadata']['name']}"


def check_gateways(virtual_service: Object, target: Target, namespace: str) -> None:
    """Refuse twins that no proxy would ever be given; *virtual_service* has hosts, *target* is read in *namespace*."""
    where = _where(virtual_service)
    bound = virtual_service["spec"].get("gateways") or []
    if target.from_ and bound and MESH not in bound:
        raise PlanRefused(
            "from_at_gateway",
            f"{where} is only for the gateways {', '.join(bound)}, and target.from chooses among sidecars by their labels",
            next_step="leave target.from out",
        )
    known = {qualify_gateway(name, namespace_of(virtual_service)) for name in bound or [MESH]}
    for name in target.gateways:
        if qualify_gateway(name, namespace) not in known:
            raise PlanRefused(
                "unknown_gateway",
                f"{where} is not bound to the gateway {name}; it is bound to: {', '.join(bound or [MESH])}",
                next_step="correct target.gateways",
            )


def called(route: Any, index: int) -> str:
    """Return what to call *route* in a sentence: by its name, else by its place."""
    if not isinstance(route, dict):
        return f"route {index}"
    return f"route {route.get('name') or index}"


def _check_route_names(routes: Sequence[Any], target: Target, where: str) -> None:
    known = {str(route["name"]) for route in routes if isinstance(route, dict) and route.get("name")}
    for name in target.routes:
        if name not in known:
            raise PlanRefused(
                "unknown_route",
                f"{where} has no route {name}; it has: {', '.join(sorted(known)) or 'none with a name'}",
                next_step="correct target.routes",
            )


def _why_not(route: Object, target: Target, namespace: str, virtual_service: Object) -> str | None:
    """Return why *route* gets no twin, or ``None`` when it does."""
    if ours(route):
        return "it is a twin itself"
    if route.get("redirect") or route.get("directResponse"):
        return f"it {'redirects' if route.get('redirect') else 'answers by itself'} and forwards nothing"
    if target.routes and route.get("name") not in target.routes:
        return "it is not among target.routes"
    if route.get("delegate"):
        return None
    all_of_them = destinations(route)
    leads = leading(route, target, namespace=namespace, of=namespace_of(virtual_service))
    if not leads:
        return f"it leads to {', '.join(str(d.get('host')) for d in all_of_them) or 'nowhere'}"
    if target.port is not None and not any((d.get("port") or {}).get("number") in (None, target.port) for d in leads):
        return f"it does not lead to port {target.port}"
    if target.subset is not None:
        if not any(d.get("subset") == target.subset for d in leads):
            return f"it does not lead to the subset {target.subset}"
        if len(all_of_them) > 1:
            raise PlanRefused(
                "subset_on_split_route",
                f"VirtualService {virtual_service['metadata']['name']} splits a route over {len(all_of_them)} destinations, and a fault hits them all, not the subset {target.subset} alone",
                next_step="give the subset a route of its own, or leave target.subset out",
            )
    return None


def destinations(route: Object) -> list[Object]:
    """Return where *route* leads: of several destinations only those with a weight, since Istio drops the others."""
    entries: list[Object] = route.get("route") or []
    used = entries if len(entries) < 2 else [each for each in entries if each.get("weight")]
    return [each.get("destination") or {} for each in used]


def leading(route: Object, target: Target, *, namespace: str, of: str) -> list[Object]:
    """Return the destinations of *route*, of an object in *of*, that are the target's, which is read in *namespace*."""
    if target.host is None:
        return destinations(route)
    meant = meanings(target.host, namespace)
    return [
        each
        for each in destinations(route)
        if qualify(str(each.get("host", "")), of).lower().removesuffix(".") in meant
    ]
