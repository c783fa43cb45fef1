"""
VirtualService algebra: put twins in, take them out, and say what that changes.

Dicts in, dicts out: a field that this module has never heard of survives.

1. withdraw(inject(x)) is x, to the byte in ``spec``.
2. inject, then inject of another run, withdrawn in either order, is x.
3. A request outside the scope is routed exactly as before (`luff.decide`).
4. A request inside the scope reaches the twin of the route that it would have taken, and only targeted routes have twins.
5. withdraw removes only what is ours, whatever others changed since.
6. What Istio's webhook would refuse is never produced from what it accepted.
7. Where the object is a delegate, 3 and 4 hold for what istiod makes of its roots and it (`luff.delegates`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from luff.claims import key_of
from luff.errors import PlanRefused
from luff.hosts import qualify
from luff.names import Stamp, http_routes, our_run, ours, parse_name
from luff.patches import same
from luff.scope import Scope
from luff.selection import Selection, called, destinations
from luff.twins import Making, make_twin
from luff.words import Object

if TYPE_CHECKING:  # the documents cost a quarter of a second, and who restores has no use for them
    from luff.model import Fault

__all__ = ["Injection", "Way", "difference", "fallbacks", "foreign_changes", "http_hash", "inject", "withdrawal"]

OBJECT_MOST_BYTES = 1 << 20

Way: TypeAlias = frozenset[tuple[str, str]]
"""Where a route leads: a full host and a subset, or empty, for each of its destinations."""


@dataclass(frozen=True, slots=True)
class Injection:
    """
    This is one patch that inserts twins, and all that is needed to take it back.

    *positions* are the twins' indices in ``spec.http`` afterwards.
    *for_some_callers* says that only callers with certain labels get them;
    *carriers* are, as namespace and name, the objects that proxies have the
    twins under: this one, or what delegates to it.
    """

    namespace: str
    virtual_service: str
    uid: str
    resource_version: str
    run: str
    names: tuple[str, ...]
    twins: tuple[Object, ...]
    positions: tuple[int, ...]
    operations: tuple[Object, ...]
    hash_before: str
    created_s: int
    expires_s: int
    for_some_callers: bool = False
    carriers: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ways(self) -> frozenset[Way]:
        """Return where each twin leads, and so the original that it stands before."""
        return frozenset(
            frozenset(
                (qualify(str(each.get("host") or ""), self.namespace), str(each.get("subset") or ""))
                for each in destinations(twin)
            )
            for twin in self.twins
        )

    def missing_in(self, object_: Object) -> list[str]:
        """Return the names of twins that *object_*, the server's answer to the patch, does not show: nobody would find those again."""
        there = {str(route.get("name")) for route in http_routes(object_)}
        return [name for name in self.names if name not in there]


def http_hash(virtual_service: Object) -> str:
    """Return the SHA-256 of the canonical ``spec.http``."""
    return hashlib.sha256(_canonical(http_routes(virtual_service))).hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")


def inject(selection: Selection, stamp: Stamp, fault: Fault) -> Injection:
    """
    Return the patch that puts a twin directly before each selected route. The object itself is not changed.

    Raises `PlanRefused` where no twin can be made.
    """
    _check_carriers(stamp.scope)
    object_ = selection.object_
    metadata, routes = object_["metadata"], object_["spec"]["http"]
    making = Making(selection, stamp.scope, fault)
    placed: list[tuple[int, Object]] = []
    first = _first_free(object_, stamp.run)
    for index in selection.indices:
        name = stamp.name(first + len(placed))
        twin = make_twin(routes[index], name, making, called=called(routes[index], index))
        if twin is not None:
            placed.append((index + len(placed), twin))
    if not placed:
        raise PlanRefused(
            "scope_taken",
            "no route is left that a scoped request could be told apart on: " + "; ".join(making.notes),
            next_step="choose another scope.header or scope.carrier",
        )
    positions, twins = zip(*placed, strict=True)
    _check_size(object_, twins)
    return Injection(
        namespace=metadata["namespace"],
        virtual_service=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        run=stamp.run,
        names=tuple(twin["name"] for twin in twins),
        twins=twins,
        positions=positions,
        operations=_operations(metadata, placed),
        hash_before=http_hash(object_),
        created_s=stamp.created_s,
        expires_s=stamp.expires_s,
        for_some_callers=bool(selection.target.from_),
        carriers=tuple(dict.fromkeys(key_of(each.root) for each in selection.roots)) or (key_of(object_),),
        notes=tuple(making.notes),
    )


def _operations(metadata: Object, placed: Sequence[tuple[int, Object]]) -> tuple[Object, ...]:
    """Return the patch that adds each twin at its place, pinned to the object as its *metadata* says that it was read."""
    return (
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        *({"op": "add", "path": f"/spec/http/{at}", "value": twin} for at, twin in placed),
    )


def _first_free(virtual_service: Object, run: str) -> int:
    """Return a number that no twin of *run* has yet: several doses of one run may be on one object."""
    names = (parse_name(str(route["name"])) for route in http_routes(virtual_service) if ours(route))
    return 1 + max((name.index for name in names if name is not None and name.run == run), default=-1)


