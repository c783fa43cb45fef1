"""
What is refused although every value by itself would do: claims that cannot be carried, bounds that do not fit.

Each check takes the built document and its nodes, and says at the node what
would do instead. Nothing here knows a mesh; what depends on one is refused by
`luff.plan`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from luff import jsonpath, regex
from luff.hosts import host_of, is_ip
from luff.model import (
    HEADER_VALUE,
    Answer,
    AnswerExpectation,
    Arm,
    Carrier,
    Experiment,
    FallbackExpectation,
    GameDay,
    HttpTripwire,
    LabWorkload,
    NoWorseThanExpectation,
    Policy,
    RecoveryExpectation,
    Request,
    Suite,
)
from luff.run_bounds import refuse_bounds
from luff.sample_sizes import refuse_small_samples
from luff.scope import BAGGAGE_KEY
from luff.units import TTL_MOST_S, show_duration, write_duration
from luff.words import GRPC_CODES
from luff.yaml_nodes import Fields, Items, Node, Place, Problems, Scalar, did_you_mean, mapping, place_at

__all__ = [
    "refuse_before",
    "refuse_experiment",
    "refuse_game_day",
    "refuse_lab_workload",
    "refuse_policy",
    "refuse_suite",
]

ANSWERS_MOST = 32
"""How many distinct answers one experiment can tell apart."""
PERCENT_LEAST = 0.0001
"""Istio draws in parts of a million."""
DELAY_LEAST_S = 0.001
URL_LENGTH_MOST = 60_000
"""Characters; Envoy takes 60 KiB of head by default."""
_NOT_FOR_SCOPE = frozenset(
    [
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "baggage",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "origin",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "referer",
        "te",
        "trailer",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-luff-flags",
        "x-request-id",
    ]
)
_ENVOY = "x-envoy-"
"""Headers by which a proxy is told what to do, or says what it did: it acts on them, and takes them out at the edge."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST = re.compile(r"[a-z0-9._-]+")
_LIKE_IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")
_CRON_LENGTH_MOST = 200
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)

_Check = Callable[[Any, Fields, Problems], None]


# --- on the nodes, before any model is built ---------------------------------------------------------------------


def refuse_before(kind: str, spec: Fields, problems: Problems) -> None:
    """Refuse what cannot be said in a model's constraints: of two keys exactly one, of several at least one."""
    if kind == "Experiment":
        _reserved(spec, problems)
        _one_of(spec, ("target",), ("host", "virtualService"), problems)
        _fault(spec.fields.get("fault"), problems)
        _modes(spec, problems)
        expect = spec.fields.get("expect")
        for item in expect.items if isinstance(expect, Items) else []:
            _answer_parts(item, problems)
    elif kind == "LabWorkload":
        _one_of(spec, (), ("run", "address"), problems)
    elif kind == "Suite":
        _each(spec, "experiments", _matrix_faults, problems)
    elif kind == "GameDay":
        _each(spec, "skipWhen", _skip, problems)


def _each(spec: Fields, name: str, check: Callable[[Node, Problems], None], problems: Problems) -> None:
    items = spec.fields.get(name)
    for item in items.items if isinstance(items, Items) else []:
        check(item, problems)


def _skip(item: Node, problems: Problems) -> None:
    if isinstance(item, Fields) and len(item.fields) != 1:
        message = f"each item of skipWhen says one reason, not {len(item.fields)}"
        problems.add(item.place, message, "one of: canaryProgressing, ics, prometheus")


def _matrix_faults(item: Node, problems: Problems) -> None:
    matrix = item.fields.get("matrix") if isinstance(item, Fields) else None
    if isinstance(matrix, Fields):
        _each(matrix, "fault", _fault, problems)


def _reserved(spec: Fields, problems: Problems) -> None:
    if "faults" in spec.fields:
        problems.add(
            spec.key_place("faults"), "faults is reserved, not supported yet", "write one fault and one target"
        )
        spec.fields["faults"].refused = True
        # Who writes it leaves out what it stands for, and one cause is one problem: the document is not returned anyway.
        place = spec.key_place("faults")
        spec.fields.setdefault("target", mapping(place, {"host": Scalar(place, "x", quoted=True)}))
        spec.fields.setdefault("fault", mapping(place, {"abort": mapping(place, {"http": Scalar(place, 503)})}))


