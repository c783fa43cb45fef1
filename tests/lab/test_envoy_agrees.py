"""
`luff.decide` says of any request what the real Envoy does with it, configured by `luff.translate`.

Many VirtualServices, each for a host of its own, are in one Envoy at once,
with a listener for each of several proxies. Each http entry is named by its
index, and the routes answer with their names.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from luff.decide import JOINED, Proxy, RequestFacts, decide
from luff.mesh_state import MeshState, Service
from luff.model import Delay, Fault, Object, Target
from luff.names import Stamp
from luff.patches import apply
from luff.routes import inject, withdrawal
from luff.scope import Scope
from luff.selection import select
from tests.lab.one_envoy import NOTHING, OneEnvoy, one_envoy
from tests.strategies import CARRIER_SETS, RUN, SCOPE, cases, requests, virtual_services

DRAWN, WRITTEN = 130, 130
REQUESTS = 3
"""For each object at each proxy; each is mutated once more."""
PROXIES = (
    Proxy({"app": "reviews"}, "shop"),
    Proxy({"app": "reviews", "v": "2"}, "shop"),
    Proxy({"app": "web"}, "shop"),
    Proxy({}, "other"),
    Proxy(namespace="shop", gateway="shop/gw"),
)
GATEWAY: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "gw", "namespace": "shop"},
    "spec": {"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]},
}
LEAF: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "leaf", "namespace": "shop"},
    "spec": {"http": [{"route": [{"destination": {"host": "ratings"}}]}]},
}
FORWARD: Object = {"route": [{"destination": {"host": "ratings"}}]}
KINDS = (
    "exact", "prefix", "regex", "present", "*", "ignoreUriCase", "headers", "withoutHeaders", "queryParams", "method",
    "authority", "scheme", "port", "sourceLabels", "sourceNamespace", "gateways", "uri",
)  # fmt: skip


def _object(name: str, http: list[Object]) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        "spec": {"hosts": [name], "http": http},
    }


@dataclass
class Trial:
    """This is one VirtualService with a host and a service of its own, and what is asked of it at each proxy."""

    object_: Object
    port: int
    asked: dict[int, list[RequestFacts]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.object_["metadata"]["name"])

    def authority(self, at: int, *, long: bool = False) -> str:
        """Return a host that leads here; at a gateway only the full one does."""
        proxy = PROXIES[at]
        if proxy.gateway != "mesh":
            return f"{self.name}.shop.svc.cluster.local"
        name = f"{self.name}.shop" if long or proxy.namespace != "shop" else self.name
        return f"{name}:{self.port}"

    def facts(self, at: int, request: RequestFacts) -> RequestFacts:
        """Return *request* as it can be sent here."""
        long = request.authority != "ratings"
        port = 80 if PROXIES[at].gateway != "mesh" else self.port
        return replace(request, authority=self.authority(at, long=long), port=port)


def _trial(object_: Object, index: int, port: int) -> Trial:
    """Return *object_* for a host of its own, each entry named by its index."""
    name = f"s{index}"
    made = copy.deepcopy(object_)
    made["metadata"]["name"] = name
    made["spec"]["hosts"] = [name]
    for at, route in enumerate(made["spec"]["http"]):
        route["name"] = f"e{at}"
        for match in route.get("match") or []:
            if isinstance(match, dict) and match.get("authority"):
                kind = next(iter(match["authority"]))
                match["authority"] = {kind: f"{name}:{port}" if kind == "exact" else f"{name}:"}
    return Trial(made, port)


def _drawn() -> list[Trial]:
    """Draw objects, with and without twins, and requests made for them."""
    trials: list[Trial] = []
    chance = random.Random(7)

    @settings(
        max_examples=DRAWN,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        twinned = data.draw(st.booleans())
        drawn = data.draw(cases()).after if twinned else data.draw(virtual_services())
        if not drawn["spec"].get("hosts"):
            return
        trial = _trial(drawn, len(trials), chance.choice([80, 8080]))
        for at in range(len(PROXIES)):
            found = [data.draw(requests(drawn)) for _ in range(REQUESTS)]
            found += [_mutated(request, chance) for request in found]
            found = [each for each in found if _can_be_sent(each)]
            if twinned:
                found += [_scoped(request, chance) for request in found[:2]]
            trial.asked[at] = [trial.facts(at, request) for request in found]
        trials.append(trial)

    draw()
    return trials


HEADERS = ("x-user", "cookie", "user-agent", "accept", "authorization", "origin", "cache-control", "X-Tier")
"""Names, some of which Envoy joins when they are repeated (what a gateway itself adds is not among them)."""
STRINGS: tuple[Object, ...] = (
    {"exact": "a"}, {"exact": "a,b"}, {"exact": "A"}, {"prefix": "a"}, {"prefix": "a,"}, {"regex": "a"},
    {"regex": "a|b"}, {"regex": "a.*"}, {"regex": ".*b"}, {"regex": "(?i)A"}, {"regex": ".*"}, {"regex": "b*"},
    {"regex": "*"}, {},
)  # fmt: skip
VALUES = ("a", "b", "A", "ab", "a,b", "a, b", "", "c")
URIS: tuple[Object, ...] = (
    {"exact": "/a"}, {"exact": "/A"}, {"exact": "/a/b"}, {"prefix": "/a"}, {"prefix": "/A/"}, {"prefix": "/"},
    {"regex": "/a"}, {"regex": "/(a|b)(/.*)?"}, {"regex": "(?i)/A/B"}, {"regex": ".*"}, {"regex": "/.*"}, {},
)  # fmt: skip
PATHS = ("/a", "/A", "/a/b", "/A/b", "/ab", "/b", "/b/", "/", "/a/", "/c")
QUERIES = ("", "", "?", "?q=a", "?q", "?q=", "?q=b&q=a", "?p=a&q=a,b", "?Q=a", "?q=%61", "?q=a&", "?q=a=b", "?&q=a")


def _written(chance: random.Random, index: int) -> Object:
    """Return an object with the kinds of match that are rare among what is drawn."""

    def wanted() -> Object:
        return dict(chance.choice(STRINGS))

    def match() -> Object:
        made: Object = {}
        if chance.random() < 0.5:
            made["uri"] = dict(chance.choice(URIS))
            made["ignoreUriCase"] = chance.random() < 0.4
        for key, share in (("headers", 0.4), ("withoutHeaders", 0.4)):
            if chance.random() < share:
                made[key] = {chance.choice(HEADERS): wanted() for _ in range(chance.choice((1, 1, 2)))}
        if chance.random() < 0.2:
            made["queryParams"] = {chance.choice("qp"): wanted()}
        for key, values in (
            ("method", ({"exact": "GET"}, {"prefix": "P"}, {"regex": "GET|PUT"}, {})),
            (
                "authority",
                ({"prefix": f"w{index}:"}, {"regex": f"w{index}\\.shop.*"}, {"exact": f"w{index}.shop:80"}, {}),
            ),
            ("scheme", ({"exact": "http"}, {"exact": "https"}, {"regex": "https?"})),
        ):
            if chance.random() < 0.15:
                made[key] = dict(chance.choice(values))
        if chance.random() < 0.1:
            made["headers"] = {**made.get("headers", {}), "host": {"prefix": f"w{index}"}}
        if chance.random() < 0.1:
            made["sourceLabels"] = {"app": chance.choice(("reviews", "web"))}
        if chance.random() < 0.1:
            made["sourceNamespace"] = chance.choice(("shop", "other"))
        if chance.random() < 0.1:
            made["port"] = chance.choice((80, 8080))
        if chance.random() < 0.1:
            made["gateways"] = [chance.choice(("mesh", "gw", "./gw", "shop/gw"))]
        return made

    def entry() -> Object:
        made = dict(chance.choice((FORWARD, FORWARD, {"redirect": {"uri": "/"}}, {"directResponse": {"status": 500}})))
        if chance.random() < 0.9:
            made["match"] = [match() for _ in range(chance.choice((1, 1, 2)))]
        return made

    spec: Object = {"http": [entry() for _ in range(chance.randint(1, 5))]}
    if chance.random() < 0.4:
        spec["gateways"] = ["mesh", "gw"]
    made = _object(f"w{index}", spec.pop("http"))
    made["spec"].update(spec)
    return made


def _asked(chance: random.Random) -> RequestFacts:
    headers = [
        (chance.choice([name, name.upper()]), chance.choice(VALUES))
        for name in HEADERS
        if chance.random() < 0.3
        for _ in range(chance.choice((1, 1, 2)))
    ]
    return RequestFacts(
        path=chance.choice(PATHS) + chance.choice(QUERIES),
        method=chance.choice(("GET", "GET", "POST", "PUT")),
        authority=chance.choice(("ratings", "elsewhere")),
        headers=tuple(headers),
    )


def _all() -> list[Trial]:
    trials, chance = _drawn(), random.Random(11)
    for index in range(WRITTEN):
        object_ = _written(chance, index)
        for at, route in enumerate(object_["spec"]["http"]):
            route["name"] = f"e{at}"
        trial = Trial(object_, chance.choice([80, 8080]))
        for at in range(len(PROXIES)):
            trial.asked[at] = [trial.facts(at, _asked(chance)) for _ in range(2 * REQUESTS)]
        trials.append(trial)
    return trials


def _can_be_sent(request: RequestFacts) -> bool:
    text = request.path + "".join(value for _, value in request.headers)
    return request.path.isascii() and not any(char in text for char in "\n\r\0") and " " not in request.path


def _mutated(request: RequestFacts, chance: random.Random) -> RequestFacts:
    """Return *request* changed a little: case, a repeated header, another value, a query, another path or method."""
    path, _, query = request.path.partition("?")
    headers = list(request.headers)
    match chance.randrange(9):
        case 0:
            path = path.swapcase()
        case 1:
            path = chance.choice([f"{path}x", path[:-1] or "/", f"{path}/", "/"])
        case 2:
            query = chance.choice(["q=gold", "q=v1&q=gold", "q", "p=a&q=b", "q=%61", "Q=a", "q=a&p=v1"])
        case 3 if headers:
            name, value = chance.choice(headers)
            headers.append((name.upper(), chance.choice(["gold", "v1", "b", value])))
        case 4 if headers:
            name, value = headers.pop(chance.randrange(len(headers)))
            headers += [(name, "none"), (name, value)]
        case 5 if headers:
            name, value = headers.pop(chance.randrange(len(headers)))
            headers.append((name, f"{value},{value}"))
        case 6 if headers:
            headers.pop()
        case 7:
            name = chance.choice(["x-user", "cookie", "x-tier", "baggage", "traceparent", "x-luff-run"])
            headers.append((name, chance.choice(["gold", "v1", "a", "", "GOLD"])))
        case _:
            return replace(request, method=chance.choice(["GET", "PUT", "POST", "DELETE"]))
    return replace(request, path=path + (f"?{query}" if query else ""), headers=tuple(headers))


def _scoped(request: RequestFacts, chance: random.Random) -> RequestFacts:
    carriers = chance.choice(CARRIER_SETS)
    scope = Scope(SCOPE.secret, SCOPE.decoy, carriers=carriers)
    kept = [(name, value) for name, value in request.headers if name.lower() not in ("baggage", "traceparent")]
    return replace(request, headers=(*kept, *scope.headers(chance.randrange(1000)).items()))


def _kinds(match: Any) -> Iterator[str]:
    """Yield what kinds of condition a match has."""
    for key, value in match.items():
        if key in KINDS and value not in (None, False):
            yield key
            wanted = list(value.values()) if key in ("headers", "withoutHeaders", "queryParams") else [value]
            for each in wanted:
                if isinstance(each, dict) and key != "sourceLabels":
                    yield "*" if each.get("regex") == "*" else next(iter(each), "present")


def _expected(trial: Trial, request: RequestFacts, at: int) -> str:
    taken = decide(trial.object_, request, PROXIES[at])
    return NOTHING if taken is None else f"e{taken}"


def _state(trials: Sequence[Trial], *more: Object) -> MeshState:
    return MeshState(
        services=tuple(Service(each.name, "shop", each.port) for each in trials),
        virtual_services=(*more, *(each.object_ for each in trials)),
        gateways=(GATEWAY,),
    )


def test_decide_agrees_with_envoy(tmp_path: Path) -> None:
    trials = _all()
    with one_envoy(tmp_path, PROXIES, _state(trials, LEAF)) as envoy:
        assert envoy.refused() == []
        _compare(envoy, trials)


def _compare(envoy: OneEnvoy, trials: Sequence[Trial]) -> None:
    hit: Counter[str] = Counter()
    wrong: list[str] = []
    asked = 0
    for at, proxy in enumerate(PROXIES):
        wanted = [(trial, request) for trial in trials for request in trial.asked[at]]
        answers = envoy.ask(at, [request for _, request in wanted])
        for (trial, request), answer in zip(wanted, answers, strict=True):
            asked += 1
            took = NOTHING if answer == "default" else answer.partition(".")[0]
            expected = _expected(trial, request, at)
            if took != expected:
                wrong.append(f"Envoy: {answer}, decide: {expected}\n{request}\n{proxy}\n{trial.object_['spec']}")
            if took == NOTHING:
                hit["nothing"] += 1
                continue
            route = trial.object_["spec"]["http"][int(took[1:])]
            hit["catch-all" if not route.get("match") else "matched"] += 1
            hit.update({kind for match in route.get("match") or [] for kind in _kinds(match)})
            hit.update({key for key in ("redirect", "directResponse", "delegate") if key in route})
            hit["repeated"] += len({name.lower() for name, _ in request.headers}) < len(request.headers)
            hit["later"] += took != "e0"
    assert not wrong, f"{len(wrong)} of {asked} differ; the first:\n" + "\n\n".join(wrong[:3])
    # Not vacuous: all of it was there, and was what took a request.
    assert asked > 5000
    for kind in (
        *KINDS,
        "nothing",
        "catch-all",
        "matched",
        "redirect",
        "directResponse",
        "delegate",
        "repeated",
        "later",
    ):
        assert hit[kind] >= 5, (kind, hit)


def test_repeated_headers_are_joined_or_tested_each(tmp_path: Path) -> None:
    names = [
        *sorted(JOINED),
        "cookie",
        "baggage",
        "traceparent",
        "tracestate",
        "x-luff-run",
        "end-user",
        "x-b3-traceid",
    ]
    trials = []
    for index, name in enumerate(names):
        http = [
            {"name": "e0", "match": [{"headers": {name: {"exact": "7,8"}}}], **FORWARD},
            {"name": "e1", "match": [{"headers": {name: {"exact": "8"}}}], **FORWARD},
            {"name": "e2", "match": [{"withoutHeaders": {name: {"regex": "b*"}}}], **FORWARD},
        ]
        trial = Trial(_object(f"s{index}", http), 80)
        values = [("7", "8"), ("8", ""), ("", ""), ("7,8",), ("8", "7"), ("",), ()]
        trial.asked[0] = [
            trial.facts(0, RequestFacts(authority="ratings", headers=tuple((name, value) for value in each)))
            for each in values
            # These get a value where a request has none.
            if any(each) or name not in ("x-forwarded-proto", "x-request-id")
        ]
        trials.append(trial)
    took: Counter[str] = Counter()
    with one_envoy(tmp_path, PROXIES[:1], _state(trials)) as envoy:
        for trial in trials:
            answers = envoy.ask(0, trial.asked[0])
            assert answers == [_expected(trial, request, 0) for request in trial.asked[0]], trial
            took.update(answers)
    assert set(took) == {"e0", "e1", "e2", NOTHING}


def test_each_carrier_alone_reaches_the_twin_and_nothing_does_after_the_withdrawal(tmp_path: Path) -> None:
    http = [
        {"name": "stop", "match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new"}},
        {
            "name": "jason",
            "match": [{"headers": {"end-user": {"exact": "jason"}}}, {"uri": {"prefix": "/j"}}],
            **FORWARD,
        },
        {"name": "elsewhere", "match": [{"uri": {"prefix": "/x"}}], "route": [{"destination": {"host": "reviews"}}]},
        {"name": "rest", **FORWARD},
    ]
    before = _object("s0", http)
    target = Target.model_validate({"host": "ratings"})
    injection = inject(
        select(before, target, namespace="shop"),
        Stamp(RUN, SCOPE, created_s=1_800_000_000, expires_s=1_800_000_600),
        Fault(delay=Delay(duration_s=5.0)),
    )
    assert injection.positions == (1, 4)
    after = apply(before, injection.operations)
    back = apply(after, withdrawal(after))
    assert back["spec"] == before["spec"]
    asked = [
        ("/old", (), "stop"),
        ("/", (("end-user", "jason"),), "jason"),
        ("/jam", (), "jason"),
        ("/xy", (), "elsewhere"),
        ("/", (), "rest"),
    ]
    objects = [before, after, back]
    trials = []
    for index, object_ in enumerate(objects):
        made = copy.deepcopy(object_)
        made["metadata"]["name"], made["spec"]["hosts"] = f"s{index}", [f"s{index}"]
        trials.append(Trial(made, 8080))
    twin = dict(zip(("jason", "rest"), injection.names, strict=True))
    with one_envoy(tmp_path, PROXIES[:1], _state(trials)) as envoy:
        for carriers in CARRIER_SETS:
            scope = Scope(SCOPE.secret, SCOPE.decoy, carriers=carriers)
            for number, (path, headers, name) in enumerate(asked):
                ours, control, none = (
                    RequestFacts(path, authority="ratings", headers=(*headers, *carried.items()))
                    for carried in (scope.headers(number), scope.control_headers(number), {})
                )
                for trial in trials:
                    for request in (ours, control, none):
                        in_scope = trial is trials[1] and request is ours
                        facts = trial.facts(0, request)
                        [took] = envoy.ask(0, [facts])
                        assert took == (twin.get(name, name) if in_scope else name), (carriers, facts)
                        decided = decide(trial.object_, facts, PROXIES[0])
                        assert decided is not None
                        assert trial.object_["spec"]["http"][decided]["name"] == took