def _check_carriers(scope: Scope) -> None:
    headers = [header for header, _ in scope.matches().values()]
    if len(set(headers)) < len(headers):
        raise PlanRefused(
            "scope_header_taken",
            f"scope.header is {scope.header}, which another carrier uses as well",
            next_step="choose another scope.header",
        )


def _check_size(virtual_service: Object, twins: Sequence[Object]) -> None:
    size = len(_canonical(virtual_service)) + sum(len(_canonical(twin)) for twin in twins)
    if size > OBJECT_MOST_BYTES:
        raise PlanRefused(
            "object_too_large",
            f"with its twins the VirtualService would have {size:,} bytes, and {OBJECT_MOST_BYTES:,} are the most",
            next_step="name fewer routes in target.routes",
        )


def withdrawal(virtual_service: Object, *, run: str | None = None) -> tuple[Object, ...]:
    """Return the patch that removes every route of *run* (of all runs when ``None``); empty when there is none."""
    operations: list[Object] = []
    for index, route in _of_run(virtual_service, run):
        operations += [_test_name(index, route), {"op": "remove", "path": f"/spec/http/{index}"}]
    return tuple(operations)


def fallbacks(virtual_service: Object, *, run: str | None = None) -> tuple[tuple[Object, ...], ...]:
    """
    Return the ladder for when removing is refused: remove; take the fault out; make the match unreachable.

    The gentler steps leave a route that does nothing, or that nothing reaches.
    """
    drop: list[Object] = []
    unreachable: list[Object] = []
    for index, route in _of_run(virtual_service, run):
        if "fault" in route:
            drop += [_test_name(index, route), {"op": "remove", "path": f"/spec/http/{index}/fault"}]
        dead = [{"headers": {"x-luff-nobody": {"exact": hashlib.sha256(str(route.get("name")).encode()).hexdigest()}}}]
        unreachable += [_test_name(index, route), {"op": "add", "path": f"/spec/http/{index}/match", "value": dead}]
    ladder = (withdrawal(virtual_service, run=run), tuple(drop), tuple(unreachable))
    return tuple(step for step in ladder if step)


def _of_run(virtual_service: Object, run: str | None) -> list[tuple[int, Object]]:
    routes = http_routes(virtual_service)
    return [
        (i, routes[i]) for i in reversed(range(len(routes))) if ours(routes[i]) and run in (None, our_run(routes[i]))
    ]


def _test_name(index: int, route: Object) -> Object:
    return {"op": "test", "path": f"/spec/http/{index}/name", "value": route["name"]}


def foreign_changes(before: Object, after: Object) -> list[str]:
    """Return what others changed in ``spec`` between *before* and *after*, ours left out, as sentences."""
    old, new = before.get("spec") or {}, after.get("spec") or {}
    said = [f"spec.{key} was changed" for key in sorted({*old, *new}) if key != "http" and old.get(key) != new.get(key)]
    was, now = _theirs(before, after), _theirs(after, before)
    for key in was:
        if key not in now:
            said.append(f"the route {key} was removed")
        elif not same(was[key], now[key]):
            parts = sorted(k for k in {*was[key], *now[key]} if not same(was[key].get(k), now[key].get(k)))
            said.append(f"the route {key} was changed: {', '.join(parts)}")
    said += [f"the route {key} was added" for key in now if key not in was]
    if [k for k in was if k in now] != [k for k in now if k in was]:
        said.append("the routes were put in another order")
    return said


def _theirs(virtual_service: Object, other: Object) -> dict[str, Object]:
    """Return others' routes by what to call them: the name, or the place among those without one."""
    found: dict[str, Object] = {}
    kept = {_canonical(route) for route in http_routes(other)}
    unnamed = 0
    for route in (route for route in http_routes(virtual_service) if not ours(route)):
        key = str(route.get("name") or "")
        if not key:
            # One that is the same in both keeps its name wherever it stands; only what differs is told by its place.
            text = _canonical(route)
            key = f"without a name ({hashlib.sha256(text).hexdigest()[:8]})" if text in kept else f"#{unnamed}"
            unnamed += text not in kept
        while key in found:
            key += "'"
        found[key] = route
    return found


def difference(virtual_service: Object, injection: Injection) -> list[str]:
    """Return the change as lines of a unified diff, made from the injection: quick however many routes there are."""
    routes = virtual_service["spec"]["http"]
    name = f"{injection.namespace}/{injection.virtual_service}"
    lines = [f"--- VirtualService {name} (now)", f"+++ VirtualService {name} (while the fault is live)"]
    for count, (position, twin) in enumerate(zip(injection.positions, injection.twins, strict=True)):
        original = position - count
        lines.append(
            f"@@ spec.http[{original}] of {len(routes)}, directly before {called(routes[original], original)} @@"
        )
        lines += [f"+{line}" for line in _yaml_like(twin)]
    return lines


def _yaml_like(value: Any, indent: str = "") -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                lines += [f"{indent}{key}:", *_yaml_like(inner, indent + "  ")]
            else:
                lines.append(f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}")
        return lines
    if isinstance(value, list):
        lines = []
        for inner in value:
            first, *rest = _yaml_like(inner, "")
            lines += [f"{indent}- {first}", *(f"{indent}  {line}" for line in rest)]
        return lines
    return [f"{indent}{json.dumps(value, ensure_ascii=False)}"]