def _modes(spec: Fields, problems: Problems) -> None:
    traffic = spec.fields.get("traffic")
    via = traffic.fields.get("via") if isinstance(traffic, Fields) else None
    mode = via.fields.get("mode") if isinstance(via, Fields) else None
    if isinstance(mode, Scalar) and mode.value in ("port-forward", "job"):
        problems.add(
            mode.place, f"via: {mode.value} is reserved, not supported yet", "write via: direct, or leave it out"
        )
        mode.refused = True


def _one_of(spec: Fields, path: tuple[str, ...], choices: tuple[str, ...], problems: Problems) -> None:
    node: Node | None = spec
    for step in path:
        node = node.fields.get(step) if isinstance(node, Fields) else None
    if not isinstance(node, Fields):
        return
    given = [name for name in choices if name in node.fields and not _is_null(node.fields[name])]
    what = path[-1] if path else "spec"
    if len(given) > 1:
        problems.add(node.key_place(given[1]), f"{what} takes one of {' and '.join(choices)}, not both", "remove one")
    elif not given:
        near = [name for name in node.fields if did_you_mean(name, choices).startswith("did you mean")]
        if not near:  # else the unknown field says it
            problems.add(node.place, f"{what} needs one of {' and '.join(choices)}")


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _fault(fault: Node | None, problems: Problems) -> None:
    if not isinstance(fault, Fields):
        return
    near = [name for name in fault.fields if did_you_mean(name, ("delay", "abort")).startswith("did you mean")]
    if not near:
        problems.add(fault.place, "fault breaks nothing", "give delay, abort, or both, such as delay: 3s")
    delay, abort = fault.fields.get("delay"), fault.fields.get("abort")
    if isinstance(delay, Fields) and "sweep" in delay.fields:
        problems.add(delay.key_place("sweep"), "delay.sweep is reserved, not supported yet", "write one duration")
        delay.refused = True
    if isinstance(abort, Fields):
        _one_of(fault, ("abort",), ("http", "grpc"), problems)
        _grpc(abort.fields.get("grpc"), problems)
        _http(abort.fields.get("http"), problems)


def _http(http: Node | None, problems: Problems) -> None:
    if isinstance(http, Scalar) and isinstance(http.value, str) and http.value.upper() in GRPC_CODES:
        problems.add(http.place, f"{http.value!r} is no HTTP status", f"write {{grpc: {http.value.upper()}}}")
        http.refused = True


