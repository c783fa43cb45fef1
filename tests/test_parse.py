"""Files become documents, or a list of every problem, each at its place."""

from __future__ import annotations

import copy
import textwrap
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from luff.default_claims import expect_block
from luff.errors import InvalidFile, Problem
from luff.model import (
    AnswerExpectation,
    Arm,
    AttemptsExpectation,
    ControlTripwire,
    ErrorsExpectation,
    Experiment,
    FallbackExpectation,
    HttpTripwire,
    LatencyExpectation,
    NoWorseThanExpectation,
    PrometheusTripwire,
    RecoveryExpectation,
)
from luff.parse import Documents, parse_documents
from luff.yaml_nodes import ALIASED_MOST, DEPTH_MOST

SMALLEST = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: checkout-survives-slow-inventory}
spec:
  target: inventory
  fault: {delay: 3s}
  traffic: GET http://checkout/cart/42
"""
LONG = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: checkout-survives-slow-inventory}
spec:
  target: {host: inventory}
  fault: {delay: {duration: 3s, percent: 100}}
  traffic: {requests: [{method: GET, url: "http://checkout/cart/42"}]}
"""
EXPECT = """\
  expect:
    - latency: {p99: 1s}
    - fallback: {json: {path: $.stock, equals: unknown}}
"""
EVERYTHING = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata:
  name: reviews-survives-slow-ratings
  namespace: bookinfo
  labels: {team: books, tier: "1"}
  annotations: {luff.dev/expected: passed}
spec:
  hypothesis: When ratings slows down by 5 s, reviews answers within 2.8 s and leaves the stars out.
  target: {host: ratings, namespace: bookinfo, subset: v1, port: 9080, routes: [main], from: {app: reviews}}
  subject: reviews
  scope: {carrier: any, header: x-luff-run}
  fault:
    delay: {duration: 5s, percent: 100}
    abort: {grpc: UNAVAILABLE, percent: 10}
  traffic:
    requests:
      - {name: page, method: GET, url: "http://reviews.bookinfo:9080/reviews/0", headers: {accept: application/json}, body: null, weight: 1}
      - name: order
        method: POST
        url: http://reviews.bookinfo:9080/orders/{{uuid}}
        headers: {authorization: {fromEnv: LUFF_SECRET_TOKEN}}
        body: '{"number": {{seq}}}'
    rate: 20/s
    duration: 60s
    timeout: 15s
    warmup: 3s
    control: true
    via: {connect: "127.0.0.1:8080", tls: {ca: ca.pem, serverName: reviews}, protocol: http2}
  expect:
    - {id: gives-up-in-time, latency: {p99: 2800ms}}
    - {id: leaves-the-stars-out, fallback: {status: 200, json: {path: "$.reviews[*].rating.stars", exists: false}}}
    - {id: few-errors, errors: {atMost: 1%, status: [500, 5xx]}}
    - {id: bystanders, arm: control, latency: {p95: 300ms}}
    - {id: answers, answer: {status: [200, 3xx], body: {contains: ok}, header: {name: x-a, matches: "^b"}, atLeast: 98%}}
    - {id: no-storm, attempts: {of: ratings, atMost: 3}}
    - {id: as-before, noWorseThan: {arm: control, by: 5%}}
    - {id: recovers, recovery: {within: 10s}}
  confidence: 95%
  stopEarly: true
  evidence: {source: auto, atLeast: 99%}
  abortOn:
    - control: {errors: {above: 5%}}
    - prometheus: {query: "up", above: 0.01, for: 10s}
    - http: {url: "http://health/", status: 2xx}
  restore: {ttl: 10m}
  knownFailure: {reason: "as ever", until: 2027-01-31}
"""
OTHERS = """\
apiVersion: luff.dev/v1alpha1
kind: LabWorkload
metadata: {name: reviews-v3, namespace: bookinfo, labels: {app: reviews, version: v3}}
spec:
  service: reviews
  port: 9080
  run: [python, -m, my.reviews]
  env: {RATINGS_URL: "${peer:ratings:9080}"}
  ready: /healthz
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {name: shop-core}
spec: {experiments: [checkout-*, {ref: cart-*, matrix: {fault: [{delay: 1s}, {abort: 503}]}}]}
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {name: shop-monthly}
spec:
  schedule: {cron: "0 10 * * TUE#1", timeZone: Europe/Berlin, window: 2h, misfire: skip, overlap: forbid, jitter: 0s}
  suites: [shop-core]
  people: {owner: team-shop, approvers: [platform-oncall, team-shop], approvals: 1, approveBy: 1h}
  skipWhen: [canaryProgressing, {ics: ops-freeze.ics}, {prometheus: {query: "ALERTS", above: 0}}]
  expected: {checkout-survives-slow-inventory: passed}
  announce: {before: [7d, 10m], to: [slack-shop]}
