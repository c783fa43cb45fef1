"""
VirtualService algebra: put twins in, take them out, and say what that changes.

Dicts in, dicts out: a field that this module has never heard of survives.

1. withdraw(inject(x)) is x, to the byte in ``spec``.
2. inject, then inject of another run, withdrawn in either order, is x.
3. A request outside the scope is routed exactly as before (`luff.decide`).
4. A request inside the scope reaches the twin of the route that it would have taken, and only targeted routes have twins.
5. withdraw removes only what is ours, whatever others changed since.
6. What Istio's webhook would refuse is never produced from what it accepted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luff.decide import catches_all, decide
from luff.errors import PlanRefused
from luff.hosts import MESH, meanings, qualify, qualify_gateway
from luff.names import Name, http_routes, our_run, ours, parse_name, suspects, tampered
from luff.patches import apply, clone, same
from luff.scope import FLAGS_HEADER, Scope
from luff.units import istio_duration
from luff.words import Object

if TYPE_CHECKING:  # the documents cost a quarter of a second, and who restores has no use for them
    from luff.model import Fault, Target

__all__ = [
    "Injection", "Name", "Selection", "apply", "decide", "difference", "fallbacks", "foreign_changes", "http_hash",
    "inject", "our_run", "ours", "parse_name", "select", "suspects", "tampered", "withdrawal",
]  # fmt: skip

TWINS_MOST = 2000
OBJECT_MOST_BYTES = 1 << 20
_MIRRORS = ("mirror", "mirrors", "mirrorPercentage", "mirrorPercent", "mirror_percent")


@dataclass(frozen=True, slots=True)
class Selection:
    """This is which routes get a twin, by index; which do not and why; and which delegates lead on to the target."""

    indices: tuple[int, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    delegates: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Injection:
    """
    This is one patch that inserts twins, and all that is needed to take it back.

    *positions* are the twins' indices in ``spec.http`` afterwards.
    *for_some_callers* says that only callers with certain labels get them.
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
    notes: tuple[str, ...] = ()


def http_hash(virtual_service: Object) -> str:
    """Return the SHA-256 of the canonical ``spec.http``."""
    return hashlib.sha256(_canonical(http_routes(virtual_service))).hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")


def select(virtual_service: Object, target: Target, *, namespace: str) -> Selection:
    """
    Return which http routes of *virtual_service* lead to *target*.

    Raises `PlanRefused` when none can get a twin, with the reason.
    """
    where = f"VirtualService {namespace}/{virtual_service['metadata']['name']}"
    routes: list[Object] = http_routes(virtual_service)
    if not routes:
        raise PlanRefused(
            "no_http_routes",
            f"{where} has no http routes, and a fault can only be put on those",
            next_step="target a VirtualService with http routes",
        )
    _check_gateways(virtual_service, target, namespace, where)
    _check_route_names(routes, target, where)
    indices, skipped, delegates = [], [], []
    ended = False
    for index, route in enumerate(routes):
        if ended:
            skipped.append((index, "it is dead: a route before it takes every request"))
            continue
        ended = catches_all(route)
        why = _why_not(route, target, namespace, virtual_service)
        if route.get("delegate") and why is None:
            delegate = route["delegate"]
            delegates.append((str(delegate.get("namespace") or namespace), str(delegate.get("name"))))
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
        reasons = "; ".join(f"{_called(routes[index], index)}: {why}" for index, why in skipped[:5])
        rule = (
            "only_redirects"
            if all(r.get("redirect") or r.get("directResponse") for r in routes)
            else "no_route_to_target"
        )
        raise PlanRefused(
            rule, f"{where} has no route that could get a twin ({reasons})", next_step="correct the target"
        )
    return Selection(tuple(indices), tuple(skipped), tuple(delegates))


