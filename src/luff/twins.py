"""
One twin: the copy of a route that takes requests in scope alone, and breaks them.

The route of a delegate is not what proxies are given: istiod merges it into
its roots first, and drops with a line in its log what does not fit there. So a
twin in a delegate is made for the merged routes: what its original takes over
from a root, it says itself, and where no twin can say it, there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from luff.delegates import RootRoute, conflict, match_in_full, merge_match, merged_route
from luff.errors import PlanRefused
from luff.hosts import MESH, namespace_of, qualify_gateway
from luff.names import Name
from luff.patches import clone, same
from luff.scope import FLAGS_HEADER, Scope
from luff.selection import Selection, destinations, leading
from luff.units import istio_duration
from luff.words import Object

if TYPE_CHECKING:  # the documents cost a quarter of a second, and who restores has no use for them
    from luff.model import Fault, Target

__all__ = ["Making", "make_twin"]

STAT_PREFIX = "luff"
"""Under what a delegate's twin is counted where its root counts requests: else ours would be in the root's numbers."""
_MIRRORS = ("mirror", "mirrors", "mirrorPercentage", "mirrorPercent", "mirror_percent")
_NOTHING = {"value": 0}


@dataclass(frozen=True, slots=True)
class Making:
    """
    This is what all twins of an injection have in common.

    *notes* collects what a reader should know.
    """

    selection: Selection
    scope: Scope
    fault: Fault
    notes: list[str] = field(default_factory=list)

    @property
    def target(self) -> Target:
        """Return whose hop is broken; its names are read in the selection's namespace."""
        return self.selection.target

    @property
    def own_namespace(self) -> str:
        """Return the namespace in which the object's own names are read."""
        return namespace_of(self.selection.object_)

    @property
    def at_gateways(self) -> bool:
        """Return whether twins may get to a gateway, where the port of a service says nothing."""
        objects = (self.selection.object_, *(each.root for each in self.selection.roots))
        bound = [name for each in objects for name in each["spec"].get("gateways") or []]
        return any(name != MESH for name in self.target.gateways or bound)

    def leading(self, route: Object) -> list[Object]:
        """Return the destinations of *route* that are the target's."""
        return leading(route, self.target, namespace=self.selection.namespace, of=self.own_namespace)

    def note(self, said: str) -> None:
        """Take down *said*, once."""
        if said not in self.notes:
            self.notes.append(said)


@dataclass(frozen=True, slots=True)
class _Pair:
    """
    This is one match of a route as proxies get it.

    *whole* is what is matched, *written* the part of it that stands in the
    object itself: the same, but in a delegate, where a root adds to it.
    """

    whole: Object
    written: Object
    counted: bool = False


def make_twin(route: Object, name: Name, making: Making, *, called: str) -> Object | None:
    """
    Return the twin of *route*; ``None`` where a scoped request could not be told apart, which the notes explain.

    Raises `PlanRefused` where a delegate's roots leave no twin that would do as it should.
    """
    roots, object_ = making.selection.roots, making.selection.object_
    living = tuple(root for root in roots if merged_route(root, object_, route) is not None)
    if roots and not living:
        making.note(f"{called}: Istio drops it, since none of its matches narrows one of {_names(roots)}")
        return None
    matches: list[Object] = []
    for pair in _pairs(route, living, making.own_namespace):
        # Two matches may become one, when they differed only in what the target fixes.
        matches += [made for made in _scoped(pair, route, making, called) if made not in matches]
    if living:
        matches = _fitting(matches, living, making, called)
    if not matches:
        return None
    to = making.leading(route)
    others = [each for each in destinations(route) if each not in to]
    if others:
        hosts = ", ".join(sorted({str(d.get("host")) for d in others}))
        making.note(f"{called}: it leads to {hosts} as well, and the fault hits those requests too")
    twin = _copy(route, living)
    twin["name"] = str(name)
    twin["match"] = matches
    twin["fault"] = _fault(making.fault)
    _check_dropped(twin, tuple(root for root in roots if root not in living), making, called)
    return twin


