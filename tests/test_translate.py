"""VirtualServices, DestinationRules and Gateways become what pilot makes of them, and Envoy takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from luff.clusters import clusters
from luff.decide import Proxy
from luff.destination_policies import rule_for
from luff.mesh_state import Endpoint, MeshState, Service
from luff.translate import HTTP_PROXY, gateway_routes, inbound_routes, peer_routes, sidecar_routes
from tests.lab.one_envoy import one_envoy

Object = dict[str, Any]

V1, V2 = Endpoint("127.0.0.1", 1001, {"version": "v1"}), Endpoint("127.0.0.1", 1002, {"version": "v2"})
RATINGS = Service("ratings", "shop", 9080, (V1, V2))
REVIEWS = Service("reviews", "shop", 8080)
CLUSTER = "outbound|9080||ratings.shop.svc.cluster.local"
DEFAULT_RETRIES = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "host_selection_retry_max_attempts": "5",
}
TO: list[Object] = [{"destination": {"host": "ratings"}}]


def _made(kind: str, name: str, spec: Object, *, namespace: str = "shop", created: str = "") -> Object:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _service(*http: Object, name: str = "ratings", namespace: str = "shop", created: str = "", **spec: Any) -> Object:
    return _made(
        "VirtualService", name, {"hosts": ["ratings"], "http": list(http), **spec}, namespace=namespace, created=created
    )


def _rule(name: str, *, namespace: str = "shop", created: str = "", **spec: Any) -> Object:
    return _made("DestinationRule", name, {"host": "ratings", **spec}, namespace=namespace, created=created)


def _gateway(*hosts: str, name: str = "gw", namespace: str = "shop", **server: Any) -> Object:
    servers = [{"port": {"number": 80, "protocol": "HTTP"}, "hosts": list(hosts), **server}]
    return _made("Gateway", name, {"servers": servers}, namespace=namespace)


def _routes(*virtual_services: Object, proxy: Proxy | None = None, service: Service = RATINGS) -> list[Object]:
    state = MeshState((RATINGS, REVIEWS), virtual_services)
    configuration = sidecar_routes(state, proxy or Proxy({"app": "web"}, "shop"))[str(service.port)]
    [host] = [each for each in configuration["virtual_hosts"] if each["name"] == f"{service.host}:{service.port}"]
    found: list[Object] = host["routes"]
    return found


def _route(**http: Any) -> Object:
    """Return the one route that an http entry becomes."""
    [found] = _routes(
        _service({"route": TO, **http} if "redirect" not in http and "directResponse" not in http else http)
    )
    return found


def _action(**http: Any) -> Object:
    found: Object = _route(**http)["route"]
    return found


def _cluster(name: str, *rules: Object, namespace: str = "shop") -> Object:
    [found] = [each for each in clusters(MeshState((RATINGS,), (), rules), namespace) if each["name"] == name]
    return found


def _pool(size: int) -> Object:
    return {"connectionPool": {"tcp": {"maxConnections": size}}}


def _connections(cluster: Object) -> Any:
    return cluster["circuit_breakers"]["thresholds"][0]["max_connections"]


# Names, hosts and ports.


def test_names_of_configurations_hosts_and_routes() -> None:
    made = sidecar_routes(MeshState((RATINGS, REVIEWS)), Proxy({}, "shop"))
    assert set(made) == {"8080", "9080", HTTP_PROXY}
    host, block = made["9080"]["virtual_hosts"]
    assert host["name"] == "ratings.shop.svc.cluster.local:9080"
    assert host["domains"] == ["ratings.shop.svc.cluster.local", "ratings", "ratings.shop", "ratings.shop.svc"]
    assert block["name"] == "block_all"
    assert block["routes"][0]["direct_response"] == {"status": 502}
    assert made["9080"]["ignore_port_in_host_matching"] is True
    assert made["9080"]["validate_clusters"] is False
    [route] = host["routes"]
    assert route["name"] == "default"
    assert route["route"]["cluster"] == CLUSTER
    assert route["route"]["timeout"] == "0s"
    # From another namespace the bare name leads nowhere.
    other = sidecar_routes(MeshState((RATINGS,)), Proxy({}, "other"))["9080"]["virtual_hosts"][0]
    assert "ratings" not in other["domains"]
    peer = peer_routes(made["9080"], RATINGS)
    assert peer["name"] == "ratings.shop.svc.cluster.local:9080"
    assert peer["virtual_hosts"] == made["9080"]["virtual_hosts"]


def test_the_way_in() -> None:
    made = inbound_routes(9080)
    [host] = made["virtual_hosts"]
    assert (made["name"], host["name"], host["domains"]) == ("inbound|9080||", "inbound|http|9080", ["*"])
    action = host["routes"][0]["route"]
    assert action["cluster"] == "inbound|9080||"
    assert action["retry_policy"] == {"retry_on": "reset-before-request", "num_retries": 2}


@pytest.mark.parametrize(
    ("entry", "match", "expected"),
    [("e", "m", "e.m"), ("e", None, "e"), (None, "m", ".m"), (None, None, None)],
)
def test_route_names(entry: str | None, match: str | None, expected: str | None) -> None:
    http: Object = {"match": [{"name": match} if match else {}]}
    route = _route(**http, **({"name": entry} if entry else {}))
    assert route.get("name") == expected
    where = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/ratings"
    assert route["metadata"] == {"filter_metadata": {"istio": {"config": where}}}


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ({"host": "ratings"}, CLUSTER),
        ({"host": "ratings", "subset": "v1"}, "outbound|9080|v1|ratings.shop.svc.cluster.local"),
        ({"host": "ratings", "port": {"number": 1}}, "outbound|1||ratings.shop.svc.cluster.local"),
        # The listener's, whatever the service that is led to listens on.
        ({"host": "reviews"}, "outbound|9080||reviews.shop.svc.cluster.local"),
        ({"host": "elsewhere"}, "outbound|9080||elsewhere.shop.svc.cluster.local"),
        ({"host": "api.example.com"}, "outbound|9080||api.example.com"),
    ],
)
def test_where_a_destination_leads(destination: Object, expected: str) -> None:
    assert _action(route=[{"destination": destination}])["cluster"] == expected


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ({"host": "reviews"}, "outbound|8080||reviews.shop.svc.cluster.local"),
        ({"host": "reviews", "port": {"number": 1}}, "outbound|1||reviews.shop.svc.cluster.local"),
        ({"host": "both"}, "outbound|80||both.shop.svc.cluster.local"),
        ({"host": "elsewhere"}, "outbound|80||elsewhere.shop.svc.cluster.local"),
    ],
)
def test_where_a_destination_leads_from_a_gateway_that_asks_its_service(destination: Object, expected: str) -> None:
    both = (Service("both", "shop", 1), Service("both", "shop", 2))
    here = _service({"route": [{"destination": destination}]}, hosts=["a.com"], gateways=["gw"])

    made = gateway_routes(MeshState((REVIEWS, *both), (here,), (), (_gateway("a.com"),)), "shop")

    assert made["virtual_hosts"][0]["routes"][0]["route"]["cluster"] == expected


# Matches.


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, {"prefix": "/"}),
        ({"uri": {"exact": "/a"}}, {"path": "/a"}),
        ({"uri": {"prefix": "/a"}}, {"prefix": "/a"}),
        ({"uri": {"prefix": ""}}, {"prefix": ""}),
        ({"uri": {}}, {"prefix": "/"}),
        ({"uri": {"regex": "/a"}}, {"safe_regex": {"regex": "/a"}}),
        ({"uri": {"exact": "/a"}, "ignoreUriCase": True}, {"path": "/a", "case_sensitive": False}),
        ({"uri": {"regex": "/a"}, "ignoreUriCase": True}, {"safe_regex": {"regex": "/a"}}),
        (
            {"headers": {"b": {"exact": "1"}, "a": {"prefix": "2"}, "c": {"regex": "3"}}},
            {
                "prefix": "/",
                "headers": [
                    {"name": "a", "string_match": {"prefix": "2"}},
                    {"name": "b", "string_match": {"exact": "1"}},
                    {"name": "c", "string_match": {"safe_regex": {"regex": "3"}}},
                ],
            },
        ),
        (
            {"headers": {"a": {}}, "withoutHeaders": {"b": {"regex": "*"}, "c": {"exact": "1"}}},
            {
                "prefix": "/",
                "headers": [
                    {"name": "a", "present_match": True},
                    {"name": "b", "present_match": True, "invert_match": True},
                    {
                        "name": "c",
                        "string_match": {"exact": "1"},
                        "invert_match": True,
                        "treat_missing_header_as_empty": True,
                    },
                ],
            },
        ),
        (
            {"method": {"exact": "GET"}, "authority": {"prefix": "a"}, "scheme": {}},
            {
                "prefix": "/",
                "headers": [
                    {"name": ":method", "string_match": {"exact": "GET"}},
                    {"name": ":authority", "string_match": {"prefix": "a"}},
                    {"name": ":scheme", "present_match": True},
                ],
            },
        ),
        (
            {"queryParams": {"b": {"exact": "1"}, "a": {}}},
            {
                "prefix": "/",
                "query_parameters": [
                    {"name": "a", "present_match": True},
                    {"name": "b", "string_match": {"exact": "1"}},
                ],
            },
        ),
    ],
)
def test_matches(match: Object, expected: Object) -> None:
    assert _route(match=[match])["match"] == expected


@pytest.mark.parametrize(
    ("match", "stops"),
    [
        (None, True), ({}, True), ({"uri": {"prefix": "/"}}, True), ({"uri": {"regex": ".*"}}, True),
        ({"uri": {"prefix": "/a"}}, False), ({"uri": {"regex": "/.*"}}, False), ({"headers": {"a": {}}}, False),
        ({"withoutHeaders": {"a": {"exact": "1"}}}, False), ({"queryParams": {"a": {}}}, False), ({"method": {}}, False),
    ],
)  # fmt: skip
def test_nothing_comes_after_a_catch_all(match: Object | None, stops: bool) -> None:
    first = {"name": "a", "route": TO, **({} if match is None else {"match": [match, {"uri": {"exact": "/second"}}]})}
    found = _routes(_service(first, {"name": "b", "route": TO}, {"name": "c", "route": TO}))
    assert [route["name"] for route in found] == (["a"] if stops else ["a", "a", "b"])


@pytest.mark.parametrize(
    ("match", "generated"),
    [
        ({"port": 9080}, True), ({"port": 80}, False),
        ({"sourceLabels": {"app": "web"}}, True), ({"sourceLabels": {"app": "web", "v": "1"}}, False),
        ({"sourceNamespace": "shop"}, True), ({"sourceNamespace": "other"}, False),
        ({"gateways": ["mesh"]}, True), ({"gateways": ["gw"]}, False), ({"gateways": ["gw", "mesh"]}, True),
        # Where gateways are named, labels and namespace are not looked at.
        ({"gateways": ["mesh"], "sourceLabels": {"app": "none"}, "sourceNamespace": "none"}, True),
    ],
)  # fmt: skip
def test_what_is_decided_when_the_configuration_is_made(match: Object, generated: bool) -> None:
    found = _routes(_service({"name": "a", "match": [match], "route": TO}, {"name": "b", "route": TO}))
    assert [route["name"] for route in found] == (["a"] if generated and "uri" not in match else ["b"])
    # With nothing generated the service is as without it.
    [only] = _routes(_service({"name": "a", "match": [match], "route": TO}))
    assert only["name"] == ("a" if generated else "default")


# Which VirtualService.


def test_who_owns_a_host() -> None:
    def owner(*virtual_services: Object, namespace: str = "shop") -> str:
        [route] = _routes(*virtual_services, proxy=Proxy({}, namespace))
        return str(route["name"])

    full: Object = {"hosts": ["ratings.shop.svc.cluster.local"]}
    old = _service({"name": "old", "route": TO}, name="z", created="2026-01-01T00:00:00Z")
    new = _service({"name": "new", "route": TO}, name="a", created="2026-01-02T00:00:00Z")
    assert owner(new, old) == owner(old, new) == "old"
    same = _service({"name": "same", "route": TO}, name="a", created="2026-01-01T00:00:00Z")
    assert owner(old, same) == "same"

    private = _service({"name": "private", "route": TO}, name="p", created="2026-02-01T00:00:00Z", exportTo=["."])
    assert owner(old, private) == "private"
    assert owner(old, private, namespace="other") == "old"
    exported = _service(
        {"name": "exported", "route": TO}, name="e", namespace="third", created="2026-03-01T00:00:00Z",
        exportTo=["shop"], **full,
    )  # fmt: skip
    assert owner(old, exported) == "exported"
    assert owner(old, exported, private) == "private"
    assert owner(old, exported, namespace="other") == "old"

    wide = _service({"name": "wide", "route": TO}, name="w", created="2025-01-01T00:00:00Z", hosts=["*.local"])
    wider = _service(
        {"name": "wider", "route": TO}, name="v", created="2024-01-01T00:00:00Z", hosts=["*.cluster.local"]
    )
    assert owner(wide, old) == "old"
    assert owner(wide, wider) == "wider"
    assert owner(_service({"name": "at-gateway", "route": TO}, gateways=["gw"])) == "default"
    assert owner(_service({"name": "both", "route": TO}, gateways=["gw", "mesh"])) == "both"


def test_a_host_is_the_next_ones_where_the_first_has_nothing_to_say_of_http() -> None:
    tcp = _service(created="2020-01-01T00:00:00Z", name="tcp")
    tcp["spec"]["tcp"] = [{"route": TO}]

    found = _routes(tcp, _service({"name": "http", "route": TO}))

    assert [route["name"] for route in found] == ["http"]


def test_one_that_makes_no_route_for_a_proxy_leaves_the_host_to_the_next() -> None:
    def owners(*virtual_services: Object) -> list[str]:
        return [str(route.get("name")) for route in _routes(*virtual_services, proxy=Proxy({"app": "web"}, "shop"))]

    mine = _service({"name": "mine", "route": TO}, name="m", created="2026-01-02T00:00:00Z")
    wide = _service({"name": "wide", "route": TO}, name="w", created="2026-01-02T00:00:00Z", hosts=["*.local"])
    for nothing in (
        {"tcp": [{"route": TO}], "http": []},
        {"http": [{"route": TO, "match": [{"port": 9000}]}]},
        {"http": [{"route": TO, "match": [{"sourceLabels": {"app": "other"}}]}]},
    ):
        older = _made("VirtualService", "o", {"hosts": ["ratings"], **nothing}, created="2020-01-01T00:00:00Z")
        assert owners(older, mine) == ["mine"]
        # A wildcard is looked at only where nobody names the host, and then one alone.
        assert owners(older, wide) == owners(older) == ["default"]
        older["spec"]["hosts"] = ["*.local"]
        assert owners(older, wide) == ["default"]
        assert owners(older, mine) == ["mine"]
        older["spec"]["hosts"] = ["*.shop.svc.cluster.local"]
        assert owners(older, wide) == ["default"]


def test_a_gateway_serves_what_is_bound_to_it_with_catch_alls_last() -> None:
    gateway = _gateway("*.com")
    bound: Object = {"hosts": ["a.com"], "gateways": ["gw"]}
    first = _service({"name": "all", "route": TO}, name="a", created="2026-01-01T00:00:00Z", **bound)
    second = _service(
        {"name": "some", "match": [{"uri": {"exact": "/a"}}], "route": TO}, name="b", created="2026-01-02T00:00:00Z",
        **bound,
    )  # fmt: skip
    mesh = _service({"name": "mesh", "route": TO}, name="c", hosts=["a.com"])
    foreign = _service({"name": "foreign", "route": TO}, name="d", hosts=["a.org"], gateways=["gw"])
    state = MeshState((RATINGS,), (first, second, mesh, foreign), (), (gateway,))
    made = gateway_routes(state, "shop")
    [host] = made["virtual_hosts"]
    assert (made["name"], host["name"], host["domains"]) == ("http.80", "a.com:80", ["a.com"])
    assert [route["name"] for route in host["routes"]] == ["some", "all"]


@pytest.mark.parametrize(
    ("served", "claimed", "expected"),
    [
        (["*"], ["a.com"], ["a.com"]),
        (["a.com"], ["*"], ["a.com"]),
        (["a.com", "b.com"], ["*.com"], ["a.com", "b.com"]),
        (["*.com"], ["*.a.com"], ["*.a.com"]),
        (["*.a.com"], ["*.com"], ["*.a.com"]),
        (["A.com"], ["a.COM"], ["a.com"]),
        (["a.org"], ["*.com"], []),
        (["shop/*", "*/b.com"], ["a.com", "b.com"], ["a.com", "b.com"]),
        (["other/*"], ["a.com"], []),
        (["other/*", "other/b.com", "a.com"], ["*"], ["a.com"]),
    ],
)
def test_a_gateway_serves_the_narrower_host_to_the_namespaces_that_it_is_for(
    served: list[str], claimed: list[str], expected: list[str]
) -> None:
    here = _service({"route": TO}, hosts=claimed, gateways=["other/gw"])
    gateway = _gateway(*served, namespace="other")

    made = gateway_routes(MeshState((RATINGS,), (here,), (), (gateway,)), "shop")

    assert [host["domains"] for host in made["virtual_hosts"]] == [[host] for host in expected]


def test_a_dot_before_a_gateways_host_is_its_own_namespace() -> None:
    here = _service({"route": TO}, hosts=["a.com"], gateways=["other/gw"])
    there = _service({"route": TO}, hosts=["b.com"], gateways=["gw"], namespace="other")

    made = gateway_routes(MeshState((), (here, there), (), (_gateway("./*", namespace="other"),)), "shop")

    assert [host["domains"] for host in made["virtual_hosts"]] == [["b.com"]]


def test_two_that_share_a_host_at_a_gateway_share_their_routes_though_they_spell_it_otherwise() -> None:
    some: Object = {"match": [{"uri": {"exact": "/a"}}], "route": TO}
    exact = _service({"name": "all", "route": TO}, name="a", created="2026-01-01T00:00:00Z", hosts=["a.com"], gateways=["gw"])  # fmt: skip
    wide = _service({"name": "some", **some}, name="b", created="2026-01-02T00:00:00Z", hosts=["*"], gateways=["gw"])

    [host] = gateway_routes(MeshState((), (exact, wide), (), (_gateway("a.com"),)), "shop")["virtual_hosts"]

    assert [route["name"] for route in host["routes"]] == ["some", "all"]


def test_a_server_that_redirects_to_https_does_so_with_and_without_routes() -> None:
    here = _service({"route": TO}, hosts=["a.com"], gateways=["gw"])
    redirecting = _gateway("a.com", "b.com", tls={"httpsRedirect": True})
    plain = _gateway("c.com", name="plain")
    there = _service({"route": TO}, name="c", hosts=["c.com"], gateways=["plain"])

    made = gateway_routes(MeshState((), (here, there), (), (redirecting, plain)), "shop")["virtual_hosts"]

    assert {host["domains"][0]: (host.get("require_tls"), len(host["routes"])) for host in made} == {
        "a.com": ("ALL", 1), "b.com": ("ALL", 0), "c.com": (None, 1),
    }  # fmt: skip


def test_every_way_out_has_room_for_the_longest_answer_that_istio_lets_through() -> None:
    made = sidecar_routes(MeshState((RATINGS,)), Proxy({}, "shop"))

    for configuration in (*made.values(), gateway_routes(MeshState(), "shop")):
        assert configuration["max_direct_response_body_size_bytes"] == 1 << 20


# Actions.


@pytest.mark.parametrize(
    ("retries", "expected"),
    [
        (None, DEFAULT_RETRIES),
        ({"attempts": 0}, None),
        ({"attempts": 3}, {**DEFAULT_RETRIES, "num_retries": 3}),
        ({"attempts": 1, "retryOn": "5xx, reset"}, {**DEFAULT_RETRIES, "num_retries": 1, "retry_on": "5xx,reset"}),
        (
            {"attempts": 1, "retryOn": "5xx,503,504"},
            {
                **DEFAULT_RETRIES,
                "num_retries": 1,
                "retry_on": "5xx,retriable-status-codes",
                "retriable_status_codes": [503, 504],
            },
        ),
        (
            {"attempts": 1, "retryOn": "retriable-status-codes,503"},
            {
                **DEFAULT_RETRIES,
                "num_retries": 1,
                "retry_on": "retriable-status-codes",
                "retriable_status_codes": [503],
            },
        ),
        (
            {"attempts": 1, "retryOn": "+503,0504"},
            {
                **DEFAULT_RETRIES,
                "num_retries": 1,
                "retry_on": "retriable-status-codes",
                "retriable_status_codes": [503, 504],
            },
        ),
        (
            {"attempts": 1, "perTryTimeout": "1.5s", "backoff": "25ms"},
            {
                **DEFAULT_RETRIES,
                "num_retries": 1,
                "per_try_timeout": "1.5s",
                "retry_back_off": {"base_interval": "0.025s"},
            },
        ),
    ],
)
def test_retries(retries: Object | None, expected: Object | None) -> None:
    policy = _action(**({} if retries is None else {"retries": retries})).get("retry_policy")
    if policy is not None:
        [predicate] = policy.pop("retry_host_predicate")
        assert predicate["name"] == "envoy.retry_host_predicates.previous_hosts"
    assert policy == expected
    chosen = _action(retries={"attempts": 1, "retryIgnorePreviousHosts": False})
    assert "retry_host_predicate" not in chosen["retry_policy"]


@pytest.mark.parametrize(
    ("timeout", "expected"), [(None, "0s"), ("5s", "5s"), ("1m30s", "90s"), ("250ms", "0.25s"), ("0s", "0s")]
)
def test_timeouts(timeout: str | None, expected: str) -> None:
    assert _action(**({"timeout": timeout} if timeout else {}))["timeout"] == expected


def test_weights_and_headers_of_one_destination() -> None:
    def to(subset: str, **more: Any) -> Object:
        return {"destination": {"host": "ratings", "subset": subset}, **more}

    split = _action(route=[to("v1", weight=90), to("v2", weight=10), to("v3", weight=0), to("v4")])
    assert [(each["name"].split("|")[2], each["weight"]) for each in split["weighted_clusters"]["clusters"]] == [
        ("v1", 90),
        ("v2", 10),
    ]
    assert "cluster" not in split
    # A single one takes everything, whatever its weight.
    assert _action(route=[to("v1", weight=0)])["cluster"] == "outbound|9080|v1|ratings.shop.svc.cluster.local"


def test_headers_of_the_only_destination_are_the_routes_own_and_come_last() -> None:
    headers = {"request": {"set": {"a": "1", "Host": "inner"}, "remove": ["b"]}, "response": {"add": {"c": "2"}}}
    only = [{"destination": {"host": "ratings"}, "headers": headers}]

    route = _route(route=only, headers={"request": {"set": {"d": "3"}}, "response": {"remove": ["e"]}})

    assert route["route"]["cluster"] == CLUSTER
    assert route["route"]["host_rewrite_literal"] == "inner"
    assert [each["header"]["key"] for each in route["request_headers_to_add"]] == ["d", "a"]
    assert route["request_headers_to_remove"] == ["b"]
    assert [each["header"]["key"] for each in route["response_headers_to_add"]] == ["c"]
    assert route["response_headers_to_remove"] == ["e"]
    outer = _route(route=only, headers={"request": {"set": {":authority": "outer"}}})
    assert outer["route"]["host_rewrite_literal"] == "outer"


@pytest.mark.parametrize(("percent", "numerator"), [(0.57, 5699), (0.00015, 1), (100, 1_000_000), (0, 0), (0.1, 1000)])
def test_percentages_of_a_fault_are_cut_off(percent: float, numerator: int) -> None:
    share = {"value": percent}
    fault = _route(
        fault={"delay": {"fixedDelay": "2s", "percentage": share}, "abort": {"httpStatus": 418, "percentage": share}}
    )["typed_per_filter_config"]["envoy.filters.http.fault"]
    expected = {"numerator": numerator, "denominator": "MILLION"}
    assert fault["delay"] == {"fixed_delay": "2s", "percentage": expected}
    assert fault["abort"] == {"http_status": 418, "percentage": expected}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        # Nothing is delayed or aborted without a percentage.
        (
            {"delay": {"fixedDelay": "2s"}},
            {"delay": {"fixed_delay": "2s", "percentage": {"numerator": 0, "denominator": "MILLION"}}},
        ),
        (
            {"delay": {"fixedDelay": "2s", "percent": 5}},
            {"delay": {"fixed_delay": "2s", "percentage": {"numerator": 50_000, "denominator": "MILLION"}}},
        ),
        ({"abort": {"httpStatus": 503}}, {"abort": {"http_status": 503}}),
        ({"abort": {"grpcStatus": "UNAVAILABLE"}}, {"abort": {"grpc_status": 14}}),
        ({"abort": {"percentage": {"value": 1}}}, None),
        ({}, None),
    ],
)
def test_faults(fault: Object, expected: Object | None) -> None:
    found = _route(fault=fault).get("typed_per_filter_config", {}).get("envoy.filters.http.fault")
    if found is not None:
        assert found.pop("@type") == "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
    assert found == expected


def test_header_operations() -> None:
    route = _route(
        headers={
            "request": {"set": {"b": "1", "authority": "x"}, "add": {"a": "2"}, "remove": ["c"]},
            "response": {"add": {"Host": "3"}, "remove": ["d"]},
        }
    )
    # Pilot writes what is set before what is added.
    assert [(each["header"]["key"], each["append_action"]) for each in route["request_headers_to_add"]] == [
        ("authority", "OVERWRITE_IF_EXISTS_OR_ADD"),
        ("b", "OVERWRITE_IF_EXISTS_OR_ADD"),
        ("a", "APPEND_IF_EXISTS_OR_ADD"),
    ]
    assert route["request_headers_to_remove"] == ["c"]
    assert [each["header"]["key"] for each in route["response_headers_to_add"]] == ["Host"]
    assert route["response_headers_to_remove"] == ["d"]


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ({"rewrite": {"uri": "/b"}}, {"prefix_rewrite": "/b"}),
        ({"rewrite": {"authority": "b"}}, {"host_rewrite_literal": "b"}),
        (
            {"rewrite": {"uriRegexRewrite": {"match": "^/a(.*)", "rewrite": "/b\\1"}}},
            {"regex_rewrite": {"pattern": {"regex": "^/a(.*)"}, "substitution": "/b\\1"}},
        ),
        ({"headers": {"request": {"set": {":authority": "h"}}}}, {"host_rewrite_literal": "h"}),
        (
            {"rewrite": {"authority": "b"}, "headers": {"request": {"set": {"host": "h"}}}},
            {"host_rewrite_literal": "b"},
        ),
    ],
)
def test_rewrites(http: Object, expected: Object) -> None:
    action = _action(**http)
    assert {key: value for key, value in action.items() if "rewrite" in key} == expected
    assert not any(
        each["header"]["key"] in ("host", ":authority") for each in _route(**http).get("request_headers_to_add", [])
    )


@pytest.mark.parametrize(
    ("http", "shares"),
    [
        ({"mirror": {"host": "reviews"}}, [1_000_000]),
        ({"mirror": {"host": "reviews"}, "mirrorPercentage": {"value": 0.5}}, [5000]),
        ({"mirror": {"host": "reviews"}, "mirrorPercent": 5}, [50_000]),
        ({"mirror": {"host": "reviews"}, "mirrorPercent": None}, [1_000_000]),
        ({"mirror": {"host": "reviews"}, "mirrorPercentage": {"value": 0}}, []),
        ({"mirrors": [{"destination": {"host": "reviews"}, "percentage": {"value": 1}}] * 2}, [10_000, 10_000]),
    ],
)
def test_mirrors(http: Object, shares: list[int]) -> None:
    found = _action(**http).get("request_mirror_policies", [])
    assert [each["runtime_fraction"]["default_value"]["numerator"] for each in found] == shares
    assert all(each["trace_sampled"] is False for each in found)
    assert all(each["cluster"] == "outbound|9080||reviews.shop.svc.cluster.local" for each in found)


def test_cors() -> None:
    policy = {
        "allowOrigins": [{"exact": "https://a"}, {"regex": ".*"}], "allowMethods": ["GET", "PUT"], "maxAge": "24h",
        "allowCredentials": False, "unmatchedPreflights": "IGNORE",
    }  # fmt: skip
    found = _route(corsPolicy=policy)["typed_per_filter_config"]["envoy.filters.http.cors"]
    del found["@type"]
    assert found == {
        "allow_origin_string_match": [{"exact": "https://a"}, {"safe_regex": {"regex": ".*"}}],
        "allow_methods": "GET,PUT",
        "max_age": "86400",
        "allow_credentials": False,
        "forward_not_matching_preflights": False,
    }


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ({"uri": "/b"}, {"path_redirect": "/b", "response_code": "MOVED_PERMANENTLY"}),
        ({"authority": "b", "redirectCode": 302}, {"host_redirect": "b", "response_code": "FOUND"}),
        ({"uri": "/b", "redirectCode": 303}, {"path_redirect": "/b", "response_code": "SEE_OTHER"}),
        ({"uri": "/b", "redirectCode": 307}, {"path_redirect": "/b", "response_code": "TEMPORARY_REDIRECT"}),
        ({"uri": "/b", "redirectCode": 308}, {"path_redirect": "/b", "response_code": "PERMANENT_REDIRECT"}),
        (
            {"scheme": "https", "port": 8443},
            {"scheme_redirect": "https", "port_redirect": 8443, "response_code": "MOVED_PERMANENTLY"},
        ),
        (
            {"derivePort": "FROM_REQUEST_PORT", "uri": "/"},
            {"port_redirect": 9080, "path_redirect": "/", "response_code": "MOVED_PERMANENTLY"},
        ),
        ({"prefixRewrite": "/b"}, {"prefix_rewrite": "/b", "response_code": "MOVED_PERMANENTLY"}),
        ({"prefixRewrite": "/b", "uri": ""}, {"prefix_rewrite": "/b", "response_code": "MOVED_PERMANENTLY"}),
        ({"prefixRewrite": "", "uri": "/b"}, {"path_redirect": "/b", "response_code": "MOVED_PERMANENTLY"}),
        ({"port": 80}, {"response_code": "MOVED_PERMANENTLY"}),
        ({"port": 443}, {"port_redirect": 443, "response_code": "MOVED_PERMANENTLY"}),
        ({"port": 443, "scheme": "https"}, {"scheme_redirect": "https", "response_code": "MOVED_PERMANENTLY"}),
        (
            {"port": 80, "scheme": "https"},
            {"port_redirect": 80, "scheme_redirect": "https", "response_code": "MOVED_PERMANENTLY"},
        ),
        ({"derivePort": "FROM_PROTOCOL_DEFAULT"}, {"response_code": "MOVED_PERMANENTLY"}),
    ],
)
def test_redirects(redirect: Object, expected: Object) -> None:
    route = _route(redirect=redirect)
    assert route["redirect"] == expected
    assert "route" not in route


def test_a_redirect_with_a_code_that_pilot_does_not_know_has_no_action() -> None:
    route = _route(redirect={"uri": "/b", "redirectCode": 304})

    assert not {"route", "redirect", "direct_response"} & route.keys()


def test_direct_responses() -> None:
    assert _route(directResponse={"status": 503})["direct_response"] == {"status": 503}
    found = _route(directResponse={"status": 200, "body": {"string": "да"}})["direct_response"]
    assert found == {"status": 200, "body": {"inline_string": "да"}}


# Clusters.


def test_a_cluster_without_a_rule() -> None:
    made = _cluster(CLUSTER)
    assert (made["lb_policy"], made["connect_timeout"]) == ("LEAST_REQUEST", "10s")
    [thresholds] = made["circuit_breakers"]["thresholds"]
    assert {thresholds[key] for key in ("max_connections", "max_pending_requests", "max_requests", "max_retries")} == {
        4294967295
    }
    assert "outlier_detection" not in made
    assert len(made["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2


def test_subsets_have_the_endpoints_with_their_labels_and_a_policy_of_their_own() -> None:
    rule = _rule(
        "r",
        trafficPolicy={**_pool(5), "loadBalancer": {"simple": "RANDOM"}},
        subsets=[
            {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": _pool(7)},
            {"name": "none", "labels": {"version": "v9"}},
        ],
    )
    v1 = _cluster("outbound|9080|v1|ratings.shop.svc.cluster.local", rule)
    [endpoint] = v1["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == 1001
    assert (_connections(v1), v1["lb_policy"]) == (7, "RANDOM")
    none = _cluster("outbound|9080|none|ratings.shop.svc.cluster.local", rule)
    assert none["load_assignment"]["endpoints"][0]["lb_endpoints"] == []
    assert _connections(none) == _connections(_cluster(CLUSTER, rule)) == 5


def test_settings_of_a_port_replace_all_others() -> None:
    at_port = {"portLevelSettings": [{"port": {"number": 9080}, "loadBalancer": {"simple": "RANDOM"}}]}
    rule = _rule("r", trafficPolicy={**_pool(5), **at_port}, subsets=[{"name": "s", "trafficPolicy": _pool(7)}])
    made = _cluster(CLUSTER, rule)
    assert (_connections(made), made["lb_policy"]) == (4294967295, "RANDOM")
    subset = _cluster("outbound|9080|s|ratings.shop.svc.cluster.local", rule)
    assert (_connections(subset), subset["lb_policy"]) == (7, "RANDOM")


def test_settings_of_a_subsets_port_inherit_nothing_that_they_could_have_said() -> None:
    at_port = {"portLevelSettings": [{"port": {"number": 9080}, "loadBalancer": {"simple": "RANDOM"}}]}
    common = {**_pool(5), "outlierDetection": {}, "tls": {"mode": "DISABLE"}, "proxyProtocol": {"version": "V1"}}
    rule = _rule("r", trafficPolicy=common, subsets=[{"name": "s", "trafficPolicy": at_port}])

    found = rule_for("ratings.shop.svc.cluster.local", [rule], caller="shop", home="shop")

    assert found.policy(9080, "s") == {"loadBalancer": {"simple": "RANDOM"}, "proxyProtocol": {"version": "V1"}}
    assert found.policy(9090, "s") == common


def test_which_rule_counts() -> None:
    def size(*rules: Object, namespace: str = "client") -> Any:
        return _connections(_cluster(CLUSTER, *rules, namespace=namespace))

    full = "ratings.shop.svc.cluster.local"
    own = _rule("own", namespace="client", host=full, trafficPolicy=_pool(1), exportTo=["."])
    for_others = _rule("own", namespace="client", host=full, trafficPolicy=_pool(7), exportTo=["elsewhere"])
    service = _rule("service", trafficPolicy=_pool(2))
    root = _rule("root", namespace="istio-system", host="*.local", trafficPolicy=_pool(3))
    foreign = _rule("foreign", namespace="foreign", host=full, trafficPolicy=_pool(4))
    assert size(foreign, root, service, own) == 1
    assert size(foreign, root, service, for_others) == 2
    assert size(foreign, root, service) == 2
    assert size(foreign, root) == 3
    assert size(foreign) == 4294967295
    private = _rule("service", trafficPolicy=_pool(2), exportTo=["."])
    assert size(root, private) == 3
    assert size(root, private, namespace="shop") == 2
    wide = _rule("a-wide", host="*.shop.svc.cluster.local", trafficPolicy=_pool(6))
    assert size(wide, service) == 2
    assert size(wide) == 6
    # The closest host is found first, and may then turn out to be for others.
    hidden = _rule("b", trafficPolicy=_pool(8), exportTo=["elsewhere", "."])
    assert size(wide, hidden) == 4294967295
    assert size(wide, hidden, root) == 3


def test_a_caller_in_the_meshs_root_goes_by_what_is_private_there_and_else_by_the_services_own_rule() -> None:
    def size(*rules: Object) -> Any:
        return _connections(_cluster(CLUSTER, *rules, namespace="istio-system"))

    private = _rule("private", namespace="istio-system", host="*.local", trafficPolicy=_pool(1), exportTo=["."])
    service = _rule("service", trafficPolicy=_pool(2))
    public = _rule("public", namespace="istio-system", host="*.local", trafficPolicy=_pool(3))

    assert size(public, service, private) == 1
    assert size(public, service) == 2
    assert size(public) == 3


@pytest.mark.parametrize(
    ("older", "younger", "caller", "expected"),
    [
        # to whom each is exported, and what the caller sees: the pool and the subsets
        ([], [], "client", (5, {"v1", "v2"})),
        (["*"], ["*"], "client", (5, {"v1", "v2"})),
        (["client", "a"], ["a", "client"], "client", (5, {"v1", "v2"})),
        # Apart, and of those that a caller sees the younger counts.
        ([], ["*"], "client", (7, {"v2"})),
        (["*"], ["."], "client", (5, {"v1"})),
        (["*"], ["."], "shop", (7, {"v2"})),
        (["a"], ["client"], "client", (7, {"v2"})),
        (["a"], ["client"], "a", (5, {"v1"})),
        # The wider one is added to the narrower one, and is for nobody else.
        (["client"], ["client", "a"], "client", (5, {"v1", "v2"})),
        (["client"], ["client", "a"], "a", (4294967295, set())),
        (["client", "a"], ["client"], "client", (7, {"v2"})),
    ],
)
def test_rules_that_are_exported_to_others_are_not_one(
    older: list[str], younger: list[str], caller: str, expected: tuple[int, set[str]]
) -> None:
    old = _rule("z", created="2026-01-01T00:00:00Z", trafficPolicy=_pool(5), subsets=[{"name": "v1"}], exportTo=older)
    new = _rule("a", created="2026-01-02T00:00:00Z", trafficPolicy=_pool(7), subsets=[{"name": "v2"}], exportTo=younger)

    made = clusters(MeshState((RATINGS,), (), (new, old)), caller)

    assert (_connections(made[0]), {each["name"].split("|")[2] for each in made} - {""}) == expected


def test_several_rules_for_one_host_are_one() -> None:
    old = _rule("z", created="2026-01-01T00:00:00Z", subsets=[{"name": "v1", "labels": {"version": "v1"}}])
    new = _rule(
        "a",
        created="2026-01-02T00:00:00Z",
        trafficPolicy=_pool(5),
        subsets=[{"name": "v1", "labels": {"version": "v9"}}, {"name": "v2", "labels": {"version": "v2"}}],
    )
    made = clusters(MeshState((RATINGS,), (), (new, old)), "shop")
    found = {each["name"].split("|")[2]: len(each["load_assignment"]["endpoints"][0]["lb_endpoints"]) for each in made}
    assert found == {"": 2, "v1": 1, "v2": 1}
    assert _connections(made[0]) == 5


@pytest.mark.parametrize(
    ("outlier", "expected"),
    [
        ({}, {}),
        ({"consecutive5xxErrors": 3}, {"consecutive_5xx": 3, "enforcing_consecutive_5xx": 100}),
        ({"consecutive5xxErrors": 0}, {"consecutive_5xx": 0, "enforcing_consecutive_5xx": 0}),
        # Envoy's own five 5xx in a row stay on beside it.
        (
            {"consecutiveGatewayErrors": 2},
            {"consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100},
        ),
        (
            {"interval": "1m", "baseEjectionTime": "30s", "maxEjectionPercent": 50},
            {"interval": "60s", "base_ejection_time": "30s", "max_ejection_percent": 50},
        ),
        (
            {"splitExternalLocalOriginErrors": True},
            {"split_external_local_origin_errors": True, "enforcing_local_origin_success_rate": 0},
        ),
        (
            {"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 2},
            {
                "split_external_local_origin_errors": True,
                "enforcing_local_origin_success_rate": 0,
                "consecutive_local_origin_failure": 2,
                "enforcing_consecutive_local_origin_failure": 100,
            },
        ),
    ],
)
def test_outlier_detection(outlier: Object, expected: Object) -> None:
    made = _cluster(CLUSTER, _rule("r", trafficPolicy={"outlierDetection": {**outlier, "minHealthPercent": 30}}))
    assert made["outlier_detection"] == {"enforcing_success_rate": 0, **expected}
    assert made["common_lb_config"]["healthy_panic_threshold"] == {"value": 30}


def test_outlier_detection_of_which_nothing_is_said_is_on_as_envoy_has_it() -> None:
    made = _cluster(CLUSTER, _rule("r", trafficPolicy={"outlierDetection": {}}))
    assert made["outlier_detection"] == {"enforcing_success_rate": 0}


# All of it in Envoy.

EVERYTHING = """
- name: headers
  match:
    - {headers: {a: {exact: "1"}, b: {}}, withoutHeaders: {c: {regex: "*"}}, queryParams: {q: {}}, method: {regex: GET}}
    - {uri: {regex: "/r/.*"}, ignoreUriCase: true, statPrefix: s, name: m}
  route:
    - {destination: {host: ratings, subset: v1}, weight: 1, headers: {request: {set: {host: h}}, response: {remove: [x]}}}
    - {destination: {host: ratings, subset: v2}, weight: 99}
  headers: {request: {set: {d: "%START_TIME%"}, add: {e: "2"}}, response: {set: {x-luff-flags: "%RESPONSE_FLAGS%"}}}
  retries: {attempts: 3, retryOn: "5xx,503", perTryTimeout: 1s, backoff: 25ms}
  timeout: 3s
  rewrite: {uri: /z, authority: z}
  mirrors: [{destination: {host: reviews}, percentage: {value: 0.1}}]
  corsPolicy: {allowOrigins: [{prefix: "https://"}], maxAge: 1h, exposeHeaders: [x], allowCredentials: true}
  fault: {delay: {fixedDelay: 1s, percentage: {value: 1}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.57}}}
