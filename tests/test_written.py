"""An experiment that is written out is the same experiment when it is read again."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luff.errors import InvalidFile
from luff.model import Experiment
from luff.parse import parse_documents
from luff.report.resolved import latency_limits_ms, spec_yaml
from luff.report.words import fault_words
from luff.shipped import shipped
from luff.units import write_duration, write_percent
from luff.written import as_yaml, spec_sha256, written
from tests.factories import outcome, passed, validate
from tests.strategies import json_values
from tests.test_parse import EVERYTHING, SMALLEST
from tests.test_schema import VALID

SHIPPED = sorted(shipped("experiments").rglob("*.yaml"))


def read(text: str) -> tuple[Experiment, ...]:
    return parse_documents([("e.yaml", text)]).experiments


def assert_the_same_when_read_again(experiment: Experiment) -> None:
    document = written(experiment)

    for text in (json.dumps(document), as_yaml(document)):
        [again] = read(text)
        assert (again.metadata, again.spec) == (experiment.metadata, experiment.spec), text
        assert spec_sha256(again) == spec_sha256(experiment)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_shipped_experiment_is_the_same_when_it_is_read_again(file: Any) -> None:
    for experiment in parse_documents([(file.name, file.read_text(encoding="utf-8"))]).experiments:
        assert_the_same_when_read_again(experiment)


@pytest.mark.parametrize("text", VALID)
def test_whatever_is_valid_is_the_same_when_it_is_read_again(text: str) -> None:
    for experiment in read(text):
        assert_the_same_when_read_again(experiment)


def test_what_is_written_has_every_default_and_its_unit() -> None:
    [experiment] = read(SMALLEST)

    document = written(experiment)

    assert (document["apiVersion"], document["kind"]) == ("luff.dev/v1alpha1", "Experiment")
    assert document["spec"]["fault"] == {"delay": {"duration": "3s", "percent": "100%"}}
    assert document["spec"]["traffic"] == {
        "requests": [{"method": "GET", "url": "http://checkout/cart/42", "weight": 1.0}],
        "arrivals": "constant",
        "duration": "60s",
        "warmup": "3s",
        "via": {"mode": "direct", "protocol": "auto"},
    }
    assert [each["id"] for each in document["spec"]["expect"]] == [
        "answers",
        "gives-up-in-time",
        "bystanders",
        "recovers",
    ]
    assert document["spec"]["abortOn"] == [{"control": {"errors": {"above": "5%"}}}]
    assert document["spec"]["restore"] == {"ttl": "600s"}


def test_a_secret_is_written_as_the_name_of_its_variable() -> None:
    [experiment] = read(EVERYTHING)

    headers = written(experiment)["spec"]["traffic"]["requests"][1]["headers"]

    assert headers == {"authorization": {"fromEnv": "LUFF_SECRET_TOKEN"}}


def test_the_spec_of_an_outcome_is_held_to_the_schema_of_experiments() -> None:
    document = passed().model_dump(mode="json", by_alias=True)
    validate(document)
    older = {**document, "spec": {"metadata": {"name": "e"}, "spec": {"fault": {"delay": {"duration": 5.0}}}}}
    validate(older)
    document["spec"]["spec"]["traffic"]["duration"] = 60.0

    with pytest.raises(Exception, match="is not valid under any of the given schemas"):
        validate(document)


def test_what_an_older_luff_wrote_into_an_outcome_is_shown_as_before() -> None:
    [experiment] = read(EVERYTHING)
    older = outcome(spec=experiment.model_dump(mode="json", by_alias=True, exclude_none=True))
    newer = outcome(spec=written(experiment))

    assert latency_limits_ms(older) == latency_limits_ms(newer) == {"gives-up-in-time": 2800.0, "bystanders": 300.0}
    assert fault_words(older) == fault_words(newer) == "delay 5 s and abort UNAVAILABLE on 10 %"
    assert "duration: 5s" in spec_yaml(older)
    assert read(spec_yaml(newer))[0].spec == experiment.spec


_TEXT = st.text(min_size=1, max_size=8) | st.sampled_from(["yes", "0x1f", "1e3", "2027-01-31", "~", "null", "{{seq}}"])
_NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=8)
_DURATIONS = st.floats(0.001, 30.0).map(write_duration)
_SHARES = st.floats(50.0, 99.0).map(write_percent)
_ANSWERS = st.fixed_dictionaries(
    {"json": st.fixed_dictionaries({"path": st.just("$.a"), "equals": json_values})},
    optional={
        "status": st.lists(st.sampled_from(["200", "3xx"]), min_size=1, max_size=2),
        "body": st.fixed_dictionaries({"contains": _TEXT}),
        "header": st.fixed_dictionaries({"name": _NAMES, "equals": _TEXT}),
        "atLeast": _SHARES,
    },
)
_CLAIMS = st.one_of(
    _DURATIONS.map(lambda limit: {"latency": {"p90": limit}}),
    _SHARES.map(lambda share: {"errors": {"atMost": share}}),
    _ANSWERS.map(lambda answer: {"answer": answer}),
    _ANSWERS.map(lambda answer: {"fallback": answer}),
    _SHARES.map(lambda share: {"noWorseThan": {"arm": "control", "by": share}}),
    _DURATIONS.map(lambda within: {"recovery": {"within": within}}),
)
_SPECS = st.fixed_dictionaries(
    {
        "target": st.fixed_dictionaries(
            {"host": _NAMES}, optional={"from": st.dictionaries(_NAMES, _TEXT, max_size=2)}
        ),
        "fault": st.fixed_dictionaries({"abort": st.just({"http": 503})}, optional={"delay": _DURATIONS}),
        "traffic": st.fixed_dictionaries(
            {
                "requests": st.lists(
                    st.fixed_dictionaries(
                        {"url": st.just("http://cart/")},
                        optional={
                            "headers": st.dictionaries(
                                _NAMES, _TEXT | st.just({"fromEnv": "LUFF_SECRET_A"}), max_size=2
                            ),
                            "body": _TEXT,
                            "weight": st.floats(0.001, 1000.0),
                        },
                    ),
                    min_size=1,
                    max_size=2,
                )
            },
            optional={"rate": st.floats(1.0, 50.0).map(lambda rate: f"{rate:.3f}/s"), "duration": _DURATIONS},
        ),
    },
    optional={
        "hypothesis": _TEXT,
        "subject": _NAMES,
        "expect": st.lists(_CLAIMS, min_size=1, max_size=3),
        "abortOn": st.just([{"prometheus": {"query": "up", "above": 0.1}}]),
        "confidence": _SHARES,
    },
)


@given(_SPECS, st.dictionaries(_NAMES, _TEXT, max_size=2))
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_any_experiment_is_the_same_when_it_is_read_again(made: dict[str, Any], labels: dict[str, str]) -> None:
    document = {
        "apiVersion": "luff.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "e", "labels": labels},
        "spec": made,
    }
    try:
        [experiment] = read(json.dumps(document))
    except InvalidFile:
        return

    assert_the_same_when_read_again(experiment)