---
apiVersion: luff.dev/v1alpha1
kind: Policy
metadata: {name: prod}
spec: {contexts: [prod-*], hours: "09:00-17:00 Europe/Berlin", maxDelay: 10s, maxRate: 100/s, maxHeld: 100, maxTtl: 10m}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec: {hosts: [ratings], unheard-of: 1}
"""


def parsed(text: str, **overrides: str) -> Experiment:
    """Return the one experiment in *text*."""
    dotted = {path.replace("__", "."): value for path, value in overrides.items()}
    (experiment,) = parse_documents([("a.yaml", text)], overrides=dotted).experiments
    return experiment


def problems_of(*texts: str, overrides: dict[str, str] | None = None) -> tuple[Problem, ...]:
    """Return what is wrong with *texts*, which are the files a.yaml, b.yaml and so on."""
    sources = [(f"{name}.yaml", text) for name, text in zip("abcdef", texts, strict=False)]
    with pytest.raises(InvalidFile) as caught:
        parse_documents(sources, overrides=overrides or {})
    return caught.value.problems


def spec(text: str) -> str:
    """Return an experiment whose spec is *text*; its first line is line 5."""
    head = "apiVersion: luff.dev/v1alpha1\nkind: Experiment\nmetadata: {name: e}\nspec:\n"
    return head + textwrap.indent(textwrap.dedent(text).lstrip("\n"), "  ")


def other(kind: str, text: str) -> str:
    """Return a document of *kind* whose spec, on line 4, is *text*."""
    return f"apiVersion: luff.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: e}}\nspec: {text}\n"


GOOD = "target: inventory\nfault: {delay: 3s}\ntraffic: GET http://checkout/\n"
"""The first three lines of a spec, 5 to 7; what follows begins in line 8."""


# --- what is read ------------------------------------------------------------------------------------------------


def test_the_smallest_experiment_is_read_with_every_default() -> None:
    experiment = parsed(SMALLEST + EXPECT)

    assert experiment.spec.target.host == "inventory"
    assert experiment.spec.fault.delay is not None
    assert (experiment.spec.fault.delay.duration_s, experiment.spec.fault.delay.percent) == (3.0, 100.0)
    assert [(r.method, r.url) for r in experiment.spec.traffic.requests] == [("GET", "http://checkout/cart/42")]
    assert [type(e) for e in experiment.spec.expect] == [LatencyExpectation, FallbackExpectation]
    assert experiment.spec.abort_on == (ControlTripwire(),)
    assert not experiment.defaults


def test_the_whole_contract_is_read() -> None:
    experiment = parsed(EVERYTHING)

    assert [type(e) for e in experiment.spec.expect] == [
        LatencyExpectation, FallbackExpectation, ErrorsExpectation, LatencyExpectation, AnswerExpectation,
        AttemptsExpectation, NoWorseThanExpectation, RecoveryExpectation,
    ]  # fmt: skip
    assert [type(t) for t in experiment.spec.abort_on] == [ControlTripwire, PrometheusTripwire, HttpTripwire]
    assert [e.arm for e in experiment.spec.expect].count(Arm.CONTROL) == 1
    assert experiment.spec.known_failure is not None
    assert experiment.spec.known_failure.until == "2027-01-31"


def test_the_other_kinds_and_manifests_stand_beside_experiments() -> None:
    documents = parse_documents([("a.yaml", SMALLEST), ("b.yaml", OTHERS)])

    assert [each.name for each in documents.experiments] == ["checkout-survives-slow-inventory"]
    assert documents.workloads[0].spec.ready is not None
    assert documents.workloads[0].spec.ready.path == "/healthz"
    assert [entry.ref for entry in documents.suites[0].spec.experiments] == ["checkout-*", "cart-*"]
    assert documents.game_days[0].spec.skip_when[0].canary_progressing is True
    assert documents.policies[0].spec.max_delay_s == 10.0
    (manifest,) = documents.manifests
    assert (manifest.file, manifest.line, manifest.object["spec"]["unheard-of"]) == ("b.yaml", 32, 1)
    assert documents.policies[0].file == "b.yaml"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("target: a\n", "target: {host: a}\n"),
        ("fault: {delay: 3s}\n", "fault: {delay: {duration: 3s, percent: 100%}}\n"),
        ("fault: {abort: 503}\n", "fault: {abort: {http: 503, percent: 100}}\n"),
        ("traffic: GET http://x/\n", "traffic: {requests: [{method: GET, url: 'http://x/'}]}\n"),
        ("traffic: http://x/\n", "traffic: {requests: [http://x/]}\n"),
        ("traffic: {requests: [HEAD http://x/]}\n", "traffic: {requests: [{method: HEAD, url: 'http://x/'}]}\n"),
        ("traffic: {requests: [http://x/], via: direct}\n", "traffic: {requests: [http://x/], via: {mode: direct}}\n"),
        (
            "traffic: {requests: [http://x/], via: direct, connect: 'a:1', tls: {serverName: x}}\n",
            "traffic: {requests: [http://x/], via: {mode: direct, connect: 'a:1', tls: {serverName: x}}}\n",
        ),
        ("traffic: {requests: [http://x/], protocol: http2}\n", "traffic: {requests: [http://x/], via: {protocol: http2}}\n"),
        ("traffic: {requests: [http://x/], connect: 'a:1'}\n", "traffic: {requests: [http://x/], via: {connect: 'a:1'}}\n"),
        ("scope: header\n", "scope: {carrier: header}\n"),
        ("expect: [errors: {atMost: 1}]\n", "expect: [{id: errors, arm: fault, errors: {atMost: 1%, status: [5xx]}}]\n"),
        ("expect: [answer: {status: 200}]\n", "expect: [{answer: {status: ['200'], atLeast: 99%}}]\n"),
        ("abortOn: [http: {url: 'http://x'}]\n", "abortOn: [control: {errors: {above: 5%}}, http: {url: 'http://x', status: 2xx}]\n"),
    ],
)  # fmt: skip
def test_a_short_form_is_the_long_form(short: str, long: str) -> None:
    lines = {"target": "target: inventory\n", "fault": "fault: {delay: 3s}\n", "traffic": "traffic: GET http://c/\n"}
    rest = "".join(line for name, line in lines.items() if not short.startswith(name))

    assert parsed(spec(short + rest)).model_dump() == parsed(spec(long + rest)).model_dump()


def test_every_place_is_kept() -> None:
    experiment = parsed(SMALLEST + EXPECT)

    assert experiment.file == "a.yaml"
    assert experiment.lines["latency-p99"] == 9
    assert experiment.lines["fallback"] == 10
    assert experiment.lines["spec.target"] == 5
    assert experiment.lines["spec.fault.delay"] == 6


def test_expectations_are_named_by_kind_and_quantile() -> None:
    items = [
        "latency: {p99: 1s}",
        "latency: {p99: 2s}",
        "{id: latency-p99-3, latency: {p50: 1s}}",
        "latency: {p99: 2500ms}",
    ]

    experiment = parsed(spec(GOOD + "expect:\n" + "".join(f"  - {item}\n" for item in items)))

    assert [e.id for e in experiment.spec.expect] == ["latency-p99", "latency-p99-2", "latency-p99-3", "latency-p99-4"]


def test_without_expectations_there_are_defaults_and_the_block_to_paste_says_the_same() -> None:
    experiment = parsed(SMALLEST)

    pasted = parsed(SMALLEST + textwrap.indent(expect_block(experiment), "  "))

    assert experiment.defaults
    assert not pasted.defaults
    assert [e.kind for e in experiment.spec.expect] == ["errors", "latency", "noWorseThan", "recovery"]
    assert pasted.spec.expect == experiment.spec.expect


@pytest.mark.parametrize(("delay", "limit_s"), [("3s", 2.9), ("200ms", 0.18), ("1ms", 0.001)])
def test_giving_up_by_default_means_clearly_before_the_delay_is_over(delay: str, limit_s: float) -> None:
    experiment = parsed(SMALLEST.replace("3s", delay))

    assert experiment.spec.expect[1].limit_s == limit_s  # type: ignore[union-attr]  # the second default is about latency


def test_several_faults_are_one_problem() -> None:
    found = problems_of(spec("faults: [{target: a, fault: {delay: 3s}}]\ntraffic: http://a/\n"))

    assert [problem.message for problem in found] == ["faults is reserved, not supported yet"]


def test_any_expectations_can_be_shown_as_a_block_to_paste() -> None:
    experiment = parsed(EVERYTHING)
    document = yaml.safe_load(EVERYTHING)
    document["spec"]["knownFailure"]["until"] = "2027-01-31"
    document["spec"]["expect"] = yaml.safe_load(expect_block(experiment))["expect"]

    assert parsed(yaml.safe_dump(document)).spec.expect == experiment.spec.expect


def test_without_control_requests_no_default_needs_them() -> None:
    [experiment] = parse_documents(
        [("e.yaml", spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], control: false}\n"))]
    ).experiments

    assert [each.id for each in experiment.spec.expect] == ["answers", "gives-up-in-time"]


def test_an_abort_has_no_default_about_giving_up() -> None:
    experiment = parsed(spec("target: a\nfault: {abort: 503}\ntraffic: GET http://x/\n"))

    assert [e.kind for e in experiment.spec.expect] == ["errors", "noWorseThan", "recovery"]


def test_aliases_and_merge_keys_are_written_out() -> None:
    text = spec("target: &t {host: a, port: 80}\nfault: {delay: 3s}\ntraffic: GET http://x/\n").replace(
        "name: e}", "name: e, labels: {<<: {a: b, c: d}, c: e}}"
    )

    assert parsed(text).metadata.labels == {"a": "b", "c": "e"}


@pytest.mark.parametrize("text", ["", "\n", "---\n", "# nothing\n", "---\n---\n"])
def test_an_empty_file_has_no_documents(text: str) -> None:
    assert parse_documents([("a.yaml", text)]) == Documents()


def test_yaml_1_2_is_read_where_both_versions_agree_after_quoting() -> None:
    labels = '{a: "no", b: "1:30", c: "0o17", d: "2020-01-01", e: "010"}'

    experiment = parsed(SMALLEST.replace("slow-inventory}", f"slow-inventory, labels: {labels}}}"))

    assert set(experiment.metadata.labels.values()) == {"no", "1:30", "0o17", "2020-01-01", "010"}


# --- overrides ---------------------------------------------------------------------------------------------------


def test_overrides_reach_into_short_forms_and_make_what_is_not_there() -> None:
    experiment = parsed(
        SMALLEST + EXPECT,
        spec__traffic__rate="40/s",
        spec__fault__delay__percent="50",
        spec__expect__0__latency__p99="2s",
        spec__restore__ttl="20m",
        spec__target="{host: other}",
    )

    assert experiment.spec.traffic.rate_hz == 40.0
    assert experiment.spec.fault.delay is not None
    assert experiment.spec.fault.delay.percent == 50.0
    assert isinstance(experiment.spec.expect[0], LatencyExpectation)
    assert experiment.spec.expect[0].limit_s == 2.0
    assert experiment.spec.restore.ttl_s == 1200.0
    assert experiment.spec.target.host == "other"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.traffic.rte", "1/s", "unknown field 'rte' in spec.traffic (did you mean 'rate'?)"),
        ("spec.expect.7.latency.p99", "1s", "leads nowhere"),
        ("spec.target.host.name", "x", "leads nowhere"),
        ("spec..rate", "x", "is not a path"),
        ("spec.traffic.rate", "fast", "'fast' is not a rate"),
        ("spec.traffic.rate", "[", "this is not YAML"),
        ("nonsense", "1", "unknown field 'nonsense'"),
    ],
)
def test_an_override_that_cannot_be_applied_is_a_problem_of_its_own(path: str, value: str, message: str) -> None:
    (problem,) = problems_of(SMALLEST + EXPECT, overrides={path: value})

    assert (problem.file, problem.line, problem.column) == ("--set", 1, 1)
    assert message in str(problem)


# --- what is refused ---------------------------------------------------------------------------------------------

Row = tuple[str, int, int, str]

REFUSALS: list[Row] = [
    # broken YAML
    ("a: [", 1, 5, "this is not YAML"),
    ("a:\n\t- b\n", 2, 1, "indent with spaces"),
    ("a: b: c\n", 1, 5, "mapping values are not allowed"),
    ("a: \x01\n", 1, 4, "U+0001"),
    ('a: "\\UFFFFFFFF"\n', 1, 7, "this is not YAML"),
    ('a: "\\ud800"\n', 1, 4, "half a character"),
    ("- a\n", 1, 1, "a document must be a mapping, not a list"),
    ("just text\n", 1, 1, "a document must be a mapping"),
    ("kind: Experiment\n", 1, 1, "apiVersion is missing"),
    ("apiVersion: v1\n", 1, 1, "kind is missing"),
    ("apiVersion: luff.dev/v1alpha1\nkind: Experimnt\n", 2, 7, "did you mean 'Experiment'?"),
    ("apiVersion: luff.dev/v9\nkind: Experiment\n", 1, 13, "not supported"),
    ("apiVersion: lufff.dev/v1alpha1\nkind: Thing\n", 1, 13, "write apiVersion: luff.dev/v1alpha1"),
    ("apiVersion: v1\nkind: Experiment\n", 1, 13, "there is no Experiment in 'v1'"),
    ("apiVersion: 1\nkind: Experiment\n", 1, 13, "apiVersion must be text"),
    ("apiVersion: v1\nkind: Service\nmetadata: {labels: {a: 1}}\n", 3, 24, 'write it in quotes: "1"'),
    ("apiVersion: v1\nkind: Service\nspec: {x: !!python/name:os.system }\n", 3, 11, "!!python/name:os.system"),
    ("apiVersion: v1\nkind: Service\nspec: {selector: {labels: {a: no}}}\n", 3, 31, "a truth value to YAML 1.1"),
    ("apiVersion: v1\nkind: Service\nspec: {? [a] : b}\n", 3, 10, "a key must be text"),
    ("apiVersion: v1\nkind: Service\nspec: {a: .nan}\n", 3, 11, "not a finite number"),
    ("apiVersion: v1\nkind: Service\nspec: {a: " + "9" * 5000 + "}\n", 3, 11, "too large"),
    ("apiVersion: v1\nkind: Service\nspec: {<<: 1}\n", 3, 12, "<< takes a mapping"),
    # the shape of a document
    (SMALLEST + "stauts: {}\n", 8, 1, "unknown field 'stauts' in the document"),
    (SMALLEST + "  fault: {delay: 2s}\n", 8, 3, "first in line 6, column 3"),
    (SMALLEST.replace("target", "traget"), 5, 3, "did you mean 'target'?"),
    (SMALLEST.replace("  target: inventory\n", ""), 5, 3, "spec needs 'target'"),
    (SMALLEST.replace("{name: checkout-survives-slow-inventory}", "{name: Big_Name}"), 3, 18, "not a DNS label"),
    (SMALLEST.replace("inventory}", "inventory, labels: {a: 1}}"), 3, 64, 'write it in quotes: "1"'),
    (SMALLEST.replace("inventory}", "inventory, labels: {a: yes}}"), 3, 64, 'write "yes"'),
    (SMALLEST.replace("inventory}", "inventory, labels: {a: 1:30}}"), 3, 64, "base of 60"),
    (SMALLEST.replace("inventory}", "inventory, labels: {a: 2020-01-01}}"), 3, 64, "a date"),
    (SMALLEST.replace("inventory}", "inventory, labels: {no: a}}"), 3, 61, 'write "no"'),
    (spec(GOOD.replace("inventory", "{host: inventory, port: 0100}")), 5, 35, "octal"),
    (spec(GOOD + "file: x\n"), 8, 3, "unknown field 'file'"),
    (spec(GOOD + "confidence_percent: 90\n"), 8, 3, "did you mean 'confidence'?"),
    # target and fault
    (spec("target: {}\nfault: {delay: 3s}\ntraffic: GET http://x\n"), 5, 11, "target needs one of"),
    (spec("target: {host: a, virtualService: b}\nfault: {delay: 3s}\ntraffic: GET http://x\n"), 5, 21, "not both"),
    (spec("target: http://a\nfault: {delay: 3s}\ntraffic: GET http://x\n"), 5, 11, "a host name without scheme"),
    (spec("target: a\nfault: {}\ntraffic: GET http://x\n"), 6, 10, "fault breaks nothing"),
    (spec("target: a\nfault: {delay: 3}\ntraffic: GET http://x\n"), 6, 18, "such as 3s"),
    (spec("target: a\nfault: {delay: 3.5}\ntraffic: GET http://x\n"), 6, 18, "such as 3.5s"),
    (spec("target: a\nfault: {delay: 0.1ms}\ntraffic: GET http://x\n"), 6, 18, "write at least 1ms"),
    (spec("target: a\nfault: {delay: 2.5ms}\ntraffic: GET http://x\n"), 6, 18, "whole milliseconds"),
    (spec("target: a\nfault: {delay: {duration: 1s, percent: 0}}\ntraffic: GET http://x\n"), 6, 42, "0.0001%"),
    (spec("target: a\nfault: {delay: {duration: 1s, percent: 0.00001}}\ntraffic: GET http://x\n"), 6, 42, "0.0001%"),
    (spec("target: a\nfault: {delay: {duration: 1s, percent: 101}}\ntraffic: GET http://x\n"), 6, 42, "write 0 to 100"),
    (spec("target: a\nfault: {delay: {sweep: [1s]}}\ntraffic: GET http://x\n"), 6, 19, "reserved, not supported yet"),
    (spec(GOOD + "faults: []\n"), 8, 3, "reserved, not supported yet"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], via: {connect: 'a:1'}, connect: 'b:1'}\n"), 7, 59, "beside via and in it"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], connect: x}\n"), 7, 45, "HOST:PORT"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], protocol: http3}\n"), 7, 46, "did you mean 'http2'"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], foo: 1}\n"), 7, 36,
     "what can stand here: requests, rate, arrivals, stages, duration, timeout, warmup, control, via"),
    (spec("target: {host: a, from: {app: b}, gateways: [gw]}\nfault: {delay: 3s}\ntraffic: http://a/\n"), 5, 47, "keep one of them"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://shop.example.com/\n"), 7, 12, "name it in spec.subject"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://127.0.0.1:80/\n"), 7, 12, "name it in spec.subject"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/, http://b/]}\n"), 7, 35, "goes to a and b"),
    (spec("target: a\nfault: {delay: 3s}\nscope: {header: x-envoy-upstream-rq-timeout-ms}\ntraffic: http://a/\n"), 7, 19, "has a meaning of its own"),
    (spec("target: a\nfault: {delay: 30s}\ntraffic: {requests: [http://a/], rate: 100/s}\n"), 7, 42,
     "100/s x 30 s would hold 3000 requests in the caller; 2000 are allowed here (lower traffic.rate to 66.6/s)"),
    (spec("target: a\nfault: {abort: {}}\ntraffic: GET http://x\n"), 6, 18, "abort needs one of"),
    (spec("target: a\nfault: {abort: {http: 503, grpc: OK}}\ntraffic: GET http://x\n"), 6, 30, "not both"),
    (spec("target: a\nfault: {abort: {grpc: 14}}\ntraffic: GET http://x\n"), 6, 25, "write UNAVAILABLE"),
    (spec("target: a\nfault: {abort: {grpc: unavailable}}\ntraffic: GET http://x\n"), 6, 25, "did you mean 'UNAVAILABLE'?"),
    (spec("target: a\nfault: {abort: UNAVAILABLE}\ntraffic: GET http://x\n"), 6, 18, "write {grpc: UNAVAILABLE}"),
    (spec("target: a\nfault: {abort: 99}\ntraffic: GET http://x\n"), 6, 18, "http must be at least 200"),
    # traffic
    (spec("target: a\nfault: {delay: 3s}\ntraffic: one two three\n"), 7, 12, "write METHOD URL"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: checkout/cart\n"), 7, 12, "write http://checkout/cart"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: ftp://a/\n"), 7, 12, "http:// or https://"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http:///x\n"), 7, 12, "names no host"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: 'http://[::1/x'\n"), 7, 12, "is no URL"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://a:99999/x\n"), 7, 12, "is no URL"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://a:0/x\n"), 7, 12, "port 0"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://xn--a/\n"), 7, 12, "no international name"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://ü..de/\n"), 7, 12, "no international name"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://10.0.0.999/\n"), 7, 12, "no IP address"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: 'http://[v1.x]/'\n"), 7, 12, "no IP address"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://a^b/\n"), 7, 12, "letters, digits, '-', '_' and '.'"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: http://a/" + "x" * 66_000 + "\n"), 7, 12, "proxies take 60000"),
    *(
        (spec(f"target: a\nfault: {{delay: 3s}}\ntraffic: {{requests: [http://a/], connect: '{address}'}}\n"), 7, 45, why)
        for address, why in (
            ("127.0.0.1:99999", "a port from 1 to 65535"), ("127.0.0.1:0", "a port from 1 to 65535"), ("a?b:80", "HOST:PORT"),
            ("::1:80", "in brackets"), ("[:::1]:80", "no IP address"), ("[1.2.3.4]:80", "no IP address"),
            ("127.0.0.256:80", "no IP address"), ("a@b:80", "HOST:PORT"), ("a\\b:80", "HOST:PORT"), ("xn--a:80", "no international name"),
        )
    ),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: get http://a/\n"), 7, 12, "did you mean 'GET'?"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: POST http://a/\n"), 7, 12, "spell out spec.traffic.control"),
    *(
        (spec(f"target: a\nfault: {{delay: 3s}}\ntraffic: {{requests: [http://a/], control: false}}\nexpect: [{one}]\n"), 8, 12, "write spec.traffic.control: true")
        for one in ("fallback: {status: 200}", "noWorseThan: {}", "recovery: {within: 5s}", "{arm: control, latency: {p50: 1s}}")
    ),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: []}\n"), 7, 23, "requests must not be empty"),
    (spec(f"target: a\nfault: {{delay: 3s}}\ntraffic: {{requests: [{'http://a/, ' * 257}]}}\n"), 7, 23, "requests must have at most 256 entries"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: http://a/}\n"), 7, 23, "requests must be a list"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], rate: 20}\n"), 7, 42, "such as 20/s"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], control: yes}\n"), 7, 45, "write true"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], via: job}\n"), 7, 41, "reserved"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], duration: 0s}\n"), 7, 46, "more than 0s"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: {fromEnv: LUFF_SECRET_X}}]}\n"), 7, 30, "headers and body only"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', body: {fromEnv: HOME}}]}\n"), 7, 58, "LUFF_SECRET_"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', headers: {a: 1}}]}\n"), 7, 55, 'write it in quotes: "1"'),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', headers: {X-Luff-Run: a}}]}\n"), 7, 64, "luff itself sets"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', headers: {traceparent: a}}]}\n"), 7, 65, "luff itself sets"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', headers: {baggage: luff-run=1}}]}\n"), 7, 61, "luff itself sets"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', headers: {a b: c}}]}\n"), 7, 57, "is no header name"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{url: 'http://a', headers: {a: \"b\\nc\"}}]}\n"), 7, 55, "no header can carry"),
    (spec(GOOD + "scope: {header: host}\n"), 8, 19, "has a meaning of its own"),
    (spec(GOOD + "scope: {header: X-Run}\n"), 8, 19, "in lower case"),
    (spec(GOOD + "scope: hedaer\n"), 8, 10, "did you mean 'header'?"),
    # expectations
    (spec(GOOD + "expect: []\n"), 8, 11, "leave it out to get the defaults"),
    (spec(GOOD + "expect:\n  - latncy: {p99: 1s}\n"), 9, 7, "did you mean 'latency'?"),
    (spec(GOOD + "expect:\n  - {id: a}\n"), 9, 7, "has no kind"),
    (spec(GOOD + "expect:\n  - latency\n"), 9, 7, "must be a mapping"),
    (spec(GOOD + "expect:\n  - latency: 1s\n"), 9, 16, "latency must be a mapping"),
    (spec(GOOD + "expect:\n  - {latency: {p99: 1s}, errors: {atMost: 1%}}\n"), 9, 28, "one kind"),
    (spec(GOOD + "expect:\n  - {latency: {p99: 1s}, amr: control}\n"), 9, 28, "did you mean 'arm'?"),
    (spec(GOOD + "expect:\n  - latency: {p98: 1s}\n"), 9, 17, "did you mean 'p99'?"),
    (spec(GOOD + "expect:\n  - latency: {p99: 1s, p50: 1s}\n"), 9, 16, "takes one"),
    (spec(GOOD + "expect:\n  - latency: {p99: 1}\n"), 9, 22, "such as 1s"),
    (spec(GOOD + "expect:\n  - latency: {p99: 20s}\n"), 9, 22, "set traffic.timeout to 21s"),
    (spec(GOOD + "expect:\n  - {id: a, latency: {p99: 1s}}\n  - {id: a, latency: {p99: 2s}}\n"), 10, 12, "twice"),
    (spec(GOOD + "expect:\n  - {id: a b, latency: {p99: 1s}}\n"), 9, 12, "letters, digits"),
    (spec(GOOD + "expect:\n  - {arm: contrl, latency: {p99: 1s}}\n"), 9, 13, "did you mean 'control'?"),
    (spec(GOOD + "expect:\n  - errors: {}\n"), 9, 7, "needs 'atMost'"),
    (spec(GOOD + "expect:\n  - errors: {atMost: 100%}\n"), 9, 7, "holds whatever happens"),
    (spec(GOOD + "expect:\n  - errors: {atMost: 1%, status: 5X}\n"), 9, 36, "a class of them such as 5xx"),
    (spec(GOOD + "expect:\n  - answer: {}\n"), 9, 15, "claims nothing"),
    (spec(GOOD + "expect:\n  - answer: {body: {}}\n"), 9, 22, "give contains, matches, or both"),
    (spec(GOOD + "expect:\n  - answer: {body: {matches: '('}}\n"), 9, 32, "no regular expression"),
    (spec(GOOD + "expect:\n  - answer: {json: {path: stock}}\n"), 9, 29, "does not begin with $"),
    (spec(GOOD + "expect:\n  - answer: {json: {path: $.a, exist: true}}\n"), 9, 34, "did you mean 'exists'?"),
    (spec(GOOD + "expect:\n  - {arm: control, fallback: {status: 200}}\n"), 9, 13, "write answer instead"),
    (spec(GOOD + "expect:\n  - recovery: {within: 1s}\n"), 9, 7, "write within: 3s or more"),
    (spec(GOOD + "expect:\n  - noWorseThan: {arm: control, by: 0%}\n"), 9, 7, "write by: 1% or more"),
    (spec(GOOD + "expect:\n  - latency: {p999: 1s}\n"), 9, 7, "p999 at 95 % confidence needs at least"),
    # bounds
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], duration: 2s}\nexpect: [latency: {p99: 1s}]\n"),
     8, 12, "p99 at 95 % confidence needs at least 328 requests; 20/s for 2 s sends 40 (set traffic.duration to 17s, or traffic.rate to 164/s)"),
    (spec(GOOD + "confidence: 100%\n"), 8, 15, "cannot be reached"),
    (spec(GOOD + "restore: {ttl: 1m}\n"), 8, 18, "set restore.ttl to 130s"),
    (spec(GOOD + "restore: {ttl: 2h}\n"), 8, 18, "set restore.ttl to 1h"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], duration: 2h}\nrestore: {ttl: 3h}\n"), 7, 46, "set traffic.duration to 3530s"),
    (spec("target: a\nfault: {delay: 3s}\nrestore: {ttl: 10m}\ntraffic: {requests: [http://a/], duration: 50m, timeout: 65s, warmup: 3s}\n"), 7, 18, "set restore.ttl to 53m"),
    (spec(GOOD + "restore: 10m\n"), 8, 12, "restore must be a mapping"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], rate: 60000/s}\n"), 7, 42, "write at most 50000/s"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{for: 10s, rate: 60000/s}]}\n"),
     7, 62, "write at most 50000/s"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{rate: 20/s}]}\n"), 7, 45, "needs 'for'"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{for: 10s, rate: 50/s}], duration: 20s}\n"),
     7, 80, "the stages last 10 s together, and the duration says 20 s (leave traffic.duration out)"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{for: 0s, rate: 50/s}]}\n"),
     7, 44, "traffic.stages must be more than 0s (write such as for: 10s)"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{for: 2h, rate: 50/s}]}\n"),
     7, 44, "shorten traffic.stages to 3530s together"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{for: 10s, rate: 50/s}], duration: 0s}\n"),
     7, 80, "leave traffic.duration out"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], stages: [{for: 10s, rate: 20/s}]}\nexpect: [latency: {p99: 1s}]\n"),
     8, 12, "10/s for 10 s sends 100 (make the stages longer, or their rates higher)"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], arrivals: bursts}\n"), 7, 46, "poisson"),
    (spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], duration: 20m}\n"), 7, 46, "set restore.ttl to"),
    (spec(GOOD + "knownFailure: {reason: x, until: 2027-02-30}\n"), 8, 36, "no day of any month"),
    (spec(GOOD + "abortOn: [contrl: {}]\n"), 8, 13, "did you mean 'control'?"),
    (spec(GOOD + "abortOn: [control: {errors: {abov: 1%}}]\n"), 8, 32, "did you mean 'above'?"),
    (spec(GOOD + "abortOn: [http: {url: 'x'}]\n"), 8, 25, "is no URL"),
    (spec(GOOD + "abortOn: [prometheus: {query: q}]\n"), 8, 13, "needs 'above'"),
    # other kinds
    (other("LabWorkload", "{service: a, port: 80}"), 4, 7, "needs one of run and address"),
    (other("LabWorkload", "{service: a, port: 80, run: [x], address: 'a:1'}"), 4, 40, "not both"),
    (other("LabWorkload", "{service: a, port: 80, address: '127.0.0.1:99999'}"), 4, 39, "a port from 1 to 65535"),
    (other("LabWorkload", "{service: a, port: 80, address: 'db.local:80'}"), 4, 39, "resolves no names"),
    (other("LabWorkload", "{service: a, port: 80, address: '[::g]:80'}"), 4, 39, "HOST:PORT"),
    (other("LabWorkload", "{service: a, port: 80, run: [x], env: {A: 1}}"), 4, 49, 'write it in quotes: "1"'),
    (other("LabWorkload", "{service: a, port: 70000, run: [x]}"), 4, 26, "port must be at most 65535"),
    (other("Suite", "{experiments: []}"), 4, 21, "must not be empty"),
    (other("Suite", "{experiments: [{ref: a, matrix: {fault: [{}]}}]}"), 4, 48, "breaks nothing"),
    (other("GameDay", "{schedule: {cron: 61 * * * *}, suites: [a]}"), 4, 25, "no cron expression"),
    (other("GameDay", "{schedule: {cron: 1 * * * *, timeZone: Europe/Berlim}, suites: [a]}"), 4, 46, "no time zone"),
    (other("GameDay", "{schedule: {cron: 1 * * * *, timeZone: ../../etc/passwd}, suites: [a]}"), 4, 46, "no time zone"),
    (other("GameDay", "{schedule: {cron: 1 * * * *}, suites: [a], expected: {a: pased}}"), 4, 64, "did you mean 'passed'?"),
    (other("GameDay", "{schedule: {cron: 1 * * * *}, suites: [a], people: {owner: b, approvals: 2}}"), 4, 80, "0 approvers"),
    (other("GameDay", "{schedule: {cron: 1 * * * *}, suites: [a], skipWhen: [{ics: a, canaryProgressing: true}]}"), 4, 61, "one reason"),
    (other("Policy", "{hours: 9-5}"), 4, 15, "hours of the day"),
    (other("Policy", "{hours: '09:00-17:00 Nowhere/Land'}"), 4, 15, "no time zone"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "piece"), REFUSALS, ids=[row[3][:40] for row in REFUSALS])
def test_what_is_refused_is_refused_at_its_place(text: str, line: int, column: int, piece: str) -> None:
    found = problems_of(text)

    assert any((p.file, p.line, p.column) == ("a.yaml", line, column) and piece in str(p) for p in found), "\n".join(
        map(str, found)
    )
    assert len(found) <= 4, "one thing is wrong, and it is said once for each expectation at most"


def test_every_problem_of_every_file_is_told_at_once() -> None:
    found = problems_of(
        SMALLEST.replace("3s", "3") + "  restre: 1\n",
        SMALLEST.replace("checkout-survives", "Other")
        + EXPECT.replace("latency", "latncy").replace("$.stock", "stock"),
        "a: [",
    )

    assert [(p.file, p.line) for p in found] == [
        ("a.yaml", 6), ("a.yaml", 8), ("b.yaml", 3), ("b.yaml", 9), ("c.yaml", 1),
    ]  # fmt: skip


def test_what_is_wrong_with_the_numbers_is_told_beside_an_unknown_field() -> None:
    found = problems_of(SMALLEST + "  restore: {ttl: 1m}\n  subjct: a\n")

    assert [p.line for p in found] == [8, 9]


def test_names_of_experiments_are_unique_over_all_files() -> None:
    (problem,) = problems_of(SMALLEST, SMALLEST)

    assert (problem.file, problem.line, problem.column) == ("b.yaml", 3, 18)
    assert "a.yaml:3:18" in problem.message


def test_a_run_that_would_do_is_what_the_suggestion_says() -> None:
    text = spec(
        "target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], duration: 2s}\nexpect: [latency: {p99: 1s}]\n"
    )

    assert parsed(text, spec__traffic__duration="17s").file
    assert parsed(text, spec__traffic__rate="164/s").file
    assert problems_of(text, overrides={"spec.traffic.duration": "16s"})
    assert problems_of(text, overrides={"spec.traffic.rate": "163/s"})


def test_the_fixed_method_is_held_to_its_own_sample_size() -> None:
    text = spec(
        "target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], duration: 15s}\nstopEarly: false\nexpect: [latency: {p99: 1s}]\n"
    )

    assert parsed(text, spec__traffic__duration="15s").file
    assert "needs at least 299 requests" in str(problems_of(text, overrides={"spec.traffic.duration": "14s"})[0])


# --- whatever the text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 50_000,
        "- " * 20_000,
        "a: &a [*a]\n",
        "a: &a\n  b: *a\n",
        "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12)),
        "a: &a {b: c}\n" + "".join(f"k{n}: *a\n" for n in range(ALIASED_MOST + 1)),
        f"{'a: ' * 3}",
        "? " * (DEPTH_MOST + 5),
        "%YAML 9999999999999999999999.1\n---\na",
        "!<!\x20> a",
        "a: !!int x\n",
        "a: !!binary x\n",
        "\ufeffa: b",
        "*unknown",
    ],
)
def test_no_text_is_too_much(text: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_documents([("a.yaml", text)])

    assert all(problem.line >= 1 and problem.column >= 1 for problem in caught.value.problems)


def parse_anything(text: str, overrides: dict[str, str] | None = None) -> None:
    try:
        found = parse_documents([("a.yaml", text)], overrides=overrides or {})
    except InvalidFile as error:
        problems = error.problems
    else:
        assert isinstance(found, Documents)
        return
    assert problems
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)


@given(st.text())
@example("a: \ud800")
@settings(max_examples=300)
def test_any_text_gives_documents_or_problems(text: str) -> None:
    parse_anything(text)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, 1e300, "", "x", "3s", "5%", "20/s", "$.a[", "(", [], [None], {}, {"": 1}, [[]], {"a": {"b": 1}},
     "http://", "503", 10**30, "\U0001f600", "yes", "GET x", {"fromEnv": "X"}, {"p99": None}, [{"latency": {}}],
     {"kind": "x"}, {"id": {}}, [{"control": None}], "{{", "\x7f", "0s", "100%", "-0", "1e3", "٣s"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a valid document with a few of its values or keys replaced."""
    document = draw(
        st.sampled_from([yaml.safe_load(SMALLEST + EXPECT), yaml.safe_load(EVERYTHING), *yaml.safe_load_all(OTHERS)])
    )
    for _ in range(draw(st.integers(1, 3))):
        here: Any = document
        while True:
            if not isinstance(here, dict | list) or not here:
                break
            key = draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here))))
            if draw(st.integers(0, 3)) == 0 or not isinstance(here[key], dict | list):
                if isinstance(here, dict) and draw(st.booleans()):
                    here[draw(st.sampled_from(["host", "arm", "kind", "id", "sweep", "x", "expect", "<<", "1"]))] = (
                        here.pop(key)
                    )
                else:
                    here[key] = copy.deepcopy(draw(ODD))  # what is drawn is shared between examples
                break
            here = here[key]
    return yaml.safe_dump(document, allow_unicode=True)