def _copy(route: Object, living: tuple[RootRoute, ...]) -> Object:
    """Return all of *route* that its twin takes over, with the header that makes it ours."""
    twin: Object = clone({key: value for key, value in route.items() if key not in ("match", "fault", *_MIRRORS)})
    twin.update(_unmirrored(living))
    headers = twin["headers"] = twin.get("headers") or (
        _inherited_headers(living) if route.get("headers") is None else {}
    )
    response = headers["response"] = headers.get("response") or {}
    kept = {key: value for key, value in (response.get("set") or {}).items() if key.lower() != FLAGS_HEADER}
    response["set"] = {**kept, FLAGS_HEADER: "%RESPONSE_FLAGS%"}
    return twin


def _check_dropped(twin: Object, dropping: tuple[RootRoute, ...], making: Making, called: str) -> None:
    """Refuse a twin that has fewer matches than its original, so that Istio would keep it below roots that drop the original."""
    keeping = tuple(root for root in dropping if merged_route(root, making.selection.object_, twin) is not None)
    if keeping:
        raise PlanRefused(
            "delegate_conflict",
            f"{called}: below {_names(keeping)} Istio would keep the twin and drop the route itself, "
            "since one of the route's matches does not narrow the root's",
            next_step="let each match of the delegate narrow one of the root's",
        )


def _names(roots: tuple[RootRoute, ...]) -> str:
    named = {f"{namespace_of(each.root)}/{each.root['metadata']['name']}" for each in roots}
    return "VirtualService " + " and ".join(sorted(named))


def _pairs(route: Object, living: tuple[RootRoute, ...], namespace: str) -> Iterator[_Pair]:
    """Yield the matches of *route*; in a delegate, each with every one of the roots' that it narrows."""
    own = [match or {} for match in route.get("match") or []]
    if not living:
        yield from (_Pair(match, match) for match in own or [{}])
        return
    for outer in (match for root in living for match in root.matches):
        counted = bool(outer.get("statPrefix"))
        if not own:
            # Istio takes the root's match as it is. One of ours has to agree with it in these two to be put together with it.
            said = {key: outer[key] for key in ("ignoreUriCase", "sourceNamespace") if outer.get(key)}
            yield _Pair(outer, said, counted)
        for match in own:
            full = match_in_full(match, namespace)
            if not conflict(outer, full):
                yield _Pair(merge_match(outer, full), match, counted)


def _scoped(pair: _Pair, route: Object, making: Making, called: str) -> list[Object]:
    """Return the match with the scope ANDed in, once for each carrier that it leaves free."""
    narrowing = _narrowing(pair.whole, route, making)
    if isinstance(narrowing, str):
        making.note(f"{called}: {narrowing}")
        return []
    taken = {str(header).lower() for key in ("headers", "withoutHeaders") for header in pair.whole.get(key) or {}}
    # Synthetic requests must not be counted where the owner of the route counts.
    written = {key: value for key, value in clone(pair.written).items() if key != "statPrefix"}
    if pair.counted:
        written["statPrefix"] = STAT_PREFIX
    made = []
    for carrier, (header, wanted) in making.scope.matches().items():
        if header in taken:
            making.note(f"{called}: a match already looks at {header}, so the {carrier} carrier is not used there")
            continue
        made.append(
            {**clone(written), **clone(narrowing), "headers": {**(written.get("headers") or {}), header: dict(wanted)}}
        )
    return made


def _narrowing(match: Object, route: Object, making: Making) -> Object | str:
    """Return what to add to *match* for the callers, gateways and port of the target only, or why that leaves nothing."""
    target, namespace = making.target, making.selection.namespace
    labels, named = match.get("sourceLabels") or {}, match.get("gateways") or []
    added = _port(match, route, making)
    if isinstance(added, str):
        return added
    if target.from_:
        if any(labels.get(key, value) != value for key, value in target.from_.items()):
            return "a match is for other callers than target.from"
        if named:
            return "a match names gateways, where Istio does not look at source labels"
        return {**added, "sourceLabels": {**labels, **target.from_}}
    if target.gateways:
        if not named and (labels or match.get("sourceNamespace")):
            # With gateways named, Istio would not look at these any more, and the twin would take other callers' requests.
            return "a match is for certain callers, which Istio does not look at where gateways are named"
        known = {qualify_gateway(name, making.own_namespace) for name in named}
        left = [
            # In another namespace the short name would be another gateway's.
            name if namespace == making.own_namespace else qualify_gateway(name, namespace)
            for name in target.gateways
            if not named or qualify_gateway(name, namespace) in known
        ]
        return {**added, "gateways": left} if left else "a match is for other gateways than target.gateways"
    return added


