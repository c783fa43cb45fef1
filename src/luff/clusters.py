"""
Services and DestinationRules to Envoy clusters, named and filled in as pilot does.

The rules are those of Istio's ``pilot/pkg/networking/core/cluster_traffic_policy.go``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luff.destination_policies import rule_for
from luff.mesh_state import Endpoint, MeshState, Service, protobuf_seconds
from luff.words import Object

__all__ = ["clusters"]

_UNBOUNDED = 4294967295
_TYPES = "type.googleapis.com/envoy.extensions"


def clusters(state: MeshState, namespace: str) -> list[Object]:
    """Return the outbound clusters of a proxy in *namespace*: one a service, and one for each of its subsets."""
    made = []
    for service in state.services:
        rule = rule_for(service.host, state.destination_rules, caller=namespace, home=service.namespace)
        made.append(_cluster_of(service, "", service.endpoints, rule.policy(service.port)))
        for name, subset in rule.subsets.items():
            wanted: Mapping[str, str] = subset.get("labels") or {}
            chosen = tuple(
                each
                for each in service.endpoints
                if all(each.labels.get(key) == value for key, value in wanted.items())
            )
            made.append(_cluster_of(service, name, chosen, rule.policy(service.port, name)))
    return made


def _cluster_of(service: Service, subset: str, endpoints: Sequence[Endpoint], policy: Object) -> Object:
    name = f"outbound|{service.port}|{subset}|{service.host}"
    pool = policy.get("connectionPool") or {}
    made: Object = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": protobuf_seconds((pool.get("tcp") or {}).get("connectTimeout")) or "10s",
        "lb_policy": _balancer(policy),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [_thresholds(pool)]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"socket_address": {"address": each.host, "port_value": each.port}}}}
                        for each in endpoints
                    ]
                }
            ],
        },
        "typed_extension_protocol_options": _protocols(pool.get("http") or {}),
    }
    outlier = policy.get("outlierDetection")
    if outlier is not None:
        made["outlier_detection"] = _outliers(outlier)
        made["common_lb_config"] = {"healthy_panic_threshold": {"value": outlier.get("minHealthPercent") or 0}}
    return made


def _balancer(policy: Object) -> str:
    simple = (policy.get("loadBalancer") or {}).get("simple")
    known = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM", "LEAST_CONN": "LEAST_REQUEST"}
    return known.get(str(simple), "LEAST_REQUEST")


def _thresholds(pool: Object) -> Object:
    http = pool.get("http") or {}
    return {
        "max_connections": (pool.get("tcp") or {}).get("maxConnections") or _UNBOUNDED,
        "max_pending_requests": http.get("http1MaxPendingRequests") or _UNBOUNDED,
        "max_requests": http.get("http2MaxRequests") or _UNBOUNDED,
        "max_retries": http.get("maxRetries") or _UNBOUNDED,
        "track_remaining": True,
    }


def _protocols(http: Object) -> Object:
    """Return options that speak to the next what the caller spoke to us, as pilot does for ports without a protocol."""
    common: Object = {}
    if http.get("maxRequestsPerConnection"):
        common["max_requests_per_connection"] = http["maxRequestsPerConnection"]
    if http.get("idleTimeout"):
        common["idle_timeout"] = protobuf_seconds(http["idleTimeout"])
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": common,
            "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
        }
    }


def _outliers(outlier: Object) -> Object:
    # What is not written keeps Envoy's default: five 5xx in a row, and gateway errors alone never.
    made: Object = {"enforcing_success_rate": 0}
    for theirs, ours in (
        ("consecutive5xxErrors", "consecutive_5xx"),
        ("consecutiveGatewayErrors", "consecutive_gateway_failure"),
    ):
        if outlier.get(theirs) is not None:
            made[ours] = outlier[theirs]
            made[f"enforcing_{ours}"] = 100 if outlier[theirs] else 0
    for theirs, ours in (("interval", "interval"), ("baseEjectionTime", "base_ejection_time")):
        if outlier.get(theirs):
            made[ours] = protobuf_seconds(outlier[theirs])
    if outlier.get("maxEjectionPercent"):
        made["max_ejection_percent"] = outlier["maxEjectionPercent"]
    if outlier.get("splitExternalLocalOriginErrors"):
        made |= {"split_external_local_origin_errors": True, "enforcing_local_origin_success_rate": 0}
        if outlier.get("consecutiveLocalOriginFailures"):
            made["consecutive_local_origin_failure"] = outlier["consecutiveLocalOriginFailures"]
            made["enforcing_consecutive_local_origin_failure"] = 100
    return made