@given(mutated())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_valid_document_with_something_odd_in_it_gives_documents_or_problems(text: str) -> None:
    parse_anything(text)


@given(st.sampled_from([SMALLEST + EXPECT, EVERYTHING, OTHERS]), st.data())
@settings(max_examples=300)
def test_a_valid_text_with_something_odd_in_it_gives_documents_or_problems(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    until = at + data.draw(st.integers(0, 12))
    put = data.draw(
        st.one_of(st.text(max_size=6), st.sampled_from(["&a ", "*a", "!!set ", "<<: ", "\t", "- ", "? ", ": "]))
    )

    parse_anything(text[:at] + put + text[until:])


@given(
    st.from_regex(r"(spec|metadata)(\.(traffic|expect|0|1|latency|p99|fault|delay|target|x)){0,4}", fullmatch=True), ODD
)
@settings(max_examples=200)
def test_any_override_gives_documents_or_problems(path: str, value: Any) -> None:
    parse_anything(SMALLEST + EXPECT, {path: str(value)})


def test_stages_say_how_long_it_lasts_and_mean_the_same_when_written_out() -> None:
    text = spec(
        "target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], rate: 10/s, arrivals: poisson, "
        "stages: [{for: 30s, rate: 40/s}, {for: 1m, rate: 40/s}]}\n"
    )

    traffic = parsed(text).spec.traffic
    again = parsed(text.replace("stages:", "duration: 90s, stages:")).spec.traffic

    assert (traffic.duration_s, traffic.arrivals, len(traffic.stages)) == (90.0, "poisson", 2)
    assert again == traffic


def test_an_experiment_knows_the_line_of_its_name() -> None:
    text = (
        "# why\n\napiVersion: luff.dev/v1alpha1\nkind: Experiment\nmetadata:\n  labels: {a: b}\n  name: late\nspec:\n"
    )

    found = parsed(text + "".join(f"  {line}\n" for line in GOOD.splitlines()))

    assert found.lines["metadata.name"] == 7
    assert found.place("metadata.name") == f"{found.file}:7:3"