def _port(match: Object, route: Object, making: Making) -> Object | str:
    """Return the port that *match* has to ask for: a destination without one leads to the port that was called."""
    wanted = making.target.port
    if wanted is None or any((each.get("port") or {}).get("number") == wanted for each in making.leading(route)):
        return {}
    if making.at_gateways:
        making.note(
            "at a gateway target.port narrows nothing, since the destination names no port: "
            "give it one, or set target.gateways to [mesh]"
        )
        return {}
    if match.get("port") and match["port"] != wanted:
        return f"a match is for port {match['port']}, and the destination has no port of its own"
    return {"port": wanted}


def _fitting(matches: list[Object], living: tuple[RootRoute, ...], making: Making, called: str) -> list[Object]:
    """Return those of *matches* that Istio puts together with each root, and refuse those that it would widen."""
    found = []
    for match in matches:
        full = match_in_full(match, making.own_namespace)
        agreeing = [[outer for outer in root.matches if not conflict(outer, full)] for root in living]
        if not all(agreeing):
            continue
        found.append(match)
        for outer in (each for outers in agreeing for each in outers):
            if _widens(outer, making.target):
                raise PlanRefused(
                    "delegate_conflict",
                    f"{called}: {_names(living)} delegates to it both for gateways and for callers, and merged with that "
                    "a twin would hit more than the target: Istio does not look at callers where gateways are named",
                    next_step="leave target.from and target.gateways out, or give the target a VirtualService with hosts",
                )
    if matches and not found:
        raise PlanRefused(
            "delegate_conflict",
            f"{called}: {_names(living)} delegates to it from several routes that differ in ignoreUriCase, sourceNamespace or "
            "headers, and Istio would drop any twin below one of them",
            next_step="let those routes agree, or give the target a VirtualService of its own",
        )
    if len(found) < len(matches):
        making.note(
            f"{called}: the routes that delegate to it differ, so not every request that takes one of them meets the twin"
        )
    return found


def _widens(outer: Object, target: Target) -> bool:
    """Return whether a match that is narrowed to *target* takes more than that, put together with the root's *outer*."""
    named, for_callers = outer.get("gateways"), outer.get("sourceLabels") or outer.get("sourceNamespace")
    return bool((target.from_ and named) or (target.gateways and for_callers and not named))


def _inherited_headers(living: tuple[RootRoute, ...]) -> Object:
    """Return the headers that the original takes over from its roots: with headers of its own, a twin would lose them."""
    inherited = [each.route.get("headers") or {} for each in living]
    if any(not same(inherited[0], other) for other in inherited[1:]):
        raise PlanRefused(
            "delegate_conflict",
            f"{_names(living)} sets different headers on the routes that delegate to the target, and a twin can carry one set only",
            next_step="move the headers into the delegate, or give the target a VirtualService of its own",
        )
    found: Object = clone(inherited[0]) if inherited else {}
    return found


def _unmirrored(living: tuple[RootRoute, ...]) -> Object:
    """Return what keeps a twin from taking over the roots' mirrors: synthetic traffic must not be shadowed."""
    made: Object = {}
    for route in (each.route for each in living):
        if route.get("mirror"):
            made["mirrorPercentage"] = dict(_NOTHING)
        for mirror in route.get("mirrors") or []:
            silent = {"destination": clone(mirror.get("destination") or {}), "percentage": dict(_NOTHING)}
            if silent not in made.setdefault("mirrors", []):
                made["mirrors"].append(silent)
    return made


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