- {match: [{uri: {prefix: /v1}}], redirect: {prefixRewrite: /v2}}
- {match: [{uri: {prefix: ""}, headers: {z: {exact: "1"}}}], route: [{destination: {host: ratings}, headers: {request: {set: {":authority": h}}}}]}
- {match: [{uri: {exact: /old}}], redirect: {uri: /new, redirectCode: 308, derivePort: FROM_REQUEST_PORT}}
- {match: [{uri: {prefix: /no}}], directResponse: {status: 503, body: {string: "not here"}}}
- {match: [{uri: {prefix: /x}}], rewrite: {uriRegexRewrite: {match: "^/x", rewrite: /y}}, route: [{destination: {host: gone}}]}
- route: [{destination: {host: ratings}}]
  retries: {attempts: 0}
"""
RULE = """
trafficPolicy:
  loadBalancer: {simple: ROUND_ROBIN}
  connectionPool:
    tcp: {maxConnections: 5, connectTimeout: 1s}
    http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRequestsPerConnection: 3, maxRetries: 4, idleTimeout: 5s}
  outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 0, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 100, minHealthPercent: 50}
subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}}
"""


def test_envoy_takes_everything_that_is_made(tmp_path: Path) -> None:
    gateway = _gateway("*")
    routes = _service(*yaml.safe_load(EVERYTHING), gateways=["mesh", "gw"])
    state = MeshState((RATINGS, REVIEWS), (routes,), (_rule("r", **yaml.safe_load(RULE)),), (gateway,))
    proxies = [Proxy({"app": "web"}, "shop"), Proxy(namespace="shop", gateway="shop/gw")]
    with one_envoy(tmp_path, proxies, state, marked=False) as envoy:
        assert envoy.refused() == []
        assert envoy.stats("active_clusters") == {"cluster_manager.active_clusters": 4}
        dump = str(envoy.config())
        assert all(
            name in dump for name in ("headers.m", "outbound|9080|v2|ratings.shop.svc.cluster.local", "HTTPFault")
        )


def test_envoy_redirects_answers_at_length_and_knows_no_port_that_nobody_calls(tmp_path: Path) -> None:
    body = "x" * 100_000
    gateways = (_gateway("a.com", "b.com", tls={"httpsRedirect": True}), _gateway("c.com", name="plain"))
    long = _service({"directResponse": {"status": 200, "body": {"string": body}}}, name="long", hosts=["*"], gateways=["plain"])  # fmt: skip
    elsewhere = _service({"route": [{"destination": {"host": "reviews"}}]})
    state = MeshState((RATINGS, REVIEWS), (long, elsewhere), (), gateways)
    proxies = [Proxy({}, "shop"), Proxy(namespace="shop", gateway="shop/gw")]

    with one_envoy(tmp_path, proxies, state, marked=False) as envoy:
        refused = envoy.refused()
        answers = {
            host: httpx.get(f"http://127.0.0.1:{envoy.ports[at]}/p", headers={"Host": host}, trust_env=False)
            for at, host in ((0, "ratings:9080"), (1, "a.com"), (1, "b.com"), (1, "c.com"))
        }

    assert refused == []
    assert {host: answer.headers.get("location") for host, answer in answers.items() if answer.status_code == 301} == {
        "a.com": "https://a.com/p", "b.com": "https://b.com/p",
    }  # fmt: skip
    assert answers["c.com"].text == body
    # No cluster has this name: the answer has no word of an upstream.
    assert (answers["ratings:9080"].status_code, answers["ratings:9080"].text) == (503, "")


@pytest.mark.parametrize(
    "route",
    [
        {"match": [{"uri": {"regex": "/a("}}], "route": TO},
        {"match": [{"uri": {"prefix": "/a"}}], "redirect": {"uri": "/b", "redirectCode": 304}},
    ],
    ids=["a regex", "a redirect's code"],
)
def test_what_envoy_refuses_is_noticed(tmp_path: Path, route: Object) -> None:
    state = MeshState((RATINGS,), (_service(route),))
    with one_envoy(tmp_path, [Proxy({}, "shop")], state, marked=False) as envoy:
        [refused] = envoy.refused()
        assert refused.endswith("rds.http_proxy.update_rejected")
