"""What istiod's webhook says of a DestinationRule whose shape is right."""

from __future__ import annotations

from collections.abc import Iterator

from luff import spelling
from luff.crd import PORT_POLICY, TRAFFIC_POLICY, UNIT_NS, nanoseconds, whole_milliseconds
from luff.hosts import is_ip
from luff.localities import fails_over_blindly, locality_problems, zone_aware_problems
from luff.words import Object

__all__ = ["destination_rule_problems", "destination_rule_warnings"]

_MAGLEV_BELOW = 5_000_011


def destination_rule_problems(spec: Object, namespace: str) -> Iterator[str]:
    """Say why the webhook would refuse a rule with *spec* in *namespace*; the spec has the schema's shape."""
    yield from spelling.domain(spec.get("host", ""))
    yield from _traffic_policy(spec.get("trafficPolicy"))
    names = [subset["name"] for subset in spec.get("subsets") or []]
    for subset in spec.get("subsets") or []:
        yield from spelling.subset_name(subset["name"])
        yield from spelling.labels(subset.get("labels") or {})
        yield from _traffic_policy(subset.get("trafficPolicy"))
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"duplicate subset names: {name}"
    yield from spelling.export_to(spec.get("exportTo") or [], namespace)
    if "workloadSelector" in spec:
        yield from _selector(spec["workloadSelector"], spec.get("exportTo") or [], namespace)


def destination_rule_warnings(spec: Object) -> Iterator[str]:
    """Say what the webhook would warn of in a rule with *spec*, which has the schema's shape."""
    # Of the policies of subsets and of single ports it keeps its warnings to itself.
    policy = spec.get("trafficPolicy") or {}
    if (policy.get("outlierDetection") or {}).get("consecutiveErrors"):
        yield (
            "outlier detection consecutive errors is deprecated, "
            "use consecutiveGatewayErrors or consecutive5xxErrors instead"
        )
    if fails_over_blindly(policy):
        yield "outlier detection policy must be provided for failover"
    if ((policy.get("loadBalancer") or {}).get("consistentHash") or {}).get("minimumRingSize"):
        yield "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead"


def _selector(selector: Object, exported: list[str], namespace: str) -> Iterator[str]:
    meant = {namespace if name == "." else name for name in exported}
    if meant and namespace not in meant:
        yield "destination rule with workload selector cannot have exportTo beyond current namespace"
    elif len(meant) > 1:
        yield "destination rule with workload selector cannot have multiple entries in exportTo"
    for key, value in (selector.get("matchLabels") or {}).items():
        if not key:
            yield "workload selector: key must not be empty"
        if "*" in key + value:
            yield f"workload selector: wildcard not allowed in label {key}={value}"


def _traffic_policy(policy: Object | None) -> Iterator[str]:
    if policy is None:
        return
    if not {key for key in policy.keys() & TRAFFIC_POLICY.keys() if policy[key] != []}:
        yield "traffic policy must have at least one field"
    if policy.keys() >= {"tunnel", "proxyProtocol"}:
        yield "tunnel and proxyProtocol must not be set together"
    yield from _settings(policy)
    for settings in policy.get("portLevelSettings") or []:
        if "port" not in settings:
            yield "portTrafficPolicy must have valid port"
        if not settings.keys() & PORT_POLICY.keys():
            yield "port traffic policy must have at least one field"
        yield from _settings(settings)
    if "tunnel" in policy:
        yield from _tunnel(policy["tunnel"])
    yield from _readable(policy.get("retryBudget") or {}, "budgetInterval")


def _settings(policy: Object) -> Iterator[str]:
    """Say what is wrong with what a policy may hold for all ports and for one."""
    yield from _connection_pool(policy.get("connectionPool"))
    yield from _outliers(policy.get("outlierDetection") or {})
    yield from _load_balancer(policy.get("loadBalancer") or {})
    yield from _tls(policy.get("tls") or {})


def _tunnel(tunnel: Object) -> Iterator[str]:
    if tunnel.get("protocol", "") not in ("", "CONNECT", "POST"):
        yield 'tunnel protocol must be "CONNECT" or "POST"'
    host = tunnel["targetHost"]
    if not is_ip(host) and any(spelling.domain(host, wildcard=False)):
        yield f"tunnel target host must be valid FQDN or IP address: {host!r}"
    for text in spelling.port(tunnel["targetPort"]):
        yield f"tunnel target port is invalid: {text}"


