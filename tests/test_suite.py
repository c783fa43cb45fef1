"""What suites stand for, which part of it is meant, and what may run beside what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.errors import InvalidFile, UsageError
from luff.model import Abort, Delay, Experiment, Fault, Suite
from luff.parse import parse_documents
from luff.suite import VARIANT_OF, expand, last_failed, next_up, parse_shard, shard
from luff.yaml_nodes import Place
from tests.factories import failed, inconclusive, passed

TODAY = date(2026, 11, 23)
EXPERIMENT = """
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {{name: {name}, namespace: shop, labels: {{team: shop}}, annotations: {{luff.dev/expected: passed}}}}
spec:
  target: stock
  fault: {{delay: 3s}}
  traffic: GET http://cart/cart/42
  {more}
---
"""
SUITE = """
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {{name: {name}}}
spec: {{experiments: {experiments}}}
---
"""
EXPECT = "expect: [{latency: {p90: 1s}}]"


def documents(
    names: Sequence[str] = ("cart-slow", "cart-gone", "page-slow"), *, more: str = EXPECT, **suites: str
) -> tuple[tuple[Suite, ...], tuple[Experiment, ...]]:
    """Return suites, given as the YAML of their experiments, and experiments with *names*."""
    text = "".join(EXPERIMENT.format(name=name, more=more) for name in names)
    text += "".join(SUITE.format(name=name.replace("_", "-"), experiments=each) for name, each in suites.items())
    parsed = parse_documents([("shop.yaml", text)])
    return parsed.suites, parsed.experiments


def names(experiments: Sequence[Experiment]) -> list[str]:
    return [each.name for each in experiments]


def problems(error: InvalidFile) -> str:
    return "\n".join(str(each) for each in error.problems)


def test_without_a_suite_every_experiment_is_meant() -> None:
    suites, experiments = documents()

    assert expand(suites, experiments) == experiments


def test_a_suite_stands_for_its_references_in_their_order() -> None:
    suites, experiments = documents(core="[page-slow, cart-*, cart-gone]")

    assert names(expand(suites, experiments)) == ["page-slow", "cart-slow", "cart-gone"]


def test_a_suite_can_stand_in_another_one() -> None:
    suites, experiments = documents(all="[carts, page-slow]", carts="[cart-*]")

    assert names(expand(suites, experiments)) == ["cart-slow", "cart-gone", "page-slow"]


def test_a_matrix_repeats_an_experiment_with_each_fault() -> None:
    suites, experiments = documents(
        core="[{ref: cart-slow, matrix: {fault: [{delay: 1s}, {abort: 503}, {abort: {http: 500, percent: 12.5}}]}}]"
    )

    made = expand(suites, experiments)

    assert names(made) == ["cart-slow-delay-1s", "cart-slow-abort-503", "cart-slow-abort-500-12-5pct"]
    assert [each.spec.fault.delay for each in made] == [Delay(duration_s=1.0), None, None]
    assert made[1].spec.fault == Fault(abort=Abort(http=503))
    assert {each.metadata.labels[VARIANT_OF] for each in made} == {"cart-slow"}
    assert made[0].lines == experiments[0].lines


def test_a_matrix_over_a_suite_varies_each_of_its_experiments() -> None:
    suites, experiments = documents(all="[{ref: carts, matrix: {fault: [{abort: 503}]}}]", carts="[cart-*]")

    assert names(expand(suites, experiments)) == [
        "cart-slow-abort-503",
        "cart-gone-abort-503",
        "cart-slow",
        "cart-gone",
    ]


def test_what_was_said_of_the_other_fault_does_not_carry_over() -> None:
    known = 'knownFailure: {reason: LUFF-12, until: "2027-01-31"}'
    suites, experiments = documents(
        ["cart-slow"], more=known, core="[{ref: cart-slow, matrix: {fault: [{delay: 3s}, {delay: 1s}]}}]"
    )

    same, other = expand(suites, experiments)

    assert same.spec.known_failure is not None
    assert same.metadata.annotations
    assert other.spec.known_failure is None
    assert not other.metadata.annotations
    limits = [each.limit_s for each in other.spec.expect if each.kind == "latency"]
    assert limits == [0.9], "the defaults must be those for the new fault: before its delay is over"


def test_a_variant_never_takes_the_name_of_an_experiment_that_is_there() -> None:
    suites, experiments = documents(
        ["cart-slow", "cart-slow-delay-1s"],
        core="[cart-slow-delay-1s, {ref: cart-slow, matrix: {fault: [{delay: 1s}]}}]",
    )

    written, variant = expand(suites, experiments)

    assert written.name == "cart-slow-delay-1s"
    assert re.fullmatch(r"cart-slow-delay-1s-[0-9a-f]{6}", variant.name)


_percents = st.floats(0.001, 100)
_delays = st.tuples(st.floats(0.001, 9e6), _percents).map(lambda drawn: Delay(duration_s=drawn[0], percent=drawn[1]))
_aborts = st.tuples(st.integers(200, 599), _percents).map(lambda drawn: Abort(http=drawn[0], percent=drawn[1]))
_grpc = st.sampled_from([Abort(grpc="UNAVAILABLE"), Abort(grpc="DEADLINE_EXCEEDED")])
_faults = st.tuples(st.none() | _delays, st.none() | _aborts | _grpc).map(
    lambda drawn: Fault(delay=drawn[0], abort=drawn[1])
)


@given(
    st.from_regex(r"[a-z]([a-z0-9-]{0,60}[a-z0-9])?", fullmatch=True),
    st.lists(_faults.filter(lambda fault: fault != Fault()), min_size=1, max_size=4, unique_by=repr),
)
def test_variants_have_distinct_names_that_are_dns_labels(name: str, faults: list[Fault]) -> None:
    suites, experiments = documents([name], core=f"[{{ref: {name!r}, matrix: {{fault: [{{delay: 1s}}]}}}}]")
    entry = suites[0].spec.experiments[0]
    assert entry.matrix is not None
    matrix = entry.matrix.model_copy(update={"fault": tuple(faults)})
    spec = suites[0].spec.model_copy(update={"experiments": (entry.model_copy(update={"matrix": matrix}),)})

    made = expand([suites[0].model_copy(update={"spec": spec})], experiments)

    assert len(set(names(made))) == len(faults)
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", each) for each in names(made)), names(made)


@pytest.mark.parametrize(
    ("suites", "said"),
    [
        ({"core": "[core]"}, "the suite 'core' refers to itself (core → core)"),
        ({"a": "[b]", "b": "[cart-slow, a]"}, "refers to itself (a → b → a)"),
        ({"core": "[cart-slwo]"}, "named 'cart-slwo' in these files (did you mean 'cart-slow'?)"),
        ({"core": "[shop-*]"}, "no experiment has a name like 'shop-*' (what can stand here: cart-slow"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(suites: dict[str, str], said: str) -> None:
    given_suites, experiments = documents(**suites)

    with pytest.raises(InvalidFile) as caught:
        expand(given_suites, experiments, place=lambda suite, entry: Place(suite.file, 7, entry + 1))

    assert said in problems(caught.value)
    assert problems(caught.value).startswith("shop.yaml:7:")


def test_every_reference_that_leads_nowhere_is_said_at_once() -> None:
    suites, experiments = documents(core="[nothing, shop-*]", other="[other]")

    with pytest.raises(InvalidFile) as caught:
        expand(suites, experiments)

    assert len(caught.value.problems) == 3


def test_a_suite_without_the_files_of_its_experiments_says_so() -> None:
    suites, _ = documents([], core="[cart-slow]")

    with pytest.raises(InvalidFile, match="give the files of the experiments as well"):
        expand(suites, [])


def test_two_suites_with_one_name_are_refused() -> None:
    suites, experiments = documents(core="[cart-slow]")

    with pytest.raises(InvalidFile, match="two suites named 'core'"):
        expand([*suites, *suites], experiments)


def test_suites_without_end_are_refused() -> None:
    suites, experiments = documents(**{f"s_{n}": f"[s-{n + 1}]" for n in range(40)}, s_40="[cart-slow]")

    with pytest.raises(InvalidFile, match="more than 20 deep"):
        expand(suites, experiments)


@given(st.lists(st.integers()), st.integers(1, 9))
def test_shards_are_disjoint_and_together_they_are_everything(items: list[int], count: int) -> None:
    numbered = list(enumerate(items))

    parts = [shard(numbered, index, count) for index in range(1, count + 1)]

    assert sorted(each for part in parts for each in part) == numbered
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/0", "1/99999", "-1/3", "1/3/5", "9999999/9999999"])
def test_a_shard_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shard(text)

    assert caught.value.next_step


def test_a_shard_is_read_as_written() -> None:
    assert parse_shard("2/3") == (2, 3)


def test_what_failed_last_is_what_does_not_count_as_passed() -> None:
    _, experiments = documents(["good", "bad", "vague", "known", "never-run"])
    newest = {
        "good": passed(),
        "bad": failed(),
        "vague": inconclusive(),
        "known": failed(known_failure={"reason": "LUFF-12"}),
    }

    assert names(last_failed(experiments, newest, today=TODAY)) == ["bad", "vague"]


def test_nothing_starts_beside_a_run_on_the_same_object() -> None:
    assert next_up(["a", "a", "b"], {"a"}) == 2
    assert next_up(["a", "b"], {"a", "b"}) is None
    assert next_up(["a"], set()) == 0
    assert next_up([], {"a"}) is None


def test_what_cannot_be_planned_waits_for_nobody() -> None:
    assert next_up(["a", None], {"a", None}) == 1
