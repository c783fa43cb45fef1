"""A proxy's page of metrics: what is read of it, whose it is, and how counts add up across restarts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.evidence.istio_metrics import REQUESTS, Labels, Tally, fired, parse

PAGE = """\
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{cluster="x"} 7
# TYPE istio_requests_total counter
istio_requests_total{reporter="source",source_workload="reviews-v2",destination_service_name="ratings",response_flags="FI"} 12
istio_requests_total{reporter="source",response_flags="-"} 1e3 1700000000000
istio_requests_total_more{reporter="source"} 99
"""
STOCK = frozenset({"stock", "stock.shop.svc.cluster.local"})


def line(**labels: str) -> str:
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{REQUESTS}{{{shown}}} 5\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def labels(**named: str) -> Labels:
    return frozenset(named.items())


def test_only_the_requests_of_a_page_are_read() -> None:
    found = parse(PAGE)
    assert sorted(found.values()) == [12.0, 1000.0]
    assert labels(reporter="source", response_flags="-") in found


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs", "Cc"])),
        max_size=5,
    )
)
def test_whatever_a_label_holds_is_read_back(named: dict[str, str]) -> None:
    assert parse(line(**named)) == {frozenset(named.items()): 5.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html><body>no healthy upstream</body></html>",
        '{"kind": "Status", "code": 503}',
        f'{REQUESTS}{{reporter="source"}} many\n',
        f'{REQUESTS}{{reporter="source"}} NaN\n',
        f'{REQUESTS}{{reporter="source"}} -1\n',
        f'{REQUESTS}{{reporter="source"}}\n',
        f'# TYPE {REQUESTS} counter\n{REQUESTS}{{reporter="sour',
        f"# TYPE {REQUESTS} counter\n{REQUESTS}{{reporter=source}} 3\n",
        f'# TYPE {REQUESTS} counter\n{REQUESTS}{{a="b" c="d"}} 3\n',
    ],
)
def test_a_page_that_is_broken_is_no_page_with_few_requests(text: str) -> None:
    with pytest.raises(ValueError, match=r"metrics|count|labels"):
        parse(text)


def test_a_proxy_without_requests_has_an_empty_count() -> None:
    assert parse("# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n") == {}


@given(st.text())
def test_no_text_makes_the_parser_do_anything_but_read_or_refuse(text: str) -> None:
    for page in (text, f"{REQUESTS}{text}", f"{REQUESTS}{{{text}}} 1"):
        try:
            found = parse(page)
        except ValueError:
            continue
        assert all(value >= 0 for value in found.values())


MINE = {
    "reporter": "source",
    "response_flags": "DI",
    "destination_service_name": "stock",
    "destination_service_namespace": "shop",
}


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"response_flags": "FI"}, True),
        ({"response_flags": "DI,FI"}, True),
        ({"response_flags": "DI,DC"}, True),
        ({"response_flags": "-"}, False),
        ({"response_flags": "UF,URX"}, False),
        ({"response_flags": "FIX"}, False),
        ({"reporter": "destination"}, False),
        ({"destination_service_name": "unknown", "destination_service_namespace": "unknown"}, True),
        ({"destination_service_name": "", "destination_service": "stock.shop.svc.cluster.local"}, True),
        ({"destination_service_name": "till"}, False),
        ({"destination_service_namespace": "unknown"}, True),
        ({"destination_service_namespace": "bank"}, False),
    ],
)
def test_what_counts_is_a_fault_that_the_caller_injected_on_the_way_to_the_target(
    changes: dict[str, str], counts: bool
) -> None:
    series = {labels(**{**MINE, **changes}): 3.0}
    assert bool(fired(series, destinations=STOCK, namespace="shop")) is counts


A = labels(source_workload="cart")
B = labels(source_workload="till", response_flags="FI")


def test_what_was_counted_before_is_not_counted() -> None:
    tally = Tally()
    tally.begin({"p": {A: 40.0}})
    tally.add("p", {A: 40.0})
    assert tally.total == 0
    tally.add("p", {A: 43.0, B: 2.0})
    assert tally.callers == Counter(cart=3, till=2)


def test_a_proxy_that_started_again_counts_from_nothing() -> None:
    tally = Tally()
    tally.begin({"p": {A: 40.0}})
    for value in (45.0, 4.0, 6.0):
        tally.add("p", {A: value})
    assert tally.total == 5 + 4 + 2


def test_a_pod_that_was_born_since_counts_whole_and_one_that_died_keeps_what_it_counted() -> None:
    tally = Tally()
    tally.begin({"old": {A: 1.0}})
    tally.add("old", {A: 3.0})
    tally.add("new", {A: 7.0})
    tally.add("new", {A: 8.0})
    assert tally.total == 2 + 8


def test_a_proxy_that_was_there_and_silent_counts_from_its_first_answer_on() -> None:
    tally = Tally()
    tally.begin({}, unread=frozenset({"p"}))
    tally.add("p", {A: 500.0})
    assert tally.total == 0
    tally.add("p", {A: 501.0})
    assert tally.total == 1


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 1000))
def test_however_often_it_is_read_a_growing_count_adds_up_to_what_it_grew_by(steps: list[int], before: int) -> None:
    tally, value = Tally(), before
    tally.begin({"p": {A: float(before)}})
    for step in steps:
        value += step
        tally.add("p", {A: float(value)})
    assert tally.total == sum(steps)