def _grpc(grpc: Node | None, problems: Problems) -> None:
    if not isinstance(grpc, Scalar) or grpc.value is None or grpc.value in GRPC_CODES:
        return
    text = str(grpc.value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    meant = f"write {GRPC_CODES[number]}" if 0 <= number < len(GRPC_CODES) else did_you_mean(text, GRPC_CODES)
    problems.add(grpc.place, f"{text[:60]!r} is not the name of a gRPC status", meant)
    grpc.refused = True


def _answer_parts(item: Node, problems: Problems) -> None:
    answer = item.fields.get("answer") if isinstance(item, Fields) else None
    body = answer.fields.get("body") if isinstance(answer, Fields) else None
    if isinstance(body, Fields) and not body.fields:
        problems.add(body.place, "body claims nothing", "give contains, matches, or both")


# --- experiments -------------------------------------------------------------------------------------------------


def refuse_experiment(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    """Refuse what does not fit together in *experiment*; *spec* has the places."""
    for check in _EXPERIMENT_CHECKS:
        check(experiment, spec, problems)


def _faults(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    fault = experiment.spec.fault
    if fault.delay is not None:
        place, duration_s = place_at(spec, "fault", "delay", "duration"), fault.delay.duration_s
        milliseconds = duration_s * 1000
        if duration_s < DELAY_LEAST_S:
            problems.add(place, f"a delay of {write_duration(duration_s)} cannot be injected", "write at least 1ms")
        elif abs(milliseconds - round(milliseconds)) > 1e-6:
            problems.add(place, "a delay is in whole milliseconds", f"write {round(milliseconds)}ms")
    for name, part in (("delay", fault.delay), ("abort", fault.abort)):
        if part is not None and part.percent < PERCENT_LEAST:
            message = f"{part.percent:g}% of the requests would break nothing"
            problems.add(place_at(spec, "fault", name, "percent"), message, f"write at least {PERCENT_LEAST}%")


def _header_names(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    scope = experiment.spec.scope
    if scope.header in _NOT_FOR_SCOPE or scope.header.startswith(_ENVOY):
        message = f"the header {scope.header} has a meaning of its own and cannot mark requests"
        problems.add(place_at(spec, "scope", "header"), message, "leave it out to use x-luff-run")
    carriers = scope.carriers
    for index, request in enumerate(experiment.spec.traffic.requests):
        for name, value in request.headers.items():
            place = place_at(spec, "traffic", "requests", index, "headers", name)
            low = name.lower()
            if not _HEADER.fullmatch(name):
                problems.add(place, f"{name[:60]!r} is no header name", "use letters, digits and '-'")
            elif isinstance(value, str) and not HEADER_VALUE.fullmatch(value):
                problems.add(
                    place, f"the value of {name} has characters that no header can carry", "use printable ASCII"
                )
            elif (
                (low == scope.header and Carrier.HEADER in carriers)
                or (low == "traceparent" and Carrier.TRACEPARENT in carriers)
                or (
                    low == "baggage" and Carrier.BAGGAGE in carriers and isinstance(value, str) and BAGGAGE_KEY in value
                )
            ):
                message = f"luff itself sets {name}, to mark requests"
                problems.add(place, message, "remove it, or choose another spec.scope.header or carrier")


def _requests(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    traffic = experiment.spec.traffic
    for index, request in enumerate(traffic.requests):
        place = place_at(spec, "traffic", "requests", index, "url")
        _url(request.url, place, problems)
        if traffic.control is None and request.method not in ("GET", "HEAD"):
            problems.add(
                place_at(spec, "traffic", "requests", index, "method"),
                f"{request.method} changes things, and the control arm sends it too unless it is switched off",
                "spell out spec.traffic.control: true or false",
            )
        _twice_named(traffic.requests, index, spec, problems)


def _control(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    """Refuse each claim that is about control requests, or beside them, where none are sent."""
    if Arm.CONTROL in experiment.spec.traffic.arms:
        return
    for index, expectation in enumerate(experiment.spec.expect):
        compared = isinstance(expectation, NoWorseThanExpectation) and expectation.than is Arm.CONTROL
        beside = compared or isinstance(expectation, FallbackExpectation | RecoveryExpectation)
        if beside or expectation.arm is Arm.CONTROL:
            problems.add(
                place_at(spec, "expect", index),
                f"{expectation.kind} needs control requests here, and spec.traffic.control is false",
                "write spec.traffic.control: true, or ask for something else",
            )


def _aims(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    """Refuse a target that no twin could be for, and traffic of which nobody could say whom it is to judge."""
    target, requests = experiment.spec.target, experiment.spec.traffic.requests
    if target.from_ and target.gateways:
        problems.add(
            place_at(spec, "target", "gateways"),
            "from and gateways cannot go together: Istio does not look at source labels where gateways are named",
            "keep one of them",
        )
    if experiment.spec.subject is not None:
        return
    hosts = [host_of(request.url) for request in requests]
    for index, host in enumerate(hosts):
        if host and _is_outside(host):
            message = f"{host[:80]} is no service of the mesh, so it is not clear which service is judged"
        elif host and hosts[0] and host != hosts[0]:
            message = f"the traffic goes to {hosts[0][:80]} and {host[:80]}, so it is not clear which service is judged"
        else:
            continue
        problems.add(place_at(spec, "traffic", "requests", index, "url"), message, "name it in spec.subject")
        return


def _is_outside(host: str) -> bool:
    """Return whether *host* can be no service's: not one, not ``name.namespace``, not below ``svc``."""
    host = host.removesuffix(".")
    below = host.split(".")[2:]
    return is_ip(host) or host == "localhost" or (bool(below) and below[0] != "svc")


def _twice_named(requests: tuple[Request, ...], index: int, spec: Fields, problems: Problems) -> None:
    name = requests[index].name
    if name is not None and name in [other.name for other in requests[:index]]:
        problems.add(
            place_at(spec, "traffic", "requests", index, "name"), f"the request {name!r} is here twice", "rename one"
        )


def _url(url: str, place: Place, problems: Problems) -> None:
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        problems.add(place, f"{url[:80]!r} is no URL: {str(error)[:80]}")
        return
    if scheme not in ("http", "https"):
        if "://" not in url:
            problems.add(
                place, f"{url[:80]!r} is no URL: it does not begin with http://", f"write http://{url[:80].lstrip('/')}"
            )
        else:
            problems.add(place, f"the URL must begin with http:// or https://, not {scheme[:20]}://")
    elif not host or "{" in host:
        problems.add(place, f"the URL {url[:80]!r} names no host", "write such as http://checkout/cart/42")
    elif port == 0:
        problems.add(place, "nothing can be reached at port 0", "write one from 1 to 65535")
    elif len(url) > URL_LENGTH_MOST:
        problems.add(place, f"the URL has {len(url)} characters; proxies take {URL_LENGTH_MOST}", "send less in it")
    elif why := _why_no_host(host, bracketed="[" in parts.netloc):
        problems.add(place, f"{host[:80]!r} is no host that a request can go to: {why}")
    elif re.search(r"[\x00-\x20\x7f]", url):
        problems.add(place, f"the URL {url[:80]!r} has a space or a control character in it", "write %20 for a space")


def _why_no_host(host: str, *, bracketed: bool = False) -> str | None:
    """Return why no HTTP client goes to *host*, which is written in brackets or not; ``None`` when it can be one's name or address."""
    if bracketed or _LIKE_IPV4.fullmatch(host):
        return None if is_ip(host) and bracketed == (":" in host) else "this is no IP address"
    if host.isascii() and not host.startswith("xn--"):
        return None if _HOST.fullmatch(host) else "a name is of letters, digits, '-', '_' and '.'"
    import idna  # its tables are for names that hardly anybody has here

    try:
        # As httpx reads them.
        idna.decode(host) if host.isascii() else idna.encode(host)
    except UnicodeError as error:
        return f"it is no international name ({str(error)[:80]})"
    return None


def _why_no_address(address: str) -> str | None:
    """Return why nothing can be dialled at *address*, HOST:PORT; ``None`` when something may be there."""
    host = address.rpartition(":")[0].lower()
    return _why_no_host(host.strip("[]"), bracketed=host.startswith("["))


def _connect(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    connect = experiment.spec.traffic.via.connect
    if connect is not None and (why := _why_no_address(connect)):
        message = f"nothing can be dialled at {connect[:80]!r}: {why}"
        problems.add(place_at(spec, "traffic", "via", "connect"), message, "write such as 127.0.0.1:8080 or [::1]:8080")


def _matches(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    seen: list[Answer] = []
    for index, expectation in enumerate(experiment.spec.expect):
        if not isinstance(expectation, AnswerExpectation | FallbackExpectation):
            continue
        answer = expectation.answer
        path: tuple[str | int, ...] = ("expect", index, "answer")
        for name, part in (("body", answer.body), ("json", answer.json_), ("header", answer.header)):
            if part is not None and part.matches is not None and (why := regex.why_unsearchable(part.matches)):
                what = "no regular expression" if regex.why_invalid(part.matches) else "not searched for"
                problems.add(place_at(spec, *path, name, "matches"), f"this is {what}: {why}")
        if answer.json_ is not None:
            try:
                jsonpath.compile(answer.json_.path)
            except ValueError as error:
                problems.add(place_at(spec, *path, "json", "path"), str(error), "such as $.stock or $.items[*].name")
        if (
            answer.json_ is not None
            and answer.json_.exists is False
            and (answer.json_.matches is not None or "equals" in answer.json_.model_fields_set)
        ):
            problems.add(
                place_at(spec, *path, "json", "exists"),
                "what does not exist cannot equal or match anything",
                "remove one",
            )
        if answer not in seen:
            seen.append(answer)
            if len(seen) == ANSWERS_MOST + 1:
                problems.add(
                    place_at(spec, "expect", index), f"one experiment can tell {ANSWERS_MOST} answers apart", "split it"
                )
        if isinstance(expectation, FallbackExpectation) and expectation.arm is not Arm.FAULT:
            problems.add(
                place_at(spec, "expect", index, "arm"),
                "a fallback is expected on the fault arm",
                "write answer instead",
            )


def _others(experiment: Experiment, spec: Fields, problems: Problems) -> None:
    for index, tripwire in enumerate(experiment.spec.abort_on):
        if isinstance(tripwire, HttpTripwire):
            _url(tripwire.url, place_at(spec, "abortOn", index, "url"), problems)
    known = experiment.spec.known_failure
    if known is not None and known.until is not None and not _is_date(known.until):
        problems.add(
            place_at(spec, "knownFailure", "until"), f"{known.until!r} is no day of any month", "such as 2027-01-31"
        )


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


_EXPERIMENT_CHECKS: tuple[_Check, ...] = (
    _faults, _header_names, _requests, _connect, _control, _aims, refuse_bounds, _matches, _others, refuse_small_samples,
)  # fmt: skip


# --- other kinds -------------------------------------------------------------------------------------------------


def refuse_lab_workload(workload: LabWorkload, spec: Fields, problems: Problems) -> None:
    """Refuse an address that a proxy of the lab cannot dial: it resolves no names."""
    address = workload.spec.address
    if address is None or address.rpartition(":")[0] == "localhost":
        return
    host = address.rpartition(":")[0].strip("[]")
    why = _why_no_address(address) or (None if is_ip(host) else "a proxy of the lab resolves no names")
    if why is not None:
        message = f"nothing can be dialled at {address[:80]!r}: {why}"
        problems.add(place_at(spec, "address"), message, "write such as 127.0.0.1:9083 or [::1]:9083")


def refuse_suite(suite: Suite, spec: Fields, problems: Problems) -> None:
    """Refuse faults in a matrix that break nothing."""
    for index, entry in enumerate(suite.spec.experiments):
        for number, fault in enumerate(entry.matrix.fault if entry.matrix is not None else ()):
            place = place_at(spec, "experiments", index, "matrix", "fault", number)
            for part in (fault.delay, fault.abort):
                if part is not None and part.percent < PERCENT_LEAST:
                    problems.add(
                        place,
                        f"{part.percent:g}% of the requests would break nothing",
                        f"write at least {PERCENT_LEAST}%",
                    )
            if fault.delay is not None and fault.delay.duration_s < DELAY_LEAST_S:
                problems.add(place, "a delay below 1 ms cannot be injected", "write at least 1ms")


def refuse_game_day(game_day: GameDay, spec: Fields, problems: Problems) -> None:
    """Refuse schedules that no calendar has, and more approvals than there are approvers."""
    schedule, people = game_day.spec.schedule, game_day.spec.people
    _zone(schedule.time_zone, place_at(spec, "schedule", "timeZone"), problems)
    why = _why_no_cron(schedule.cron)
    if why is not None:
        place = place_at(spec, "schedule", "cron")
        problems.add(place, f"{schedule.cron[:60]!r} is no cron expression: {why}", 'such as "0 10 * * TUE#1"')
    if people is not None and people.approvals > len(people.approvers):
        problems.add(
            place_at(spec, "people", "approvals"),
            f"{people.approvals} approvals are asked for, and there are {len(people.approvers)} approvers",
            "name more approvers, or ask for fewer",
        )


def _why_no_cron(cron: str) -> str | None:
    if len(cron) > _CRON_LENGTH_MOST:
        return "it is too long"
    try:
        # The date only starts the search; whether the expression can be read does not depend on it.
        CronSim(cron, _SOME_DAY)
    except (CronSimError, ValueError) as error:
        return str(error) or "it cannot be read"
    return None


def refuse_policy(policy: Policy, spec: Fields, problems: Problems) -> None:
    """Refuse hours in a time zone that does not exist, and a life of twins that nobody may allow."""
    hours = policy.spec.hours
    if hours is not None and " " in hours:
        _zone(hours.split(" ", 1)[1], place_at(spec, "hours"), problems)
    most_s = policy.spec.max_ttl_s
    if most_s is not None and most_s > TTL_MOST_S:
        problems.add(
            place_at(spec, "maxTtl"),
            f"maxTtl can only lower the {show_duration(TTL_MOST_S)} that a twin may live, not raise it",
            f"write {write_duration(TTL_MOST_S)}, or leave it out",
        )


def _zone(name: str, place: Place, problems: Problems) -> None:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # it looks for a file of that name
        problems.add(place, f"there is no time zone {name[:60]!r}", "such as Europe/Berlin or UTC")
