"""
What DestinationRules do that a fault does not set off, and what they do that it does.

The fault filter stands before the router of the caller's proxy: an abort is
answered, and a delay is over, before a pod is chosen and a request counts. So
the outlier detection and the connection pool of the broken hop see nothing of
it. But errors and waiting of the services that wait for it are real to the
proxies that call those, and these may serve others as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from luff.claims import key_of, ports_of
from luff.destination_policies import Rule, defines, rule_for
from luff.errors import PlanRefused
from luff.hosts import DOMAIN, namespace_of, qualify
from luff.model import Experiment
from luff.run_bounds import fits_hz
from luff.selection import destinations, leading
from luff.targeting import Found
from luff.units import show_rate
from luff.words import Object

__all__ = ["Strain", "check_defences"]


@dataclass(frozen=True, slots=True)
class Strain:
    """
    This is what a run puts on services.

    *caller* is the namespace of the pods that call the broken hop; *waiting* are
    the full names of the services that wait for it, as far as they are known;
    *held* is how many requests the fault holds there at once, each for *hold_s* seconds.
    """

    caller: str
    waiting: tuple[str, ...]
    held: float
    hold_s: float


class _Cluster(NamedTuple):
    """This is where requests are sent: the full name of a host, its port if it is known, and a subset or ``""``."""

    host: str
    port: int | None
    subset: str = ""

    @property
    def short(self) -> str:
        return self.host.split(".")[0] + (f" (subset {self.subset})" if self.subset else "")


class _Limit(NamedTuple):
    """This is how many requests a proxy lets be at a host at once, the *field* that says so, and what the rest meet."""

    most: int
    field: str
    effect: str


def check_defences(experiment: Experiment, found: Found, strain: Strain) -> list[str]:
    """Refuse a target of which nobody defines any subset, and return warnings of what DestinationRules make of the fault."""
    if found.view.destination_rules is None:
        return _unread(experiment)
    _check_subsets(found)
    return [*_hidden(found, strain), *_not_set_off(experiment, found, strain), *_set_off(found, strain)]


def _unread(experiment: Experiment) -> list[str]:
    if experiment.spec.fault.abort is None:
        return []
    said = "an injected abort never reaches the dependency, so outlier detection and connection pools see nothing of it"
    return [f"{said}; which of them there are is not known: DestinationRules were not read"]


def _check_subsets(found: Found) -> None:
    """Refuse where no request in scope could reach anything. Where some can, a warning says which cannot."""
    view, used = found.view, _used(found)
    undefined = [
        cluster
        for cluster in used
        if cluster.subset
        and not any(defines(rule, cluster.host, cluster.subset) for rule in view.destination_rules or ())
    ]
    if not view.every_rule or not used or len(undefined) < len(used):
        return
    cluster = undefined[0]
    raise PlanRefused(
        "unknown_subset",
        f"VirtualService {'/'.join(key_of(found.leaf))} sends requests to the subset {cluster.subset} of {cluster.host}, "
        "which no DestinationRule defines: the caller's proxy answers them with 503, with and without the fault",
        next_step=f"define it in a DestinationRule for {cluster.host}, or correct the route",
    )


def _hidden(found: Found, strain: Strain) -> Iterator[str]:
    """Find the subsets that these callers do not get, whoever defines them."""
    for cluster in _used(found) if found.view.every_rule else ():
        rule = _rule(cluster.host, found, strain.caller)
        if cluster.subset and cluster.subset not in rule.subsets:
            why = f"go by {rule.name}, which lacks it" if rule.parts else "see no DestinationRule for it"
            yield (
                f"callers in {strain.caller} {why}: requests to the subset {cluster.subset} of {cluster.host} get 503 "
                "from their proxy, with and without the fault; define it there, or export the rule that has it to them"
            )


def _used(found: Found) -> list[_Cluster]:
    """Return where the routes lead that get twins."""
    routes = (found.leaf["spec"]["http"][index] for index in found.selection.indices)
    return _clusters(found, [each for route in routes for each in destinations(route)])


def _broken(found: Found) -> list[_Cluster]:
    """Return where the broken requests would go."""
    selection, of = found.selection, namespace_of(found.leaf)
    routes = (found.leaf["spec"]["http"][index] for index in selection.indices)
    return _clusters(
        found,
        [each for route in routes for each in leading(route, selection.target, namespace=selection.namespace, of=of)],
    )


def _clusters(found: Found, named: list[Object]) -> list[_Cluster]:
    of, made = namespace_of(found.leaf), []
    for each in named:
        host = qualify(str(each.get("host") or ""), of).lower().removesuffix(".")
        port = (each.get("port") or {}).get("number") or _port_of_the_caller(host, found)
        made.append(_Cluster(host, port, str(each.get("subset") or "")))
    return list(dict.fromkeys(made))


def _port_of_the_caller(host: str, found: Found) -> int | None:
    """Return the port at which a destination is reached that names none: that which is called, at a gateway its only one."""
    if not found.for_sidecars:
        return found.target.port or _only_port(host, found)
    called = found.called_ports
    return called.pop() if len(called) == 1 else None


def _only_port(host: str, found: Found) -> int | None:
    ports = ports_of({host}, found.view.services)
    return ports.pop() if len(ports) == 1 else None


def _rule(host: str, found: Found, caller: str) -> Rule:
    return rule_for(host, found.view.destination_rules or (), caller=caller, home=_home(host, found))


def _home(host: str, found: Found) -> str:
    return host.split(".")[1] if host.endswith(f".{DOMAIN}") else found.view.namespace


def _not_set_off(experiment: Experiment, found: Found, strain: Strain) -> Iterator[str]:
    """Find what a dependency that really fails, or is really slow, would set off on the broken hop."""
    for cluster in _broken(found):
        rule = _rule(cluster.host, found, strain.caller)
        policy = rule.policy(cluster.port, cluster.subset)
        errors, limit = _errors_in_a_row(policy), _limit(policy)
        if experiment.spec.fault.abort is not None and errors:
            yield (
                f"by {rule.name} a proxy takes a pod of {cluster.short} out after {errors} errors in a row, but an injected abort is "
                "answered by the caller's proxy before a pod is chosen, and counts for none: callers are judged with all pods "
                "in place; to see what they make of an ejection, let one pod fail by itself"
            )
        if limit is not None and limit.most <= strain.held:
            yield (
                f"by {rule.name} a proxy lets {limit.most} requests be at {cluster.short} at once ({limit.field}), but a delay "
                f"holds them before they count there, up to {strain.held:.0f}: of a {cluster.short} that is really slow, the rest "
                f"{limit.effect}; {_slower(limit, strain)}"
            )


def _set_off(found: Found, strain: Strain) -> Iterator[str]:
    """Find what the services that wait for the broken hop set off at the proxies that call them."""
    for host in strain.waiting:
        # Who calls it is not known; in its own namespace is where its rule usually is.
        rule, port, name = _rule(host, found, _home(host, found)), _only_port(host, found), host.split(".")[0]
        policies = [rule.policy(port, subset) for subset in ("", *rule.subsets)]
        errors = min(filter(None, map(_errors_in_a_row, policies)), default=0)
        if errors:
            yield (
                f"by {rule.name} a proxy takes a pod of {name} out after {errors} errors in a row: if {name} answers the test "
                "traffic with errors, the proxies that call it stop using that pod, for everybody's requests; let the traffic in "
                "where no users pass, or let the fault hit few enough (percent)"
            )
        limit = min(filter(None, map(_limit, policies)), default=None)
        if limit is not None and limit.most <= strain.held:
            yield (
                f"by {rule.name} a proxy lets {limit.most} requests be at {name} at once ({limit.field}), and the fault holds up "
                f"to {strain.held:.0f} there: the rest {limit.effect}, control requests and everybody's too; {_slower(limit, strain)}"
            )


def _errors_in_a_row(policy: Object) -> int:
    """Return after how many errors in a row *policy* takes a pod out, 0 where it does not."""
    outlier = policy.get("outlierDetection")
    if outlier is None:
        return 0
    every, gateway = outlier.get("consecutive5xxErrors"), outlier.get("consecutiveGatewayErrors")
    # What is not written keeps Envoy's default: five 5xx in a row, and gateway errors alone never.
    return min(filter(None, (_EVERY_5XX if every is None else int(every), int(gateway or 0))), default=0)


_EVERY_5XX = 5


def _limit(policy: Object) -> _Limit | None:
    """Return the lowest limit of *policy* on requests that are at a host at once; 0 is none, as where nothing is written."""
    pool = policy.get("connectionPool") or {}
    http, tcp = pool.get("http") or {}, pool.get("tcp") or {}
    limits = [
        _Limit(int(http.get("http2MaxRequests") or 0), "http2MaxRequests", "would be answered 503 at once"),
        _Limit(int(tcp.get("maxConnections") or 0), "maxConnections", _queued(http)),
    ]
    return min((each for each in limits if each.most), default=None)


def _queued(http: Object) -> str:
    waiting = int(http.get("http1MaxPendingRequests") or 0)
    beyond = f", and beyond {waiting} waiting be answered 503 at once" if waiting else ""
    return f"would over HTTP/1.1 wait for a connection{beyond}"


def _slower(limit: _Limit, strain: Strain) -> str:
    rate_hz = fits_hz(limit.most - 1, strain.hold_s)
    return (
        f"stay below it with a traffic.rate of {show_rate(rate_hz)}"
        if rate_hz
        else "stay below it with a shorter delay"
    )
