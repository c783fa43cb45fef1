"""What the API server, istiod's webhook and Envoy say: one row per rule, refused and just accepted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.model import Object
from luff.validation import envoy_problems, problems, warnings
from tests.strategies import json_values, virtual_services

FORWARD: Object = {"route": [{"destination": {"host": "ratings"}}]}


def _service(route: Object | None = None, metadata: Object | None = None, **spec: Any) -> Object:
    http = {} if route is None else {"http": [route]}
    return {
        "kind": "VirtualService",
        "metadata": {"name": "ratings", **(metadata or {})},
        "spec": {"hosts": ["ratings"], **http, **spec},
    }


def _to(**fields: Any) -> Object:
    return _service({**FORWARD, **fields})


def _match(**match: Any) -> Object:
    return _to(match=[match])


def _headers(side: str, **operations: Any) -> Object:
    return _to(headers={side: operations})


def _split(*weights: Any) -> Object:
    return _service({"route": [{"destination": {"host": "ratings"}, "weight": weight} for weight in weights]})


def _destination(**destination: Any) -> Object:
    return _service({"route": [{"destination": destination}]})


def _one(**headers: Any) -> Object:
    return _service({"route": [{"destination": {"host": "a"}, "headers": headers}]})


def _fault(**fault: Any) -> Object:
    return _to(fault=fault)


def _abort(**abort: Any) -> Object:
    return _fault(abort=abort)


def _delay(duration: str) -> Object:
    return _fault(delay={"fixedDelay": duration})


def _only(**fields: Any) -> Object:
    return _service(fields)


def _hosts(*hosts: str, **spec: Any) -> Object:
    return _service(FORWARD, **{"hosts": list(hosts), **spec})


def _leaf(**fields: Any) -> Object:
    return _service({**FORWARD, **fields.pop("route", {})}, hosts=[], **fields)


def _rule(**spec: Any) -> Object:
    return {"kind": "DestinationRule", "metadata": {"name": "ratings"}, "spec": {"host": "ratings", **spec}}


def _tcp(**match: Any) -> Object:
    return _service(tcp=[{**FORWARD, "match": [match]}])


def _policy(**policy: Any) -> Object:
    return _rule(trafficPolicy=policy)


def _balancer(**balancer: Any) -> Object:
    return _policy(loadBalancer=balancer)


def _locality(to: dict[str, int], *, come_from: str = "eu") -> Object:
    return _balancer(localityLbSetting={"distribute": [{"from": come_from, "to": to}]})


def _failover(come_from: str, to: str, *, priority: list[str] | None = None) -> Object:
    setting = {"failover": [{"from": come_from, "to": to}], "failoverPriority": priority or []}
    return _balancer(localityLbSetting=setting)


def _cookie(**cookie: Any) -> Object:
    return _balancer(consistentHash={"httpCookie": cookie})


def _at_port(**settings: Any) -> Object:
    return _policy(portLevelSettings=[settings])


def _tls(match: Object) -> Object:
    return _service(hosts=["*.example.com"], tls=[{"match": [match], **FORWARD}])


CLAIM: Object = {**FORWARD, "match": [{"headers": {"@request.auth.claims.sub": {}}}]}
REDIRECT: Object = {"redirect": {"uri": "/x"}}
ANSWER: Object = {"directResponse": {"status": 200}}

# The rule, what is refused, what the sentence says, the nearest that is accepted.
RULES: list[tuple[str, Object, str, Object]] = [
    # The schema.
    ("a list", _service(http={}), "must be of type array", _to()),
    ("an object", _service(http=[[]]), "must be of type object", _to()),
    ("no null in a list", _service(http=[None]), "must be of type object", _service(FORWARD, gateways=None, exportTo=None)),
    ("no null as metadata's name", _service(FORWARD, {"name": None}), "metadata.name", _service(FORWARD, {"annotations": None, "labels": None})),
    ("no null as a host", _destination(host=None), "host: Required", _to(match=None, timeout=None, mirrorPercent=None)),
    ("bytes", _only(directResponse={"status": 200, "body": {"bytes": "%"}}), "of type byte", _only(directResponse={"status": 200, "body": {"bytes": "aGk="}})),
    ("words of CORS", _to(corsPolicy={"unmatchedPreflights": "DROP"}), "Unsupported value: 'DROP'", _to(corsPolicy={"unmatchedPreflights": "IGNORE"})),
    ("words of a redirect's port", _only(redirect={"derivePort": "REQUEST"}), "Unsupported value", _only(redirect={"derivePort": "FROM_REQUEST_PORT"})),
    ("a boolean", _match(ignoreUriCase="yes"), "must be of type boolean", _match(ignoreUriCase=True)),
    ("a whole number", _match(port=80.5), "must be of type integer", _match(port=80.0)),
    ("a number that is no boolean", _match(port=True), "must be of type integer", _match(port=1)),
    ("uint32", _match(port=-1), "must be from 0", _match(port=0)),
    ("a percentage is a number", _abort(percentage={"value": "1"}), "must be of type number", _abort(percentage={"value": 1})),
    ("one of a StringMatch", _match(uri={"exact": "/", "prefix": "/"}), "at most one of", _match(uri={"exact": "/"})),
    ("one kind of delay", _fault(delay={"fixedDelay": "1s", "exponentialDelay": "1s"}), "at most one of", _delay("1s")),
    ("one kind of abort", _abort(httpStatus=503, grpcStatus="UNAVAILABLE"), "at most one of", _abort(httpStatus=503)),
    ("a redirect's port", _only(redirect={"port": 1, "derivePort": "FROM_REQUEST_PORT"}), "at most one of", _only(redirect={"port": 1})),
    ("a body", _only(directResponse={"status": 200, "body": {"string": "", "bytes": ""}}), "at most one of", _only(directResponse={"status": 200, "body": {"string": ""}})),
    ("a destination's host", _service({"route": [{"destination": {}}]}), "host: Required", _to()),
    ("a response's status", _only(directResponse={}), "status: Required", _only(**ANSWER)),
    ("a millisecond at least", _to(timeout="999us"), "greater than 1ms", _to(timeout="1ms")),
    ("no zero", _to(timeout="0s"), "greater than 1ms", _to(timeout="0.001s")),
    ("a duration of Go", _to(timeout="1 s"), "valid duration", _to(timeout="1h1m1.5s")),
    ("a unit", _delay("5"), "valid duration", _delay("5s")),
    ("a name", _service(FORWARD, {"name": ""}), "metadata.name", _to()),
    ("an annotation of istiod's own", _service(FORWARD, {"annotations": {"internal.istio.io/parent-namespace": "x"}}), "not allowed", _service(FORWARD, {"annotations": {"luff.dev/parent-namespace": "x"}})),
    ("annotations", _service(FORWARD, {"annotations": {"internal.istio.io/webhook-always-reject": "true"}}), "not allowed", _service(FORWARD, {"annotations": {"luff.dev/x": "y"}})),
    # Localities.
    ("a weight of a locality", _locality({"eu": 0, "us": 100}), "weight must be in range", _locality({"us": 100})),
    ("all weights of localities", _locality({"eu": 50, "us": 49}), "99 != 100", _locality({"eu": 50, "us": 50})),
    ("no locality without a share", _balancer(localityLbSetting={"distribute": [{"from": "eu"}]}), "0 != 100", _locality({"eu": 100})),
    ("an empty part of a locality", _locality({"eu//a": 100}), "must not contain empty", _locality({"eu/z/a": 100})),
    ("no name of a locality", _locality({"eu": 100}, come_from=""), "must not contain empty", _locality({"eu": 100}, come_from="*")),
    ("a star at the end of a locality", _locality({"eu/*/a": 100}), "must be in the end", _locality({"eu/*": 100})),
    ("a region after its zone", _locality({"eu/z": 50, "eu": 50}), "overlap", _locality({"eu/z": 50, "eu/*": 50})),
    ("a zone after its region", _locality({"eu/*": 50, "eu/z": 50}), "overlap", _locality({"eu/z": 50, "eu/y": 50})),
    ("anything after everywhere", _locality({"*": 50, "eu": 50}), "overlap", _locality({"eu": 50, "*": 50})),
    ("the same locality twice", _balancer(localityLbSetting={"distribute": [{"from": "eu", "to": {"eu": 100}}] * 2}), "overlap", _locality({"eu": 100})),
    ("shares or failing over", _balancer(localityLbSetting={"distribute": [{"from": "eu", "to": {"eu": 100}}], "failover": [{"from": "a", "to": "b"}]}), "distribute", _failover("a", "b")),
    ("failing over elsewhere", _failover("eu", "eu"), "different regions", _failover("eu", "us")),
    ("failing over between regions", _failover("eu/z", "us"), "only specify region", _failover("eu", "us")),
    ("failing over to a region", _failover("eu", "*"), "wildcard", _failover("eu", "us")),
    ("failing over by regions twice", _failover("a", "b", priority=["topology.kubernetes.io/region"]), "topology label", _failover("a", "b", priority=["x"])),
    ("zones by themselves", _balancer(zoneAwareLbSetting={"failoverPriority": ["topology.istio.io/subzone"]}), "must not use topology", _balancer(zoneAwareLbSetting={"failoverPriority": ["x"]})),
    ("failing over elsewhere by zone", _balancer(zoneAwareLbSetting={"failover": [{"from": "a", "to": "a"}]}), "different regions", _balancer(zoneAwareLbSetting={"failover": [{"from": "a", "to": "b"}]})),
    ("a cookie's time", _cookie(name="a", ttl="soon"), "bad Duration", _cookie(name="a", ttl="-1s")),
    ("a retry budget's time", _policy(retryBudget={"budgetInterval": "x"}), "bad Duration", _policy(retryBudget={"budgetInterval": "10s"})),
    ("a policy of something", _policy(portLevelSettings=[]), "at least one field", _policy(loadBalancer={})),
    ("whole milliseconds of tcp's idleTimeout", _policy(connectionPool={"tcp": {"idleTimeout": "1001us"}}), "ms precision", _policy(connectionPool={"tcp": {"idleTimeout": "999us"}})),
    ("what the API server takes for an integer", _balancer(consistentHash={"ringHash": {"minimumRingSize": 2**63}}), "must be from 0", _balancer(consistentHash={"ringHash": {"minimumRingSize": 2**63 - 1}})),
    # Names, and where istiod looks at fewer than it might.
    ("a gateway that is a number", _hosts("a", gateways=["14"]), "all-numeric", _hosts("a", gateways=["mesh", "14"])),
    ("a gateway before one without a slash", _hosts("a", gateways=["ns/", "gw"]), "gateway name", _hosts("a", gateways=["gw", "ns/"])),
    ("a header's name", _match(headers={"a b": {"exact": "1"}}), "not a valid header name", _match(headers={"a,b": {"exact": "1"}})),
    ("a label's name of 63", _match(sourceLabels={"a" * 64: "v"}), "tag key", _match(sourceLabels={"a" * 63: "v" * 300})),
    ("a label's prefix", _match(sourceLabels={"a_b/c": "v"}), "tag key", _match(sourceLabels={"1.2.3.4/24": "v"})),
    # Durations, percentages, statuses.
    ("whole milliseconds of timeout", _to(timeout="1.0005s"), "ms precision", _to(timeout="1.001s")),
    ("whole milliseconds of delay", _delay("1.5ms"), "ms precision", _delay("2ms")),
    ("whole milliseconds of perTryTimeout", _to(retries={"attempts": 1, "perTryTimeout": "1.5ms"}), "ms precision", _to(retries={"attempts": 1, "perTryTimeout": "1s"})),
    ("whole milliseconds of backoff", _to(retries={"attempts": 1, "backoff": "1.5ms"}), "ms precision", _to(retries={"attempts": 1, "backoff": "25ms"})),
    ("a percentage over 100", _abort(percentage={"value": 100.1}, httpStatus=503), "percentage", _abort(percentage={"value": 100}, httpStatus=503)),
    ("a percentage too small", _abort(percentage={"value": 0.00009}), "percentage", _abort(percentage={"value": 0.0001})),
    ("a percentage below 0", _fault(delay={"fixedDelay": "1s", "percentage": {"value": -1}}), "percentage", _fault(delay={"fixedDelay": "1s", "percentage": {"value": 0}})),
    ("a status over 600", _abort(httpStatus=601), "200-599", _abort(httpStatus=600)),
    ("a status below 200", _abort(httpStatus=199), "200-599", _abort(httpStatus=200)),
    ("a response's status over 600", _only(directResponse={"status": 601}), "200-599", _only(directResponse={"status": 600})),
    ("gRPC by name", _abort(grpcStatus="14"), "gRPC status", _abort(grpcStatus="UNAVAILABLE")),
    ("no HTTP/2 error", _abort(http2Error="x"), "HTTP/2", _abort()),
    ("no exponential delay", _fault(delay={"exponentialDelay": "1s"}), "exponentialDelay", _fault(delay={})),
    ("a fault of something", _fault(), "abort and/or a delay", _abort(httpStatus=503)),
    # Kinds of route.
    ("some kind", _only(name="x"), "is required", _to(name="x")),
    ("not route and redirect", _to(**REDIRECT), "both route and redirect", _only(**REDIRECT)),
    ("not route and response", _to(**ANSWER), "both route and directResponse", _only(**ANSWER)),
    ("not redirect and response", _only(**REDIRECT, **ANSWER), "both directResponse and redirect", _only(**REDIRECT, route=[])),
    ("no fault on a redirect", _only(**REDIRECT, fault={"abort": {}}), "fault and redirect", _abort()),
    ("no fault on a response", _only(**ANSWER, fault={"abort": {}}), "fault and directResponse", _abort()),
    ("no rewrite of a redirect", _only(**REDIRECT, rewrite={"uri": "/"}), "rewrite and redirect", _to(rewrite={"uri": "/"})),
    ("no rewrite of a response", _only(**ANSWER, rewrite={"uri": "/"}), "rewrite and directResponse", _to(rewrite={"uri": "/"})),
    ("a root without route", _to(delegate={"name": "x"}), "must not specify route", _only(delegate={"name": "x"}, fault={"abort": {}})),
    ("a root without redirect", _only(delegate={"name": "x"}, **REDIRECT), "must not specify redirect", _only(delegate={"name": "x"})),
    ("no delegate in a leaf", _leaf(route={"delegate": {"name": "x"}}), "cannot contain delegate", _leaf()),
    ("no gateways in a leaf", _leaf(gateways=["gw"]), "must have no gateways", _leaf()),
    ("no tcp in a leaf", _leaf(tcp=[FORWARD]), "must have no tcp", _leaf()),
    ("no tls in a leaf", _leaf(tls=[{**FORWARD, "match": []}]), "must have no tls", _leaf()),
    ("something to route", _service(), "http, tcp or tls", _to()),
    ("a redirect somewhere", _only(redirect={}), "must specify URI", _only(redirect={"authority": "a"})),
    ("a redirect to one path", _only(redirect={"uri": "/a", "prefixRewrite": "/b"}), "only specify one of", _only(redirect={"uri": "", "prefixRewrite": "/b"})),
    ("a redirect of a prefix", _only(redirect={"prefixRewrite": "/b"}, match=[{"uri": {"exact": "/a"}}]), "to use prefix match", _only(redirect={"prefixRewrite": "/b"}, match=[{"uri": {"prefix": "/a"}}, {"port": 1}])),
    ("a redirect's code", _only(redirect={"uri": "/", "redirectCode": 400}), "3xx", _only(redirect={"uri": "/", "redirectCode": 399})),
    ("a redirect's scheme", _only(redirect={"scheme": "ftp"}), "scheme", _only(redirect={"scheme": "https"})),
    ("a redirect's port number", _only(redirect={"port": 65536}), "port number", _only(redirect={"port": 65535})),
    ("a body of 1 MiB", _only(directResponse={"status": 200, "body": {"string": "x" * (2**20 + 1)}}), "less than 1MB", _only(directResponse={"status": 200, "body": {"string": "x" * 2**20}})),
    ("a rewrite of something", _to(rewrite={}), "must specify at least one", _to(rewrite={"authority": "a"})),
    ("one rewrite of the path", _to(rewrite={"uri": "/", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}), "only contain one", _to(rewrite={"uriRegexRewrite": {"match": "a", "rewrite": "b"}})),
    ("a whole regex rewrite", _to(rewrite={"uriRegexRewrite": {"match": "a"}}), "requires both", _to(rewrite={"uriRegexRewrite": {"match": "a", "rewrite": "b"}})),
    ("a regex in a rewrite", _to(rewrite={"uriRegexRewrite": {"match": "(", "rewrite": "b"}}), "RE2", _to(rewrite={"uriRegexRewrite": {"match": "()", "rewrite": "b"}})),
    # Matches.
    ("a header's name", _match(headers={"a b": {}}), "valid header name", _match(headers={"a-b": {}})),
    ("a pseudo header", _match(headers={":foo": {}}), "valid header name", _match(headers={":path": {}})),
    ("an empty name", _match(withoutHeaders={"": {}}), "cannot be empty", _match(withoutHeaders={"a": {}})),
    ("claims at gateways", _match(headers={"@request.auth.claims.sub": {}}), "only supported for gateway", _service(CLAIM, gateways=["gw"])),
    ("claims at gateways and the mesh", _service(CLAIM, gateways=["mesh", "gw"]), "only supported for gateway", _service(CLAIM, gateways=["a/gw", "gw"])),
    ("no list as a match", _match(headers={"a": []}), "must be of type object", _match(headers={"a": None})),
    ("an empty prefix of a header", _match(headers={"a": {"prefix": ""}}), "should not be empty", _match(headers={"a": {"exact": ""}})),
    ("an empty prefix of a method", _match(method={"prefix": ""}), "should not be empty", _match(method={"prefix": "G"})),
    ("an empty prefix of a parameter", _match(queryParams={"a": {"prefix": ""}}), "should not be empty", _match(uri={"prefix": ""})),
    ("an empty regex", _match(uri={"regex": ""}), "should not be empty", _match(uri={"regex": ".*"})),
    ("a long regex", _match(uri={"regex": "x" * 1025}), "too large", _match(uri={"regex": "x" * 1024})),
    ("a regex of RE2", _match(uri={"regex": "(?=x)"}), "RE2", _match(uri={"regex": "(?i)x"})),
    ("no star in headers", _match(headers={"a": {"regex": "*"}}), "RE2", _match(withoutHeaders={"a": {"regex": "*"}})),
    ("a match's port", _match(port=65536), "port number", _match(port=65535)),
    ("a label's key", _match(sourceLabels={"-a": "b"}), "tag key", _match(sourceLabels={"x.io/a": "b"})),
    ("a label's value", _match(sourceLabels={"a": "b c"}), "tag value", _match(sourceLabels={"a": ""})),
    ("a gateway's namespace", _match(gateways=["a_b/gw"]), "invalid value for namespace", _match(gateways=["a-b/gw"])),
    ("a gateway's name", _match(gateways=["a/"]), "invalid value for gateway name", _match(gateways=["a/b"])),
    ("a plain gateway's name", _match(gateways=["*"]), "domain name", _match(gateways=["mesh"])),
    ("a namespace", _match(sourceNamespace="a.b"), "sourceNamespace", _match(sourceNamespace="a-b")),
    # Header operations.
    ("no pseudo header is set", _headers("response", set={":status": "1"}), "':' prefix", _headers("response", set={"status": "1"})),
    ("no host is removed", _headers("request", remove=["Host"]), "Host header", _headers("request", remove=["X-Host"])),
    ("no host in a response", _headers("response", add={"host": "a"}), "Host header", _headers("request", add={"host": "a"})),
    ("one authority", _headers("request", set={"host": "a"}, add={":authority": "b"}), "multiple times", _headers("request", set={":authority": "b"})),
    ("one authority with a rewrite", _to(rewrite={"authority": "a"}, headers={"request": {"set": {"host": "b"}}}), "multiple times", _to(rewrite={"authority": "a"})),
    ("an operation's name", _headers("request", set={"": "1"}), "cannot be empty", _headers("request", set={"x(y) z": "1"})),
    ("a value that Envoy can read", _headers("request", set={"a": "100%"}), "un-escaped %", _headers("request", set={"a": "100%%"})),
    ("no control characters", _headers("request", set={"a": "b\n"}), "control", _headers("request", set={"a": "b\t"})),
    ("an authority in a response of one destination", _one(response={"set": {":authority": "b"}}), "':' prefix", _one(request={"set": {":authority": "b"}})),
    ("a value of one destination", _one(response={"add": {"a": "%REQ(x%"}}), "un-terminated", _one(response={"add": {"a": "%REQ(x)%"}})),
    # Destinations, mirrors, retries, CORS.
    ("a weight below 0", _split(-1), "< 0", _split(0)),
    ("weights of 0", _split(0, 0), "= 0", _split(0, 1)),
    ("no destination", _service({"route": [{}]}), "destination: Required", _to()),
    ("a destination of all", _destination(host="*"), "invalid destination host", _destination(host="*.com")),
    ("a wildcard in front", _destination(host="a.*.com"), "domain name", _destination(host="*a.com")),
    ("no numeric end", _destination(host="a.1"), "all-numeric", _destination(host="a.1a")),
    ("no empty host", _destination(host=""), "empty domain", _destination(host="a.")),
    ("a long label", _destination(host="a" * 64), "domain name", _destination(host="a" * 63)),
    ("a long host", _destination(host="a." * 127 + "bc"), "too long", _destination(host="a." * 127 + "b")),
    ("a subset", _destination(host="a", subset="v.1"), "subset name", _destination(host="a", subset="v1")),
    ("a port", _destination(host="a", port={"number": 0}), "port number", _destination(host="a", port={"number": 1})),
    ("one way to mirror", _to(mirror={"host": "a"}, mirrors=[{"destination": {"host": "a"}}]), "both mirror and mirrors", _to(mirror={"host": "a"}, mirrors=[])),
    ("a mirror's destination", _to(mirrors=[{}]), "destination: Required", _to(mirrors=[{"destination": {"host": "a"}}])),
    ("a mirror's host", _to(mirror={"host": "a_b"}), "domain name", _to(mirror={"host": "a-b"})),
    ("a mirror's share", _to(mirrorPercentage={"value": 101}), "mirror percentage", _to(mirrorPercentage={"value": 100})),
    ("a mirror's share of old", _to(mirrorPercent=101), "mirror_percent", _to(mirrorPercent=100)),
    ("one mirror's share", _to(mirrors=[{"destination": {"host": "a"}, "percentage": {"value": -1}}]), "mirror percentage", _to(mirrors=[{"destination": {"host": "a"}, "percentage": {"value": 0}}])),
    ("attempts", _to(retries={"attempts": -1}), "negative", _to(retries={"attempts": 0})),
    ("no attempts with a policy", _to(retries={"attempts": 0, "retryOn": "5xx"}), "set to 0", _to(retries={"attempts": 1, "retryOn": "5xx"})),
    ("a status spelled as Go reads it", _to(retries={"attempts": 1, "retryOn": "-503"}), "retryOn", _to(retries={"attempts": 1, "retryOn": "+503,0503"})),
    ("what to retry on", _to(retries={"attempts": 1, "retryOn": "5xx, reset"}), "retryOn", _to(retries={"attempts": 1, "retryOn": "5xx,reset,503"})),
    ("a status with a text", _to(retries={"attempts": 1, "retryOn": "599"}), "retryOn", _to(retries={"attempts": 1, "retryOn": "511"})),
    ("an origin", _to(corsPolicy={"allowOrigins": [{}]}), "allow origins", _to(corsPolicy={"allowOrigins": [{"exact": "*"}]})),
    ("a method of CORS", _to(corsPolicy={"allowMethods": ["get"]}), "HTTP method", _to(corsPolicy={"allowMethods": ["GET"]})),
    ("a header of CORS", _to(corsPolicy={"allowHeaders": ["a b"]}), "valid header name", _to(corsPolicy={"allowHeaders": ["*"]})),
    ("seconds of CORS", _to(corsPolicy={"maxAge": "1.5s"}), "seconds precision", _to(corsPolicy={"maxAge": "1m"})),
    # Hosts and who sees the object.
    ("a host twice", _hosts("a.com", "a.com"), "duplicate hosts", _hosts("a.com", "b.com")),
    ("a host below another", _hosts("*.com", "a.com"), "duplicate hosts", _hosts("*.com", "a.org")),
    ("all hosts on the mesh", _hosts("*"), "wildcard host", _hosts("*", gateways=["gw"])),
    ("a host's label", _hosts("a_b"), "domain name", _hosts("10.0.0.1")),
    ("a gateway", _hosts("a", gateways=["/gw"]), "invalid value for namespace", _hosts("a", gateways=["ns/gw"])),
    ("exportTo twice", _service(FORWARD, exportTo=[".", "."]), "duplicate entries", _service(FORWARD, exportTo=[".", "a"])),
    ("exportTo its own twice", _service(FORWARD, {"namespace": "shop"}, exportTo=[".", "shop"]), ". and current namespace shop", _service(FORWARD, {"namespace": "shop"}, exportTo=[".", "default"])),
    ("exportTo all and one", _service(FORWARD, exportTo=["*", "a"]), "both public", _service(FORWARD, exportTo=["*"])),
    ("exportTo a namespace", _service(FORWARD, exportTo=["~"]), "exportTo", _service(FORWARD, exportTo=["a"])),
    # TLS and TCP.
    ("TLS matches", _service(tls=[FORWARD]), "match: Required", _tls({"sniHosts": ["a.example.com"]})),
    ("a TLS match", _service(tls=[{**FORWARD, "match": []}]), "at least one match", _tls({"sniHosts": ["a.example.com"]})),
    ("SNI hosts", _tls({}), "sniHosts: Required", _tls({"sniHosts": ["a.example.com"]})),
    ("an SNI host", _tls({"sniHosts": []}), "at least one SNI host", _tls({"sniHosts": ["a.example.com"]})),
    ("an SNI host elsewhere", _tls({"sniHosts": ["a.com"]}), "compatible subset", _tls({"sniHosts": ["*.a.example.com"]})),
    ("an SNI host's label", _tls({"sniHosts": ["a_b!.example.com"]}), "label 'a_b!' invalid", _tls({"sniHosts": ["10.0.0.1"]})),
    ("a TLS subnet", _tls({"sniHosts": ["a.example.com"], "destinationSubnets": ["10.0.0.0/33"]}), "CIDR", _tls({"sniHosts": ["a.example.com"], "destinationSubnets": ["2001:1::1/64"]})),
    ("a TCP subnet", _tcp(destinationSubnets=["foo"]), "valid IP", _tcp(destinationSubnets=["10.0.0.1", "10.0.0.0/8"])),
    ("a TCP subnet's length", _tcp(destinationSubnets=["10.0.0.0/08"]), "CIDR", _tcp(destinationSubnets=["10.0.0.0/0"])),
    ("a TCP route", _service(tcp=[{}]), "TCP route is required", _service(tcp=[FORWARD])),
    ("a TCP port", _service(tcp=[{**FORWARD, "match": [{"port": 65536}]}]), "port number", _service(tcp=[{**FORWARD, "match": [{"port": 1}]}])),
    # DestinationRules.
    ("a rule's host", _rule(host=""), "empty domain", _rule(host="*.local")),
    ("a subset's key", _rule(subsets=[{}]), "name: Required", _rule(subsets=[{"name": "v1"}])),
    ("a subset's name", _rule(subsets=[{"name": ""}]), "subset name cannot be empty", _rule(subsets=[{"name": "v1"}])),
    ("a subset's DNS name", _rule(subsets=[{"name": "v 1"}]), "subset name is invalid", _rule(subsets=[{"name": "v-1"}])),
    ("a subset twice", _rule(subsets=[{"name": "a"}, {"name": "a"}]), "duplicate subset names", _rule(subsets=[{"name": "a"}, {"name": "b"}])),
    ("a subset's labels", _rule(subsets=[{"name": "a", "labels": {"": "b"}}]), "tag key", _rule(subsets=[{"name": "a", "labels": {"b": "c"}}])),
    ("an empty policy", _rule(trafficPolicy={}), "at least one field", _rule(trafficPolicy={"tls": {"mode": "DISABLE"}})),
    ("an empty pool", _rule(trafficPolicy={"connectionPool": {}}), "connection pool", _rule(trafficPolicy={"connectionPool": {"tcp": {}}})),
    ("a pool's bound", _rule(trafficPolicy={"connectionPool": {"tcp": {"maxConnections": -1}}}), "non-negative", _rule(trafficPolicy={"connectionPool": {"tcp": {"maxConnections": 1}}})),
    ("a pool's time", _rule(trafficPolicy={"connectionPool": {"http": {"idleTimeout": "1.5ms"}}}), "ms precision", _rule(trafficPolicy={"connectionPool": {"http": {"idleTimeout": "1s"}}})),
    ("an ejection's share", _rule(trafficPolicy={"outlierDetection": {"maxEjectionPercent": 101}}), "0..100", _rule(trafficPolicy={"outlierDetection": {"maxEjectionPercent": 100}})),
    ("an ejection's time", _rule(trafficPolicy={"outlierDetection": {"interval": "1.5ms"}}), "ms precision", _rule(trafficPolicy={"outlierDetection": {"interval": "1s"}})),
    ("mutual TLS", _rule(trafficPolicy={"tls": {"mode": "MUTUAL", "privateKey": "k"}}), "clientCertificate required", _rule(trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}})),
    ("a policy of something known", _policy(retries=3), "at least one field", _policy(retryBudget={"percent": 20})),
    ("words of TLS", _policy(tls={"mode": "mutual"}), "Unsupported value", _policy(tls={"mode": "DISABLE"})),
    ("words of a balancer", _balancer(simple="ROUNDROBIN"), "Unsupported value", _balancer(simple="ROUND_ROBIN")),
    ("one kind of balancer", _balancer(simple="RANDOM", consistentHash={}), "at most one of", _balancer(simple="RANDOM")),
    ("one thing to hash", _balancer(consistentHash={"useSourceIp": True, "httpHeaderName": "a"}), "at most one of", _balancer(consistentHash={"useSourceIp": True})),
    ("one way to hash", _balancer(consistentHash={"maglev": {}, "ringHash": {}}), "at most one of", _balancer(consistentHash={"ringHash": {}})),
    ("a cookie's name", _cookie(name=""), "name required", _cookie(name="a")),
    ("a cookie's key", _cookie(), "name: Required", _cookie(name="a", attributes=[{"name": "b"}])),
    ("a cookie's attribute twice", _cookie(name="a", attributes=[{"name": "b"}, {"name": "b"}]), "duplicate cookie attribute", _cookie(name="a", attributes=[{"name": "b"}, {"name": "c"}])),
    ("a cookie's attribute's name", _cookie(name="a", attributes=[{"name": ""}]), "cookie attribute name", _cookie(name="a", attributes=[])),
    ("a ring of old", _balancer(consistentHash={"minimumRingSize": 1, "ringHash": {}}), "only one of MinimumRingSize", _balancer(consistentHash={"ringHash": {"minimumRingSize": 1}})),
    ("a table's size", _balancer(consistentHash={"maglev": {}}), "must be set", _balancer(consistentHash={"maglev": {"tableSize": 3}})),
    ("a prime table", _balancer(consistentHash={"maglev": {"tableSize": 9}}), "prime", _balancer(consistentHash={"maglev": {"tableSize": 65537}})),
    ("a table's bound", _balancer(consistentHash={"maglev": {"tableSize": 5000011}}), "less than", _balancer(consistentHash={"maglev": {"tableSize": 4999999}})),
    ("one notion of place", _balancer(localityLbSetting={}, zoneAwareLbSetting={}), "only one of localityLbSetting", _balancer(localityLbSetting={})),
    ("a warm-up's time", _balancer(warmup={}), "duration: Required", _balancer(warmup={"duration": "1s"})),
    ("a warm-up's aggression", _balancer(warmup={"duration": "1s", "aggression": 0}), "greater than 0", _balancer(warmup={"duration": "1s", "aggression": 0.1})),
    ("a warm-up's percentage", _balancer(warmup={"duration": "1s", "minimumPercent": 101}), "from 0 to 100", _balancer(warmup={"duration": "1s", "minimumPercent": 100})),
    ("a port that is a number", _at_port(port=9080, tls={}), "port: must be of type object", _at_port(port={"number": 9080}, tls={})),
    ("a port's settings for a port", _at_port(tls={}), "must have valid port", _at_port(port={"number": 1}, tls={})),
    ("a port's settings", _at_port(port={"number": 1}), "port traffic policy must have", _at_port(port={"number": 1}, outlierDetection={})),
    ("a port's pool", _at_port(port={"number": 1}, connectionPool={"tcp": "x"}), "tcp: must be of type object", _at_port(port={"number": 1}, connectionPool={"tcp": {}})),
    ("a port's timeout", _at_port(port={"number": 1}, connectionPool={"tcp": {"connectTimeout": "5"}}), "valid duration", _at_port(port={"number": 1}, connectionPool={"tcp": {"connectTimeout": "5s"}})),
    ("a port's bound", _at_port(port={"number": 1}, connectionPool={"http": {"maxRetries": -1}}), "non-negative", _at_port(port={"number": 1}, connectionPool={"http": {"maxRetries": 0}})),
    ("a port's hash", _at_port(port={"number": 1}, loadBalancer={"consistentHash": {"maglev": {}}}), "must be set", _at_port(port={"number": 1}, loadBalancer={})),
    ("local failures alone", _policy(outlierDetection={"consecutiveLocalOriginFailures": 5}), "split external local origin", _policy(outlierDetection={"consecutiveLocalOriginFailures": 5, "splitExternalLocalOriginErrors": True})),
    ("a code of outliers", _policy(outlierDetection={"outlierDetectionHttpErrorCodes": [600]}), "from 100 to 599", _policy(outlierDetection={"outlierDetectionHttpErrorCodes": [503]})),
    ("no upgrade against the client", _policy(connectionPool={"http": {"h2UpgradePolicy": "UPGRADE", "useClientProtocol": True}}), "use client protocol", _policy(connectionPool={"http": {"h2UpgradePolicy": "UPGRADE"}})),
    ("a whole keepalive", _policy(connectionPool={"http": {"http2KeepAlive": {"interval": "1s"}}}), "timeout is required", _policy(connectionPool={"http": {"http2KeepAlive": {"interval": "1s", "timeout": "1s"}}})),
    ("whole milliseconds of a keepalive", _policy(connectionPool={"tcp": {"tcpKeepalive": {"time": "1.5ms"}}}), "ms precision", _policy(connectionPool={"tcp": {"tcpKeepalive": {"time": "1s"}}})),
    ("an idle time", _policy(connectionPool={"tcp": {"idleTimeout": "soon"}}), "idleTimeout", _policy(connectionPool={"tcp": {"idleTimeout": "0s"}})),
    ("no tunnel with the proxy protocol", _policy(tunnel={"targetHost": "a", "targetPort": 1}, proxyProtocol={}), "must not be set together", _policy(proxyProtocol={"version": "V2"})),
    ("a tunnel's end", _policy(tunnel={"protocol": "CONNECT"}), "targetHost: Required", _policy(tunnel={"protocol": "CONNECT", "targetHost": "10.0.0.1", "targetPort": 1})),
    ("a tunnel's protocol", _policy(tunnel={"protocol": "GET", "targetHost": "a", "targetPort": 1}), "tunnel protocol", _policy(tunnel={"targetHost": "a", "targetPort": 1})),
    ("a tunnel's host", _policy(tunnel={"targetHost": "*.a", "targetPort": 1}), "tunnel target host", _policy(tunnel={"targetHost": "a.b", "targetPort": 1})),
    ("a tunnel's port", _policy(tunnel={"targetHost": "a", "targetPort": 0}), "tunnel target port", _policy(tunnel={"targetHost": "a", "targetPort": 65535})),
    ("a secret or files", _policy(tls={"mode": "SIMPLE", "credentialName": "a", "caCertificates": "b"}), "if credentialName is set", _policy(tls={"mode": "MUTUAL", "credentialName": "a"})),
    ("no names unchecked", _policy(tls={"mode": "MUTUAL", "insecureSkipVerify": True, "subjectAltNames": ["a"], "clientCertificate": "c", "privateKey": "k"}), "insecureSkipVerify", _policy(tls={"mode": "SIMPLE", "insecureSkipVerify": True})),
    ("a selector at home", _rule(workloadSelector={"matchLabels": {"a": "b"}}, exportTo=["*"]), "beyond current namespace", _rule(workloadSelector={"matchLabels": {"a": "b"}}, exportTo=["."])),
    ("a selector in one place", _rule(workloadSelector={}, exportTo=[".", "other"]), "multiple entries", _rule(workloadSelector={}, exportTo=["default"])),
    ("a selector's wildcard", _rule(workloadSelector={"matchLabels": {"a": "*"}}), "wildcard", _rule(workloadSelector={"matchLabels": {"a": "b"}})),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "refused", "said", "accepted"), RULES, ids=[row[0] for row in RULES])
def test_a_rule_refuses_and_just_accepts(rule: str, refused: Object, said: str, accepted: Object) -> None:
    assert any(said in text for text in problems(refused)), (rule, problems(refused))
    assert problems(accepted) == [], rule


WARNINGS: list[tuple[str, Object, str, Object]] = [
    ("mirrorPercent", _to(mirrorPercent=1), "mirrorPercent", _to(mirrorPercentage={"value": 1})),
    ("a gateway of old in TLS", _tls({"sniHosts": ["a.example.com"], "gateways": ["gw.ns.svc.cluster.local"]}), '"ns/gw"', _tls({"sniHosts": ["a.example.com"], "gateways": ["ns/gw"]})),
    ("a gateway of old after the mesh", _hosts("a", gateways=["gw.ns", "mesh"]), '"ns/gw"', _hosts("a", gateways=["mesh", "gw.ns"])),
    ("an address for SNI", _tls({"sniHosts": ["10.0.0.1"]}), "goes against SNI", _tls({"sniHosts": ["a.example.com"]})),
    ("the same match of tls", _service(hosts=["*.example.com"], tls=[{"match": [{"sniHosts": ["a.example.com"]}], **FORWARD}] * 2), "duplicate/overlapping", _tls({"sniHosts": ["a.example.com"]})),
    ("the same match of tcp", _service(tcp=[{"match": [{"port": 1}], **FORWARD}] * 2), "duplicate/overlapping", _service(tcp=[{"match": [{"port": 1}], **FORWARD}])),
    ("failing over without ejections", _balancer(localityLbSetting={"failover": [{"from": "eu", "to": "us"}]}), "outlier detection policy must", _policy(loadBalancer={"localityLbSetting": {"failover": [{"from": "eu", "to": "us"}]}}, outlierDetection={})),
    ("failing over by zone without ejections", _balancer(zoneAwareLbSetting={"failoverPriority": ["x"]}), "outlier detection policy must", _balancer(zoneAwareLbSetting={})),
    ("a gateway of old, for all", _hosts("a", gateways=["gw.ns"]), '"ns/gw"', _hosts("a", gateways=["gw"])),
    ("a large answer", _only(directResponse={"status": 200, "body": {"string": "x" * 102401}}), "large", _only(directResponse={"status": 200, "body": {"string": "x" * 102400}})),
    ("outliers of old", _policy(outlierDetection={"consecutiveErrors": 5}), "consecutiveGatewayErrors", _policy(outlierDetection={"consecutive5xxErrors": 5})),
    ("outliers of old for all ports", _policy(outlierDetection={"consecutiveErrors": 5}), "consecutiveGatewayErrors", _rule(trafficPolicy={"portLevelSettings": [{"port": {"number": 1}, "outlierDetection": {"consecutiveErrors": 5}}]}, subsets=[{"name": "v1", "trafficPolicy": {"outlierDetection": {"consecutiveErrors": 5}}}])),
    ("a hash ring of old", _balancer(consistentHash={"minimumRingSize": 5}), "RingHash", _balancer(consistentHash={"ringHash": {}})),
    ("a second rule for all", _service(http=[FORWARD, FORWARD]), "only the last rule", _service(http=[{**FORWARD, "match": [{"port": 1}]}, FORWARD])),
    ("a rule after one for all", _service(http=[FORWARD, {**FORWARD, "match": [{"port": 1}, {"port": 2}]}]), "rule #1 not used (route without matches defined before)", _service(http=[{**FORWARD, "match": [{"port": 1}, {"port": 2}]}, FORWARD])),
    ("the same match", _to(match=[{"port": 1, "name": "a"}, {"port": 1, "name": "b", "headers": {}, "xNew": 1}]), "duplicate/overlapping", _to(match=[{"port": 1}, {"port": 2}])),
    ("the same matches", _service(http=[{**FORWARD, "match": [{"port": 1}]}] * 2), "all matches used", _service(http=[{**FORWARD, "match": [{"port": p}]} for p in (1, 2)])),
    ("a longer prefix later", _to(match=[{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/ab"}}]), "of prefix /ab", _to(match=[{"uri": {"prefix": "/ab"}}, {"uri": {"prefix": "/a"}}])),
    ("a longer prefix, same header", _to(match=[{"uri": {"prefix": p}, "headers": {"a": {"regex": "x"}}} for p in ("/a", "/ab")]), "of prefix /ab", _to(match=[{"uri": {"prefix": "/a"}, "headers": {"a": {}}}, {"uri": {"prefix": "/ab"}, "headers": {"b": {}}}])),
    ("a longer prefix, method GET", _to(match=[{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/ab"}, "method": {"exact": "GET"}}]), "of prefix /ab", _to(match=[{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/ab"}, "method": {"exact": "PUT"}}])),
    ("a longer prefix, same port", _to(match=[{"uri": {"prefix": p}, "port": 1} for p in ("/a", "/ab")]), "of prefix /ab", _to(match=[{"uri": {"prefix": "/a"}, "port": 1}, {"uri": {"prefix": "/ab"}, "port": 2}])),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "warned", "said", "quiet"), WARNINGS, ids=[row[0] for row in WARNINGS])
def test_what_is_let_through_with_a_warning(rule: str, warned: Object, said: str, quiet: Object) -> None:
    assert any(said in text for text in warnings(warned)), (rule, warnings(warned))
    assert problems(warned) == problems(quiet) == []
    assert warnings(quiet) == []


@pytest.mark.parametrize(
    ("refused", "accepted"),
    [
        (_abort(httpStatus=600), _abort(httpStatus=599)),
        (_only(directResponse={"status": 600}), _only(directResponse={"status": 599})),
        (_only(redirect={"uri": "/a", "redirectCode": 304}), _only(redirect={"uri": "/a", "redirectCode": 308})),
        (_split(2**31 - 1, 2**31 - 1, 2), _split(2**31 - 1, 2**31 - 1, 1)),
    ],
)
def test_what_only_envoy_refuses(refused: Object, accepted: Object) -> None:
    assert problems(refused) == problems(accepted) == envoy_problems(accepted) == []
    assert len(envoy_problems(refused)) == 1


VALUES = [
    *((value, None) for value in ("", "50%%", "%%", "%REQ(x)%", "a %REQ(x)% b", "%REQ(a%b)%", "%REQ(x) %", "%NOPE%", "%A%%B%")),
    *((value, None) for value in ("%START_TIME(%s)%", "%START_TIME(%Y%m%d)%", "%START_TIME(%s.%3f)%", "%REQ(a\\)b)%")),
    *((value, None) for value in ('%DYNAMIC_METADATA(["a", "b"])%', '%DYNAMIC_METADATA( [ "a%" ] )%')),
    *((value, "un-escaped") for value in ("%", "50%", "%REQ(x)%%")),
    *((value, "un-terminated") for value in ("%REQ(x%", "%REQ()%", "%a", "%REQ(x)", '%D(["a"', "abc%123", "%R(a\\")),
    *((value, "expecting") for value in ("%REQ(x)foo%", "%D([a])%", '%D(["a" "b"])%', '%D(["a"]x)%', '%D(["a)"])%')),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), VALUES)
def test_a_headers_value_is_read_as_envoy_reads_it(value: str, said: str | None) -> None:
    found = problems(_headers("response", set={"a": value}))

    assert found == [] if said is None else said in str(found)


def test_other_kinds_are_refused() -> None:
    assert problems({"kind": "Gateway", "spec": {}}) == ["'Gateway' is neither a VirtualService nor a DestinationRule"]
    assert problems([]) == ["the object must be of type object"]
    assert warnings(_rule()) == envoy_problems(_rule()) == []


@settings(max_examples=60)
@given(virtual_services())
def test_fields_that_nobody_knows_are_no_problem(object_: Object) -> None:
    assert problems(object_) == []
    assert isinstance(warnings(object_) + envoy_problems(object_), list)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


EXAMPLES = [refused for _, refused, _, _ in RULES] + [accepted for *_, accepted in RULES]


@settings(max_examples=250)
@given(st.data(), st.sampled_from(EXAMPLES), json_values | st.just(float("nan")) | st.just("\ud800") | st.just(10**400))
def test_nonsense_anywhere_is_answered_and_never_raises(data: st.DataObject, example: Object, value: Any) -> None:
    object_: Any = {"all": copy.deepcopy(example)}
    place: tuple[Any, ...] = ("all", *data.draw(st.sampled_from(_places(example))))
    here = object_
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value

    said = problems(object_["all"])

    assert "" not in said + warnings(object_["all"])
    envoy_problems(object_["all"])
    if len(place) < 3:
        assert said, "neither the object nor its kind, metadata or spec can be just anything"


@given(json_values)
def test_what_is_no_object_is_answered_too(value: Any) -> None:
    for object_ in (value, {"kind": value}, {"kind": "VirtualService", "spec": value}):
        assert problems(object_)
        assert warnings(object_) == envoy_problems(object_) == []
