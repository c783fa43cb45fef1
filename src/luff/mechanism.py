"""
What Istio's way to inject a fault cannot show, or would not carry out: said before anybody believes it.

A fault runs before the router, so that the same route's timeout and retries
never see it; a gRPC status means nothing to a service that speaks HTTP; and a
route that Envoy refuses keeps every proxy on the routes that it had, our
twins and their removal included. All of it is judged on the routes as proxies
are given them, so a delegate's root counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from luff import crd
from luff.checks import plan_checks
from luff.claims import hosts_of, key_of, on_mesh, ports_of, service_host
from luff.errors import PlanRefused
from luff.exposure import dose_percent
from luff.hosts import namespace_of, qualify, qualify_gateway
from luff.model import Abort, Delay, Experiment, Object
from luff.selection import leading
from luff.targeting import Found
from luff.units import istio_duration, show_duration, show_percent
from luff.validation import envoy_problems
from luff.words import Arm

__all__ = ["check_fault", "check_frozen"]

_HTTP2 = ("h2c", "http2", "kubernetes.io/h2c")
"""Protocols of a port that gRPC may be spoken on, or not."""


def check_fault(experiment: Experiment, found: Found) -> list[str]:
    """Refuse a fault that real callers could never meet, and return warnings of what it does not exercise."""
    _check_timeouts(experiment, found)
    return [*_check_grpc(experiment, found), *_retries_unseen(experiment, found), *_borne(experiment)]


def _borne(experiment: Experiment) -> list[str]:
    """Return a warning for each check on the fault arm that bears as many violations as the dose can cause by itself."""
    dose = round(dose_percent(experiment), 6)
    borne = {
        check.expression: share
        for check in plan_checks(experiment, rate_hz=1.0)
        if check.arm is Arm.FAULT and check.kind not in ("fallback", "recovery")
        if dose <= (share := round(100 * check.threshold, 6))
    }
    return [
        f"{expression} bears {show_percent(share)} of the requests, and the fault hits {show_percent(dose)} of the calls: "
        "a caller that makes one call for each request meets it without any defence"
        for expression, share in borne.items()
    ]


def _check_timeouts(experiment: Experiment, found: Found) -> None:
    """Refuse a delay that the same route's timeouts would have cut in real life: Istio's fault never sees those."""
    delay = experiment.spec.fault.delay
    if delay is None:
        return
    for name, route in found.merged:
        what, cut_s, gives_up_s = _cut(route)
        if cut_s < delay.duration_s:
            raise PlanRefused(
                "timeout_hides_delay",
                f"the {name} has {what} of {show_duration(cut_s)}, and a fault is injected before it: "
                f"callers would wait {show_duration(delay.duration_s)}, which a slow dependency could never make them do",
                next_step=_as_really_seen(delay, cut_s, gives_up_s),
            )


def _cut(route: Object) -> tuple[str, float, float]:
    """Return which of *route*'s timeouts is the shortest, its seconds, and after how many callers get a 504; ``inf`` without any."""
    timeout_s = _istio_seconds(route.get("timeout"))
    retries = route.get("retries") or {}
    attempts = retries.get("attempts") or 0
    # Without attempts there is no retry policy, and so no time for each of them.
    per_try_s = _istio_seconds(retries.get("perTryTimeout")) if attempts else math.inf
    again = _CUT_IS_TRIED_AGAIN.intersection(re.split(r"[,\s]+", str(retries.get("retryOn") or "")))
    gives_up_s = min(timeout_s, per_try_s * (attempts + 1 if again else 1))
    if per_try_s < timeout_s:
        return "a retries.perTryTimeout", per_try_s, gives_up_s
    return "a timeout", timeout_s, gives_up_s


_CUT_IS_TRIED_AGAIN = frozenset({"5xx", "gateway-error", "504"})
"""Words of ``retryOn`` by which an attempt that took too long is made again."""


def _istio_seconds(text: object) -> float:
    """Return the seconds of a timeout as Istio writes it, ``inf`` where there is none: 0 s turns it off."""
    took_ns = crd.nanoseconds(text) if isinstance(text, str) else None
    return float(took_ns / crd.UNIT_NS["s"]) if took_ns else math.inf


def _as_really_seen(delay: Delay, cut_s: float, gives_up_s: float) -> str:
    if delay.percent >= 100:
        return f"break it as they would really see it: fault: {{delay: {istio_duration(gives_up_s)}, abort: 504}}"
    return (
        f"choose a delay of less than {show_duration(cut_s)}, or break all of the requests: "
        f"fault: {{delay: {istio_duration(gives_up_s)}, abort: 504}}; "
        f"for {show_percent(delay.percent)} of them it cannot be written, since Istio draws for a delay and for an abort apart"
    )