def _connection_pool(pool: Object | None) -> Iterator[str]:
    if pool is None:
        return
    if not pool.keys() & {"tcp", "http"}:
        yield "connection pool must have at least one field"
    tcp, http = pool.get("tcp") or {}, pool.get("http") or {}
    for part in (tcp, http):
        for key, value in part.items():
            if isinstance(value, int) and value < 0:
                yield f"{key} must be non-negative"
    yield from whole_milliseconds(http, "idleTimeout")
    yield from whole_milliseconds(tcp, "connectTimeout", "maxConnectionDuration")
    yield from whole_milliseconds(tcp.get("tcpKeepalive") or {}, "time", "interval")
    idle = tcp.get("idleTimeout")
    # Zero turns it off, and whatever is less than a millisecond counts as zero.
    idle_ns = None if idle is None else nanoseconds(idle)
    if idle is not None and (idle_ns is None or (idle_ns >= UNIT_NS["ms"] and idle_ns % UNIT_NS["ms"])):
        yield "idleTimeout: only durations to ms precision are supported"
    if http.get("h2UpgradePolicy") == "UPGRADE" and http.get("useClientProtocol"):
        yield "use client protocol must not be true when H2UpgradePolicy is UPGRADE"
    keepalive = http.get("http2KeepAlive")
    if keepalive is not None:
        yield from (f"http2 keepalive {key} is required" for key in ("interval", "timeout") if key not in keepalive)
        yield from whole_milliseconds(keepalive, "interval", "timeout")


def _outliers(outlier: Object) -> Iterator[str]:
    yield from whole_milliseconds(outlier, "interval", "baseEjectionTime")
    for key in ("maxEjectionPercent", "minHealthPercent"):
        if not 0 <= outlier.get(key, 0) <= 100:
            yield f"percentage {outlier[key]} is not in range 0..100"
    if outlier.get("consecutiveLocalOriginFailures") and not outlier.get("splitExternalLocalOriginErrors"):
        yield (
            "outlier detection consecutive local origin failures is specified, "
            "but split external local origin errors is set to false"
        )


def _load_balancer(balancer: Object) -> Iterator[str]:
    yield from _consistent_hash(balancer.get("consistentHash") or {})
    yield from locality_problems(balancer.get("localityLbSetting") or {})
    yield from zone_aware_problems(balancer.get("zoneAwareLbSetting") or {})
    if balancer.keys() >= {"localityLbSetting", "zoneAwareLbSetting"}:
        yield "only one of localityLbSetting and zoneAwareLbSetting can be set"
    warmup = balancer.get("warmup") or {}
    yield from whole_milliseconds(warmup, "duration")
    if warmup.get("aggression", 1) <= 0:
        yield "aggression should be greater than 0"


def _consistent_hash(hashed: Object) -> Iterator[str]:
    cookie = hashed.get("httpCookie")
    if cookie is not None and not cookie["name"]:
        yield "name required for HttpCookie"
    yield from _readable(cookie or {}, "ttl")
    names = [attribute["name"] for attribute in (cookie or {}).get("attributes") or []]
    if "" in names:
        yield "cookie attribute name cannot be empty"
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield f"duplicate cookie attribute name: {name}"
    if hashed.get("minimumRingSize") and hashed.keys() & {"maglev", "ringHash"}:
        yield "only one of MinimumRingSize or Maglev/Ringhash can be specified"
    if "maglev" in hashed:
        size = int(hashed["maglev"].get("tableSize", 0))
        if size == 0:
            yield "tableSize must be set for maglev"
        elif size >= _MAGLEV_BELOW:
            yield f"tableSize must be less than {_MAGLEV_BELOW} for maglev"
        elif not _is_prime(size):
            yield "tableSize must be a prime number for maglev"


def _readable(part: Object, key: str) -> Iterator[str]:
    """Say that the duration at *key*, a mere string to the schema, is none."""
    if key in part and nanoseconds(part[key].removeprefix("-")) is None:
        yield f"{key}: bad Duration: invalid duration {part[key]!r}"


def _is_prime(number: int) -> bool:
    # One counts as a prime here, as it does for istiod and Envoy.
    return number < 4 or all(number % factor for factor in (2, *range(3, int(number**0.5) + 1, 2)))


def _tls(tls: Object) -> Iterator[str]:
    mode, named = tls.get("mode"), tls.get("credentialName")
    if tls.get("insecureSkipVerify") and mode in ("SIMPLE", "MUTUAL"):
        checked = ("caCertificates", "subjectAltNames", *(("credentialName",) if mode == "SIMPLE" else ()))
        if any(tls.get(key) for key in checked):
            yield f"cannot specify {', '.join(checked)} when insecureSkipVerify is set true"
    if named and mode in ("SIMPLE", "MUTUAL"):
        if any(tls.get(key) for key in ("clientCertificate", "caCertificates", "privateKey", "caCrl")):
            yield "cannot specify client certificates or CA certificate or CA CRL if credentialName is set"
        return
    for key in ("clientCertificate", "privateKey") if mode == "MUTUAL" else ():
        if not tls.get(key):
            yield f"{key} required for mutual tls"
