"""
Hypothesis strategies: VirtualServices as people write them, with fields nobody knows, and requests that hit them.

The words are few on purpose, so that matches overlap, hide one another, and
are met by the requests that `requests` makes from an object's own matches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from luff.decide import Proxy, RequestFacts
from luff.errors import PlanRefused
from luff.model import Abort, Carrier, Delay, Fault, Object, Target
from luff.names import Stamp
from luff.patches import apply
from luff.routes import Injection, inject
from luff.scope import Scope
from luff.selection import Selection, select

__all__ = [
    "OTHER_RUN", "OTHER_SCOPE", "RUN", "SCOPE", "THIRD_RUN", "THIRD_SCOPE", "Case", "cases", "faults", "injected",
    "json_values", "proxies", "requests", "targets", "virtual_services",
]  # fmt: skip

RUN, OTHER_RUN, THIRD_RUN = "0123456789abcdef", "aaaabbbbccccdddd", "1111222233334444"
SCOPE = Scope("0123456789abcdef" * 2, "f" * 32)
OTHER_SCOPE = Scope("a0" * 16, "b0" * 16)
THIRD_SCOPE = Scope("c1" * 16, "d1" * 16)
NAMESPACE = "shop"

_REGEXES = {"v[0-9]+": "v1", "(?i)gold": "GOLD", ".*": "", "a|b": "b", "(?:.*,)?x=1(?:,.*)?": "y=2,x=1"}
_PATH_REGEXES = {"/a(/.*)?": "/a/x", ".*": "/b", "/v[0-9]+": "/v7", "/[bc]": "/c", "(?i)/D": "/d"}
_PATHS = ["/a", "/a/b", "/b", "/c", "/A", "/d/e", "/é", "/"]
_VALUES = ["gold", "v1", "a", "b", "ж"]
_HEADERS = ["x-user", "Cookie", "x-tier", ":path"]
_CARRIERS = ["x-luff-run", "baggage", "Traceparent"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
_UNKNOWN: list[Object] = [
    {"xFuture": None},
    {"ключ": "знач\u2028ение", "x-y/z~0": 1e300},
    {"": [{"deep": [None, True, -0.0, "é"]}], "later": {"percent": 2**53}},
]
# From a list, and not drawn: what is drawn at every level leaves no room for the rest of an object.
_unknown = st.sampled_from([{}, {}, *_UNKNOWN])


@dataclass(frozen=True)
class Case:
    """This is an object, what is injected into it, and the object afterwards."""

    before: Object
    target: Target
    selection: Selection
    injection: Injection
    after: Object

    def original(self, index: int | None) -> int | None:
        """Return the index in *before* of the route at *index* in *after*: of a twin, that of its original."""
        return None if index is None else index - sum(position < index for position in self.injection.positions)

    def is_twin(self, index: int | None) -> bool:
        return index in self.injection.positions


def _weighted(common: st.SearchStrategy[Any], rare: st.SearchStrategy[Any], share: int = 4) -> st.SearchStrategy[Any]:
    return st.one_of(*[common] * (share - 1), rare)


@st.composite
def _with_unknown(draw: Callable[..., Any], known: st.SearchStrategy[Object]) -> Object:
    made = {**draw(known), **draw(_unknown)}
    return dict(reversed(made.items())) if draw(st.booleans()) else made


def _string_match(values: list[str], regexes: dict[str, str], *, presence: bool = True) -> st.SearchStrategy[Object]:
    kinds: list[st.SearchStrategy[Object]] = [
        st.sampled_from(values).map(lambda value: {"exact": value}),
        st.sampled_from(values).map(lambda value: {"prefix": value}),
        st.sampled_from(list(regexes)).map(lambda value: {"regex": value}),
    ]
    return st.one_of(*kinds, *([st.just({})] if presence else []))


_VALUE = _string_match(_VALUES, _REGEXES)
_KEYS = _weighted(st.sampled_from(_HEADERS), st.sampled_from(_CARRIERS))


# How often a match has each condition, and what it may be.
_CONDITIONS: dict[str, tuple[int, st.SearchStrategy[Any]]] = {
    "uri": (6, _string_match(_PATHS, _PATH_REGEXES)),
    "headers": (4, st.dictionaries(_KEYS, _VALUE, min_size=1, max_size=2)),
    "withoutHeaders": (2, st.dictionaries(_KEYS, _VALUE | st.just({"regex": "*"}), min_size=1, max_size=1)),
    "queryParams": (1, st.dictionaries(st.sampled_from(["q", "p"]), _VALUE, min_size=1, max_size=1)),
    "method": (1, st.sampled_from([{"exact": "GET"}, {"exact": "POST"}, {"regex": "GET|PUT"}, {}])),
    "authority": (1, st.sampled_from([{"exact": "ratings"}, {"prefix": "rat"}])),
    "scheme": (1, st.just({"exact": "http"})),
    "ignoreUriCase": (2, st.booleans()),
    "port": (2, st.sampled_from([80, 8080])),
    "sourceLabels": (2, st.sampled_from([{"app": "reviews"}, {"app": "web"}, {"app": "reviews", "v": "2"}])),
    "sourceNamespace": (1, st.sampled_from(["shop", "other"])),
    "gateways": (1, st.sampled_from([["mesh"], ["gw"], ["mesh", "shop/gw"]])),
    "name": (1, st.sampled_from(["m", "n"])),
}
_CONDITION_NAMES = st.sampled_from([name for name, (share, _) in _CONDITIONS.items() for _ in range(share)])

_CONDITION_SETS = st.one_of(
    *[st.sets(_CONDITION_NAMES, max_size=2).map(lambda names: {"uri", *names})] * 4,
    *[st.sets(_CONDITION_NAMES, max_size=2).map(lambda names: {"headers", *names})] * 3,
    st.sets(_CONDITION_NAMES, max_size=2),
)


@st.composite
def _matches(draw: Callable[..., Any]) -> Object:
    return {name: draw(_CONDITIONS[name][1]) for name in sorted(draw(_CONDITION_SETS))}


_DESTINATION = st.fixed_dictionaries(
    {"host": st.sampled_from(["ratings", "ratings", "ratings.shop.svc.cluster.local", "reviews"])},
    optional={"subset": st.sampled_from(["v1", "v2"]), "port": st.sampled_from([{"number": 80}, {"number": 9080}])},
)
_ENTRY = _with_unknown(st.fixed_dictionaries({"destination": _with_unknown(_DESTINATION)}))
_SPLIT = st.lists(_ENTRY, min_size=2, max_size=3).flatmap(
    lambda entries: st.lists(st.sampled_from([0, 10, 50, 90]), min_size=len(entries), max_size=len(entries)).map(
        lambda weights: [{**e, "weight": w} for e, w in zip(entries, [*weights[:-1], weights[-1] or 1], strict=True)]
    )
)
_FORWARD = st.fixed_dictionaries(
    {"route": _weighted(st.lists(_ENTRY, min_size=1, max_size=1), _SPLIT)},
    optional={
        "timeout": st.sampled_from(["5s", "0.25s"]),
        "retries": st.sampled_from([{"attempts": 0}, {"attempts": 3, "retryOn": "5xx,503", "perTryTimeout": "1s"}]),
        "rewrite": st.just({"uri": "/z"}),
        "headers": st.sampled_from(
            [
                {},
                {"response": {}},
                {"request": {"set": {"x": "1"}}},
                {"response": {"set": {"X-Luff-Flags": "mine", "y": "%HOSTNAME%"}, "remove": ["server"]}},
            ]
        ),
        "corsPolicy": st.just({"allowOrigins": [{"exact": "*"}], "maxAge": "24h"}),
    },
)
_MIRRORS: list[Object] = [
    {},
    {"mirror": {"host": "shadow"}, "mirrorPercentage": {"value": 10.0}},
    {"mirror": {"host": "shadow"}, "mirrorPercent": 5},
    {"mirrors": [{"destination": {"host": "shadow"}, "percentage": {"value": 1}}]},
]
_FAULTS: list[Object] = [
    {},
    {},
    {"fault": {"delay": {"fixedDelay": "2s", "percentage": {"value": 0.1}}}},
    {"fault": {"abort": {"httpStatus": 418}}},
]
_ANSWERS: list[Object] = [
    {"redirect": {"uri": "/elsewhere"}},
    {"directResponse": {"status": 503, "body": {"string": "нет"}}},
]
_PLAIN: Object = {"route": [{"destination": {"host": "ratings"}}]}
_NAMES = st.sampled_from(["canary", "default", "luff.frontend", "маршрут", "default"])


@st.composite
def _routes(draw: Callable[..., Any], *, last: bool = False) -> Object:
    kind = draw(st.integers(0, 7))
    if kind == 0:
        made = dict(draw(st.sampled_from(_ANSWERS)))
    elif kind == 1:
        made = {"delegate": {"name": "leaf"}}
    else:
        made = {**draw(_FORWARD), **draw(st.sampled_from(_MIRRORS)), **draw(st.sampled_from(_FAULTS))}
    if draw(st.integers(0, 1 if last else 9)):
        made["match"] = draw(st.lists(_with_unknown(_matches()), min_size=1, max_size=3))
    if draw(st.booleans()):
        made["name"] = draw(_NAMES)
    return made


@st.composite
def virtual_services(draw: Callable[..., Any], *, twins: bool = True) -> Object:
    """Return a VirtualService; with *twins*, some carry those that another run has left."""
    spec = {
        "hosts": draw(st.sampled_from([["ratings"], ["ratings", "*.example.com"]])),
        "http": [
            *draw(st.lists(_with_unknown(_routes()), min_size=1, max_size=5)),
            draw(_with_unknown(_routes(last=True))),
        ],
        **draw(_unknown),
    }
    bound = draw(st.sampled_from([None, None, None, ["mesh", "gw"], ["gw"]]))
    if bound is not None:
        spec["gateways"] = bound
    elif draw(st.integers(0, 7)) == 0:
        # A delegate: no hosts, and it delegates no further.
        del spec["hosts"]
        spec["http"] = [{**route, **_PLAIN} if "delegate" in route else route for route in spec["http"]]
        for route in spec["http"]:
            route.pop("delegate", None)
    made: Object = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "ratings", "namespace": NAMESPACE, "uid": "u-1", "resourceVersion": "7"},
        "spec": spec,
        **draw(_unknown),
    }
    if twins and draw(st.integers(0, 3)) == 0:
        left = injected(made, draw(targets()), run=THIRD_RUN, scope=THIRD_SCOPE)
        return made if left is None else left.after
    return made


@st.composite
def targets(draw: Callable[..., Any]) -> Target:
    """Return a target, often wide, sometimes narrowed in one way."""
    made: Object = {"host": "ratings"} if draw(st.integers(0, 3)) else {"virtualService": "ratings"}
    narrow = draw(st.integers(0, 12))
    narrowed: dict[int, Object] = {
        0: {"subset": "v1"},
        1: {"port": 9080},
        2: {"from": {"app": "reviews"}},
        3: {"gateways": ["mesh"]},
        4: {"gateways": ["shop/gw"]},
        5: {"routes": ["default"]},
    }
    return Target.model_validate({**made, **narrowed.get(narrow, {})})


faults = st.sampled_from(
    [
        Fault(delay=Delay(duration_s=5.0)),
        Fault(delay=Delay(duration_s=0.25, percent=50.0), abort=Abort(http=503, percent=0.5)),
        Fault(abort=Abort(grpc="UNAVAILABLE")),
    ]
)


def injected(
    object_: Object,
    target: Target,
    *,
    run: str = RUN,
    scope: Scope = SCOPE,
    fault: Fault | None = None,
) -> Case | None:
    """Return *object_* with twins for *target*, or ``None`` when that is refused."""
    try:
        selection = select(object_, target, namespace=NAMESPACE)
        injection = inject(
            selection,
            Stamp(run, scope, created_s=1_800_000_000, expires_s=1_800_000_600),
            fault or Fault(delay=Delay(duration_s=5.0)),
        )
    except PlanRefused:
        return None
    return Case(object_, target, selection, injection, apply(object_, injection.operations))


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    """Return a VirtualService into which something can be injected, with that."""
    object_ = draw(virtual_services())
    target = draw(targets())
    # What was drawn too narrow is widened: a refusal says nothing about the laws.
    made = injected(object_, target, fault=draw(faults)) or injected(
        object_, Target.model_validate({"virtualService": "ratings"})
    )
    assume(made is not None)
    assert made is not None
    return made


@st.composite
def proxies(draw: Callable[..., Any], object_: Object) -> Proxy:
    """Return a proxy, mostly one that the object is for."""
    bound = object_["spec"].get("gateways") or ["mesh"]
    return Proxy(
        labels=draw(st.sampled_from([{"app": "reviews"}, {"app": "reviews", "v": "2"}, {"app": "web"}, {}])),
        namespace=draw(st.sampled_from(["shop", "shop", "other"])),
        gateway=draw(st.sampled_from([*bound, *bound, *bound, "mesh"])),
    )


@st.composite
def requests(draw: Callable[..., Any], object_: Object) -> RequestFacts:
    """Return a request that one of the object's matches was made for, or nearly."""
    http = object_["spec"]["http"]
    route = draw(st.sampled_from([*http, *http[1:]]))
    match = draw(st.sampled_from(route.get("match") or [{}])) if draw(st.integers(0, 3)) else {}
    path = _text(match.get("uri") or {}, draw(st.sampled_from([*_PATHS, "/nowhere", "/no"])), _PATH_REGEXES)
    path = path if path.startswith("/") else f"/{path}"
    wanted = {k: v for k, v in (match.get("headers") or {}).items() if not k.startswith(":")}
    headers = [(name, _text(value, "some", _REGEXES)) for name, value in wanted.items()]
    for name, value in (match.get("withoutHeaders") or {}).items():
        if name not in _CARRIERS and value.get("regex") == ".*" and not name.startswith(":"):
            headers.append((name, "\n"))
    if draw(st.integers(0, 3)) == 0:
        headers.append((draw(st.sampled_from(["x-user", "COOKIE", "x-tier"])), draw(st.sampled_from(_VALUES))))
    params = "&".join(f"{n}={_text(v, 's', _REGEXES)}" for n, v in (match.get("queryParams") or {}).items())
    return RequestFacts(
        path=path + (f"?{params}" if params else ""),
        method=draw(st.sampled_from(["GET", "GET", "POST"])),
        authority=draw(st.sampled_from(["ratings", "ratings", "elsewhere"])),
        headers=tuple(draw(st.permutations(headers))),
        port=match.get("port") or draw(st.sampled_from([80, 8080, 9080])),
    )


def _text(wanted: Object, otherwise: str, regexes: dict[str, str]) -> str:
    for kind, value in wanted.items():
        if kind == "exact":
            return str(value)
        if kind == "prefix":
            return f"{value}z"
        if kind == "regex":
            return regexes.get(value, otherwise)
    return otherwise


CARRIER_SETS: list[tuple[Carrier, ...]] = [(carrier,) for carrier in Carrier] + [tuple(Carrier)]