def _retries_unseen(experiment: Experiment, found: Found) -> list[str]:
    """Return a warning for each route whose retries the fault does not exercise, Istio's own included."""
    abort = experiment.spec.fault.abort
    said = []
    for name, route in found.merged:
        attempts = (route.get("retries") or {}).get("attempts")
        if attempts:
            said.append(
                f"the {name} retries {attempts} times, but a fault is injected before its router: those retries are "
                f"not exercised (a really failing dependency would see up to {attempts + 1} attempts){_masked(abort, attempts)}"
            )
        elif "retries" not in route and abort is not None and (abort.grpc in _BY_ITSELF or abort.http == 503):
            when = "before Istio 1.24 also a 503" if abort.grpc is None else f"also {abort.grpc}"
            said.append(
                f"the {name} says nothing of retries, so a proxy tries {DEFAULT_RETRIES} times more by Istio's default "
                f"(where the connection fails; {when}), but a fault is injected before its router: "
                f"those retries are not exercised{_masked(abort, DEFAULT_RETRIES)}"
            )
    return list(dict.fromkeys(said))


DEFAULT_RETRIES = 2
_BY_ITSELF = frozenset({"UNAVAILABLE", "CANCELLED"})
"""gRPC statuses that a proxy retries where the route says nothing."""


def _masked(abort: Abort | None, retries: int) -> str:
    """Return what would be left of a share of failing attempts when each is made again."""
    if abort is None or abort.percent >= 100:
        return ""
    left = 100 * (abort.percent / 100) ** (retries + 1)
    return (
        f"; of a dependency that fails {show_percent(abort.percent)} of its calls, callers would with them see "
        f"{show_percent(float(f'{left:.2g}'))} fail, and here they see {show_percent(abort.percent)}"
    )


def _check_grpc(experiment: Experiment, found: Found) -> list[str]:
    """Refuse a gRPC status for a service that speaks HTTP/1, and return warnings where it may be either."""
    abort = experiment.spec.fault.abort
    if abort is None or abort.grpc is None:
        return []
    warnings = []
    for service, protocols in _called(found):
        if any(protocol.startswith("grpc") for protocol in protocols):
            continue
        shown = ", ".join(sorted(filter(None, protocols))) or "unnamed"
        if protocols & {*_HTTP2}:
            warnings.append(
                f"the ports of {service} are {shown}, where gRPC may be spoken or not: "
                "to a request that is not gRPC, Envoy would answer 200 with the body 'fault filter abort'"
            )
            continue
        raise PlanRefused(
            "grpc_abort_on_http",
            f"{service} is not a gRPC service (its ports are {shown}): "
            "Envoy would answer 200 with the body 'fault filter abort'",
            next_step="use abort: 503, or name the port grpc-…",
        )
    return warnings


def _called(found: Found) -> Iterator[tuple[str, set[str]]]:
    """Yield each Service that the twins' originals lead to, with the protocols of the ports that are called."""
    selection, of = found.selection, namespace_of(found.leaf)
    target = selection.target
    wanted: dict[str, set[int]] = {}
    for index in selection.indices:
        for each in leading(found.leaf["spec"]["http"][index], target, namespace=selection.namespace, of=of):
            port = (each.get("port") or {}).get("number") or target.port
            numbers = wanted.setdefault(qualify(str(each.get("host", "")), of).lower(), set())
            if port is not None:
                numbers.add(port)
    for service in found.view.services:
        name = service_host(service)
        if name not in wanted:
            continue
        ports = (service.get("spec") or {}).get("ports") or []
        meant = [port for port in ports if port.get("port") in wanted[name]] or ports
        yield service["metadata"]["name"], {_protocol(port) for port in meant}


def _protocol(port: Object) -> str:
    return str(port.get("appProtocol") or str(port.get("name") or "").partition("-")[0]).lower()


def check_frozen(found: Found) -> list[str]:
    """
    Refuse where a proxy would keep the routes that it has, and return warnings where that cannot be told.

    Envoy takes the routes of a port as a whole: while one of them is refused,
    neither the twins nor their removal arrive.
    """
    warnings, view = [], found.view
    mine = ports_of(hosts_of(found.root), view.services)
    for candidate in view.all_virtual_services:
        wrong = envoy_problems(candidate)
        if not wrong:
            continue
        name, theirs = "/".join(key_of(candidate)), ports_of(hosts_of(candidate), view.services)
        said = f"Envoy refuses what Istio makes of VirtualService {name} ({wrong[0]}), and with it every change of the routes on the same port"
        near = namespace_of(candidate) == view.namespace or candidate is found.leaf
        if near and _share_a_proxy(found.root, candidate) and not (mine and theirs and mine.isdisjoint(theirs)):
            raise PlanRefused(
                "routes_frozen",
                f"{said}: the twins would not arrive, or could not be removed",
                next_step=f"correct {name} first",
            )
        warnings.append(f"{said}; if it is on the target's, the twins do not arrive: correct {name}")
    return warnings


def _share_a_proxy(one: Object, other: Object) -> bool:
    """Return whether some proxy has the routes of both; a delegate may be with anybody."""
    if not hosts_of(other) or (on_mesh(one) and on_mesh(other)):
        return True
    bound = [
        {qualify_gateway(str(name), namespace_of(each)) for name in (each.get("spec") or {}).get("gateways") or []}
        for each in (one, other)
    ]
    return not bound[0].isdisjoint(bound[1])
