"""The schemas are of draft 7, and agree with what is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator

from luff.errors import InvalidFile
from luff.parse import Documents, parse_documents
from luff.schema import KINDS, schema_for
from luff.yaml_nodes import Problems, plain, read_nodes
from tests.factories import EVERY_VERDICT
from tests.test_parse import EVERYTHING, EXPECT, GOOD, LONG, OTHERS, SMALLEST, other, spec

VALID = [
    SMALLEST,
    SMALLEST + EXPECT,
    LONG,
    EVERYTHING,
    OTHERS,
    spec("target: {virtualService: a}\nfault: {abort: 503}\ntraffic: http://a/{{seq}}\n"),
    spec(
        "target: {host: a, virtualService: null}\nfault: {abort: {grpc: UNAVAILABLE, http: null}}\ntraffic: HEAD http://a/\n"
    ),
    spec("target: a\nfault: {delay: {duration: 1m30s, percent: 0.5}}\ntraffic: {requests: [http://a/], via: direct}\n"),
    spec(
        "target: a\nsubject: a\nfault: {delay: 3s}\ntraffic: {requests: [GET http://a/, {url: 'http://b'}], control: false}\n"
    ),
    spec(
        "target: a\nfault: {delay: 3s}\ntraffic: {requests: [http://a/], via: direct, connect: 'a:1', tls: {ca: x}, protocol: http2}\n"
    ),
    spec(GOOD + "scope: header\n"),
    spec(GOOD + "abortOn: [prometheus: {query: up, above: 1}]\n"),
    spec(GOOD + "abortOn: [http: {url: 'http://x', status: [200, 3xx]}]\n"),
    spec(GOOD + "expect: [errors: {atMost: 1}, answer: {status: 5xx}, answer: {status: [200, '3xx']}]\n"),
    spec(GOOD + "expect: [{id: a, arm: control, latency: {p50: 100ms}}, noWorseThan: {}, recovery: {within: 5s}]\n"),
    spec(
        GOOD + "expect: [answer: {json: {path: $.a, equals: null}}, answer: {body: {matches: a}, header: {name: b}}]\n"
    ),
    spec(GOOD + "expect: [attempts: {of: a, atMost: 2, atLeast: 90%}]\n"),
    other("LabWorkload", "{service: a, port: 80, address: 'localhost:80', ready: {within: 3s}}"),
    other("Suite", "{experiments: [a, {ref: b}]}"),
    other("GameDay", "{schedule: {cron: 0 0 * * *}, suites: [a], skipWhen: [canaryProgressing]}"),
    other("Policy", "{}"),
]

INVALID = [
    SMALLEST.replace("target", "traget"),
    SMALLEST.replace("  target: inventory\n", ""),
    SMALLEST.replace("3s", "3"),
    SMALLEST.replace("delay", "dealy"),
    SMALLEST.replace("GET http://checkout/cart/42", "one two three"),
    SMALLEST.replace("v1alpha1", "v9"),
    SMALLEST.replace("{name: ", "{name: Big_"),
    SMALLEST + "extra: 1\n",
    SMALLEST + "  expect: []\n",
    SMALLEST + "  expect: [latncy: {p99: 1s}]\n",
    SMALLEST + "  expect: [latency: {p98: 1s}]\n",
    SMALLEST + "  expect: [latency: {p99: 1s, p50: 1s}]\n",
    SMALLEST + "  expect: [{latency: {p99: 1s}, errors: {atMost: 1%}}]\n",
    SMALLEST + "  expect: [{id: a}]\n",
    SMALLEST + "  expect: [answer: {}]\n",
    SMALLEST + "  expect: [errors: {}]\n",
    SMALLEST + "  expect: [errors: {atMost: 1%, status: 5X}]\n",
    SMALLEST + "  abortOn: [http: {}]\n",
    SMALLEST + "  restore: 10m\n",
    SMALLEST + "  file: x\n",
    spec("target: {}\nfault: {delay: 3s}\ntraffic: http://a\n"),
    spec("target: a\nfault: {}\ntraffic: http://a\n"),
    spec("target: a\nfault: {abort: {grpc: unavailable}}\ntraffic: http://a\n"),
    spec("target: a\nfault: {abort: {}}\ntraffic: http://a\n"),
    spec("target: a\nfault: {abort: 99}\ntraffic: http://a\n"),
    spec("target: a\nfault: {delay: {duration: 3s, sweep: []}}\ntraffic: http://a\n"),
    spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: []}\n"),
    spec("target: a\nfault: {delay: 3s}\ntraffic: {requests: [{method: GET}]}\n"),
    other("LabWorkload", "{service: a, port: 80}"),
    other("LabWorkload", "{service: a, port: 0, run: [x]}"),
    other("Suite", "{experiments: []}"),
    other("GameDay", "{schedule: {}, suites: [a]}"),
    other("GameDay", "{schedule: {cron: 0 0 * * *}, suites: [a], skipWhen: [{}]}"),
    other("Policy", "{hours: 9-5}"),
]


def documents_of(text: str) -> list[Any]:
    """Return the documents of ours in *text* as plain data."""
    problems = Problems()
    found = [plain(node) for node in read_nodes("a.yaml", text, problems)]
    assert not problems
    return [each for each in found if each["kind"] in KINDS]


def errors_of(document: Any) -> list[str]:
    """Return what the schema of its kind has against *document*."""
    validator = Draft7Validator(schema_for(document["kind"]))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_schema_is_one_of_draft_7(kind: str) -> None:
    schema = schema_for(kind)

    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    for newer in ('"$defs"', '"prefixItems"', '"unevaluatedProperties"', '"dependentRequired"'):
        assert newer not in json.dumps(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_every_definition_says_what_it_is(kind: str) -> None:
    silent = [name for name, each in schema_for(kind).get("definitions", {}).items() if not each.get("description")]

    assert not silent


@pytest.mark.parametrize("text", VALID)
def test_what_is_parsed_is_valid(text: str) -> None:
    assert parse_documents([("a.yaml", text)]) != Documents()

    assert not [error for document in documents_of(text) for error in errors_of(document)]


@pytest.mark.parametrize("text", INVALID)
def test_what_has_a_wrong_shape_is_neither_parsed_nor_valid(text: str) -> None:
    with pytest.raises(InvalidFile):
        parse_documents([("a.yaml", text)])

    assert [error for document in documents_of(text) for error in errors_of(document)]


def test_defaults_are_shown_as_they_are_written() -> None:
    traffic = schema_for("Experiment")["definitions"]["Traffic"]["anyOf"][1]["properties"]

    assert traffic["duration"]["default"] == "60s"
    assert "title" not in traffic["duration"]


def test_a_kind_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        schema_for("Unknown")


def test_outcomes_are_valid() -> None:
    validator = Draft7Validator(schema_for("outcome"))

    for make in EVERY_VERDICT:
        document = json.loads(make().model_dump_json(by_alias=True))
        assert not [error.message for error in validator.iter_errors(document)]