def _check_gateways(virtual_service: Object, target: Target, namespace: str, where: str) -> None:
    """Refuse twins that no proxy would ever be given."""
    if target.from_ and target.gateways:
        raise PlanRefused(
            "from_with_gateways",
            "target.from and target.gateways cannot go together: Istio does not look at source labels where gateways are named",
            next_step="keep one of them",
        )
    bound = virtual_service["spec"].get("gateways") or []
    if target.from_ and bound and MESH not in bound:
        raise PlanRefused(
            "from_at_gateway",
            f"{where} is only for the gateways {', '.join(bound)}, and target.from chooses among sidecars by their labels",
            next_step="leave target.from out",
        )
    if not virtual_service["spec"].get("hosts"):
        # A delegate has no gateways of its own; the root's count.
        return
    known = {qualify_gateway(name, namespace) for name in bound or [MESH]}
    for name in target.gateways:
        if qualify_gateway(name, namespace) not in known:
            raise PlanRefused(
                "unknown_gateway",
                f"{where} is not bound to the gateway {name}; it is bound to: {', '.join(bound or [MESH])}",
                next_step="correct target.gateways",
            )


def _called(route: Object, index: int) -> str:
    return f"route {route.get('name') or index}"


def _check_route_names(routes: Sequence[Object], target: Target, where: str) -> None:
    known = {str(route.get("name")) for route in routes if route.get("name")}
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
    destinations = _destinations(route)
    leads = [each for each in destinations if _is_to(each, target, namespace)]
    if not leads:
        return f"it leads to {', '.join(str(d.get('host')) for d in destinations) or 'nowhere'}"
    if target.port is not None and not any((d.get("port") or {}).get("number") in (None, target.port) for d in leads):
        return f"it does not lead to port {target.port}"
    if target.subset is not None:
        if not any(d.get("subset") == target.subset for d in leads):
            return f"it does not lead to the subset {target.subset}"
        if len(destinations) > 1:
            raise PlanRefused(
                "subset_on_split_route",
                f"VirtualService {virtual_service['metadata']['name']} splits a route over {len(destinations)} destinations, and a fault hits them all, not the subset {target.subset} alone",
                next_step="give the subset a route of its own, or leave target.subset out",
            )
    return None


def _destinations(route: Object) -> list[Object]:
    """Return where *route* leads: of several destinations only those with a weight, since Istio drops the others."""
    entries: list[Object] = route.get("route") or []
    used = entries if len(entries) < 2 else [each for each in entries if each.get("weight")]
    return [each.get("destination") or {} for each in used]


def _is_to(destination: Object, target: Target, namespace: str) -> bool:
    if target.host is None:
        return True
    host = qualify(str(destination.get("host", "")), namespace).lower().removesuffix(".")
    return host in meanings(target.host, namespace)


def inject(
    virtual_service: Object,
    selection: Selection,
    *,
    run: str,
    created_s: int,
    expires_s: int,
    scope: Scope,
    fault: Fault,
    target: Target,
) -> Injection:
    """Return the patch that puts a twin directly before each selected route. *virtual_service* itself is not changed."""
    metadata, routes = virtual_service["metadata"], virtual_service["spec"]["http"]
    _check_carriers(scope)
    making = _Making(scope, fault, target, metadata["namespace"])
    twins: list[Object] = []
    positions: list[int] = []
    first = _first_free(virtual_service, run)
    for index in selection.indices:
        name = Name(run, created_s, expires_s, first + len(twins))
        twin = _twin(routes[index], name, making, called=_called(routes[index], index))
        if twin is not None:
            positions.append(index + len(twins))
            twins.append(twin)
    if not twins:
        raise PlanRefused(
            "scope_taken",
            "no route is left that a scoped request could be told apart on: " + "; ".join(making.notes),
            next_step="choose another scope.header or scope.carrier",
        )
    _check_size(virtual_service, twins)
    operations: list[Object] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        *({"op": "add", "path": f"/spec/http/{at}", "value": twin} for at, twin in zip(positions, twins, strict=True)),
    ]
    return Injection(
        namespace=metadata["namespace"],
        virtual_service=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        run=run,
        names=tuple(twin["name"] for twin in twins),
        twins=tuple(twins),
        positions=tuple(positions),
        operations=tuple(operations),
        hash_before=http_hash(virtual_service),
        created_s=created_s,
        expires_s=expires_s,
        for_some_callers=bool(target.from_),
        notes=tuple(making.notes),
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


@dataclass(frozen=True, slots=True)
class _Making:
    """This is what all twins of an injection have in common; *notes* collects what a reader should know."""

    scope: Scope
    fault: Fault
    target: Target
    namespace: str
    notes: list[str] = field(default_factory=list)


def _twin(route: Object, name: Name, making: _Making, *, called: str) -> Object | None:
    matches: list[Object] = []
    for match in route.get("match") or [{}]:
        # Two matches may become one, when they differed only in what the target fixes.
        matches += [made for made in _scoped(match or {}, making, called) if made not in matches]
    if not matches:
        return None
    others = [d for d in _destinations(route) if not _is_to(d, making.target, making.namespace)]
    if others:
        hosts = ", ".join(sorted({str(d.get("host")) for d in others}))
        making.notes.append(f"{called}: it leads to {hosts} as well, and the fault hits those requests too")
    twin: Object = clone({key: value for key, value in route.items() if key not in ("match", "fault", *_MIRRORS)})
    twin["name"] = str(name)
    twin["match"] = matches
    twin["fault"] = _fault(making.fault)
    headers = twin["headers"] = twin.get("headers") or {}
    response = headers["response"] = headers.get("response") or {}
    kept = {key: value for key, value in (response.get("set") or {}).items() if key.lower() != FLAGS_HEADER}
    response["set"] = {**kept, FLAGS_HEADER: "%RESPONSE_FLAGS%"}
    return twin


def _scoped(match: Object, making: _Making, called: str) -> list[Object]:
    """Return *match* with the scope ANDed in, once for each carrier that it leaves free."""
    narrowed = _narrowed(match, making)
    if isinstance(narrowed, str):
        making.notes.append(f"{called}: {narrowed}")
        return []
    taken = {str(header).lower() for key in ("headers", "withoutHeaders") for header in match.get(key) or {}}
    made = []
    for carrier, (header, wanted) in making.scope.matches().items():
        if header in taken:
            making.notes.append(
                f"{called}: a match already looks at {header}, so the {carrier} carrier is not used there"
            )
            continue
        made.append({**clone(narrowed), "headers": {**clone(match.get("headers") or {}), header: dict(wanted)}})
    return made


def _narrowed(match: Object, making: _Making) -> Object | str:
    """Return *match* for the callers and gateways of the target only, or why that leaves nothing."""
    target, labels, named = making.target, match.get("sourceLabels") or {}, match.get("gateways") or []
    if target.from_:
        if any(labels.get(key, value) != value for key, value in target.from_.items()):
            return "a match is for other callers than target.from"
        if named:
            return "a match names gateways, where Istio does not look at source labels"
        return {**match, "sourceLabels": {**labels, **target.from_}}
    if target.gateways:
        if not named and (labels or match.get("sourceNamespace")):
            # With gateways named, Istio would not look at these any more, and the twin would take other callers' requests.
            return "a match is for certain callers, which Istio does not look at where gateways are named"
        known = {qualify_gateway(name, making.namespace) for name in named}
        left = [name for name in target.gateways if not named or qualify_gateway(name, making.namespace) in known]
        return {**match, "gateways": left} if left else "a match is for other gateways than target.gateways"
    return match


def _fault(fault: Fault) -> Object:
    made: Object = {}
    if fault.delay is not None:
        made["delay"] = {
            "fixedDelay": istio_duration(fault.delay.duration_s),
            "percentage": {"value": fault.delay.percent},
        }
    if fault.abort is not None:
        kind: Object = (
            {"httpStatus": fault.abort.http} if fault.abort.http is not None else {"grpcStatus": fault.abort.grpc}
        )
        made["abort"] = {**kind, "percentage": {"value": fault.abort.percent}}
    return made


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
            f"@@ spec.http[{original}] of {len(routes)}, directly before {_called(routes[original], original)} @@"
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
