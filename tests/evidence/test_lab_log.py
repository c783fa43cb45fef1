"""Evidence from access logs: what a line proves, and what is still open."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.bystanders import bystanders_of
from luff.evidence.lab_log import ATTEMPTS_MOST, CALLS_MOST, LINE_LATE_S, LabLog
from luff.evidence.response_header import ResponseHeader
from luff.samples import Call, Evidence, Failure, Flag, Samples
from luff.scope import Scope
from luff.words import Arm, Carrier, Phase

SCOPE = Scope(secret="0123456789abcdef" * 2, decoy="fedcba9876543210" * 2)
TWIN = "luff.1.0123456789abcdef.1700000000.1700000600.0"
ZERO = 1_700_000_000.0
MS = 1_000_000
WAIT_S = 8.0


class Logs:
    """This is a folder of logs, a source that reads it, and the time that it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = ZERO
        self.source = LabLog(
            logs=folder,
            scope=SCOPE,
            twins=(TWIN,),
            wait_s=WAIT_S,
            zero_s=ZERO,
            monotonic_s=lambda: self.now_s,
            destinations=frozenset({"ratings", "ratings.bookinfo.svc.cluster.local"}),
        )

    def write(self, *lines: Any, to: str = "reviews-0", end: str = "\n") -> None:
        with (self.folder / f"{to}.access.jsonl").open("a") as file:
            for line in lines:
                file.write((line if isinstance(line, str) else json.dumps(line)) + end)

    def poll(self, samples: Samples) -> LabLog:
        asyncio.run(self.source.poll(samples))
        return self.source


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def _samples(*arms: Arm, phase: Phase = Phase.FAULT, decided: bool = True) -> Samples:
    samples = Samples()
    for arm in arms or (Arm.FAULT,) * 4:
        number = samples.open(arm, phase, 0, len(samples) * 10 * MS)
        if decided:
            samples.close(number, done_ns=samples.due_ns[number] + MS, status=200)
    return samples


def _line(
    headers: dict[str, str] | None = None,
    *,
    route: str = TWIN,
    flags: str = "DI",
    workload: str = "reviews",
    **more: Any,
) -> dict[str, Any]:
    """Return a line as the lab's proxies write them, for a call that carries *headers*."""
    headers = headers or {}
    return {
        "workload": workload,
        "direction": "outbound",
        "start": f"{ZERO + 1:.6f}",
        "duration_us": "2500000",
        "duration_ms": 2500,
        "path": "/ratings/0",
        "authority": "ratings:9080",
        "status": 200,
        "flags": flags,
        "route": route,
        "cluster": "outbound|9080|v1|ratings.bookinfo.svc.cluster.local",
        "attempts": 1,
        "scope": {"x-luff-run": headers.get("x-luff-run")},
        "baggage": headers.get("baggage"),
        "traceparent": headers.get("traceparent"),
        **more,
    }


def _mine(number: int, **more: Any) -> dict[str, Any]:
    return _line(SCOPE.headers(number), **more)


def test_a_twin_is_known_with_what_istiod_puts_around_its_name(logs: Logs) -> None:
    logs.write(_mine(0, route=f"root-{TWIN}"), _mine(1, route=f"{TWIN}.match"), _mine(2, route=f"root-{TWIN}1"))
    assert list(logs.poll(_samples()).evidence.attempts)[:3] == [1, 1, 0]


def test_a_line_of_the_twin_proves_its_request(logs: Logs) -> None:
    logs.write(_mine(0), _mine(2, flags="-"), _mine(3, flags="FI"))
    evidence = logs.poll(_samples()).evidence
    assert list(evidence.attempts) == [1, 0, 1, 1]
    assert list(evidence.fired) == [Flag.TWIN | Flag.DELAY_INJECTED, 0, Flag.TWIN, Flag.TWIN | Flag.FAULT_INJECTED]
    assert (evidence.attempts_total, evidence.fired_total, evidence.breaches) == (3, 2, 0)
    assert evidence.callers == Counter(reviews=3)
    assert evidence.arrived == Counter(dict.fromkeys(Carrier, 3))
    assert (evidence.source, evidence.per) == ("lab-log", "request")


@pytest.mark.parametrize("carrier", list(Carrier))
def test_any_one_carrier_proves_it(logs: Logs, carrier: Carrier) -> None:
    headers = Scope(SCOPE.secret, SCOPE.decoy, carriers=(carrier,)).headers(1)
    logs.write(_line(headers))
    evidence = logs.poll(_samples()).evidence
    assert list(evidence.attempts) == [0, 1, 0, 0]
    assert evidence.arrived == Counter({carrier: 1})


def test_a_route_that_is_not_the_twin_proves_nothing(logs: Logs) -> None:
    other = TWIN.replace("0123456789abcdef", "f" * 16)
    logs.write(
        _mine(0, route="default"), _mine(1, route=other), _mine(2, route=TWIN + "9"), _mine(3, route=TWIN + ".0")
    )
    assert list(logs.poll(_samples()).evidence.attempts) == [0, 0, 0, 1]


def test_every_try_is_an_attempt(logs: Logs) -> None:
    # The caller asks three times; in the last its proxy tries four times, and the fault filter answers none of them.
    logs.write(_mine(1), _mine(1), _mine(1, attempts=4), _mine(2, attempts=0, flags="FI"), _mine(3, attempts=None))
    evidence = logs.poll(_samples()).evidence
    assert list(evidence.attempts) == [0, 6, 1, 1]
    assert evidence.attempts_total == 5


def test_calls_to_another_host_that_is_asked_for_are_counted_apart(logs: Logs) -> None:
    logs.source.edges = ("till", "till.bank")
    there = "outbound|80||{}.svc.cluster.local"
    logs.write(
        _mine(1, route="default", cluster=there.format("till.shop")),
        _mine(1, route="default", cluster=there.format("till.shop"), attempts=3),
        _mine(2, route="default", cluster=there.format("till.bank")),
        _mine(2, route="default", cluster=there.format("tillage.shop")),
        _mine(3, route="default", cluster=there.format("till.shop"), direction="inbound"),
        _line(SCOPE.control_headers(3), route="default", cluster=there.format("till.shop")),
        _mine(10**9, route="default", cluster=there.format("till.shop")),
    )
    evidence = logs.poll(_samples()).evidence
    assert {host: list(counts) for host, counts in evidence.edges.items()} == {
        "till": [0, 4, 1, 0],
        "till.bank": [0, 0, 1, 0],
    }
    assert list(evidence.attempts) == [0, 0, 0, 0]


def test_attempts_without_end_are_counted_to_an_end(logs: Logs) -> None:
    logs.write(_mine(0, attempts=10**9), _mine(0))
    assert logs.poll(_samples()).evidence.attempts[0] == ATTEMPTS_MOST


def test_replicas_and_polls_add_up(logs: Logs) -> None:
    samples = _samples()
    logs.write(_mine(0), to="reviews-0")
    logs.write(_mine(1, workload="reviews-v2"), to="reviews-1")
    assert list(logs.poll(samples).evidence.attempts) == [1, 1, 0, 0]
    logs.write(_mine(2), to="reviews-0")
    logs.write(_mine(2, workload="reviews-v2"), to="reviews-2")
    evidence = logs.poll(samples).evidence
    assert list(evidence.attempts) == [1, 1, 2, 0]
    assert evidence.callers == {"reviews": 2, "reviews-v2": 2}
    assert logs.poll(samples).evidence.attempts_total == 4


def test_half_a_line_is_read_when_it_is_whole(logs: Logs) -> None:
    whole = json.dumps(_mine(0, path="/ü"), ensure_ascii=False)
    for cut in range(1, 4):
        logs.write(whole[: cut * 20], end="")
        assert logs.poll(_samples()).evidence.attempts_total == cut - 1
        logs.write(whole[cut * 20 :])
        assert logs.poll(_samples()).evidence.attempts_total == cut


def test_a_log_that_was_cut_or_replaced_is_read_anew(logs: Logs) -> None:
    samples = _samples()
    logs.write(_mine(0), _mine(1))
    logs.poll(samples)
    path = logs.folder / "reviews-0.access.jsonl"
    path.write_text("")
    logs.write(_mine(2))
    logs.poll(samples)
    path.unlink()
    logs.poll(samples)
    logs.write(_mine(3, workload="r"))
    assert list(logs.poll(samples).evidence.attempts) == [1, 1, 1, 1]


def test_a_rest_of_before_is_not_put_before_what_came_after(logs: Logs) -> None:
    logs.write(_mine(0))
    logs.write('{"half": ', end="")
    logs.poll(_samples())
    (logs.folder / "reviews-0.access.jsonl").write_text("")
    logs.write(_mine(1))
    assert list(logs.poll(_samples()).evidence.attempts) == [1, 1, 0, 0]


def test_what_is_in_the_logs_already_can_be_skipped(logs: Logs) -> None:
    logs.write(_mine(0))
    logs.write('{"a line that is still being wri', end="")
    logs.source.skip_to_end()
    logs.write('tten": 1}', _mine(1))
    logs.write(_mine(2), to="a-new-one")
    assert list(logs.poll(_samples()).evidence.attempts) == [0, 1, 1, 0]


JUNK: list[Any] = [
    "not json",
    "[]",
    "7",
    "null",
    "{}",
    "",
    "\x00\x00",
    _mine(0, start="-", route="other", cluster=None),
    _mine(0, start=None, status="-", duration_us="-", duration_ms=None, route="other"),
    _mine(0, start="NaN", status=[], duration_us="-1", route="other"),
    {**_mine(0, route="other"), "scope": "text", "baggage": 7, "traceparent": ["x"]},
    {**_mine(0, route=None), "workload": None, "direction": None, "flags": None},
]


@pytest.mark.parametrize("junk", JUNK)
def test_a_line_that_means_nothing_stops_nothing(logs: Logs, junk: Any) -> None:
    logs.write(junk, _mine(1))
    evidence = logs.poll(_samples()).evidence
    assert list(evidence.attempts) == [0, 1, 0, 0]


def test_logs_that_cannot_be_read_are_absent_evidence(logs: Logs) -> None:
    (logs.folder / "folder.access.jsonl").mkdir()
    (logs.folder / "nowhere.access.jsonl").symlink_to(logs.folder / "nothing")
    logs.write(_mine(1))
    assert logs.poll(_samples()).evidence.attempts_total == 1


@pytest.mark.parametrize("headers", [{}, SCOPE.control_headers(1), {"x-luff-run": "a" * 32 + ".1"}])
def test_a_request_that_should_not_take_the_twin_is_a_breach(logs: Logs, headers: dict[str, str]) -> None:
    logs.write(_mine(0), _line(headers))
    evidence = logs.poll(_samples()).evidence
    assert evidence.breaches == 1
    assert (evidence.attempts_total, list(evidence.attempts)) == (1, [1, 0, 0, 0])


def test_a_probe_shows_that_the_twin_is_there_and_is_no_sample(logs: Logs) -> None:
    logs.write(_mine(1_000_000))
    evidence = logs.poll(_samples()).evidence
    assert (evidence.attempts_total, list(evidence.attempts), evidence.breaches) == (1, [0] * 4, 0)


def test_requests_that_come_later_find_room(logs: Logs) -> None:
    samples = _samples()
    logs.poll(samples)
    number = samples.open(Arm.FAULT, Phase.FAULT, 0, 99 * MS)
    logs.write(_mine(number))
    assert list(logs.poll(samples).evidence.attempts) == [0, 0, 0, 0, 1]


# How far everything is known


def test_where_attempts_are_counted_a_request_is_settled_once_no_more_can_come(logs: Logs) -> None:
    logs.source.retries_for_s = 2.0
    samples = _samples(Arm.FAULT)
    logs.write(_line(SCOPE.headers(0)))
    logs.now_s = ZERO + 2.0 + LINE_LATE_S
    assert logs.poll(samples).evidence.settled_through == 0
    logs.write(_line(SCOPE.headers(0)))
    logs.now_s += 0.002
    found = logs.poll(samples).evidence
    assert (found.settled_through, found.attempts[0]) == (1, 2)


def test_a_request_is_settled_when_it_is_proven(logs: Logs) -> None:
    samples = _samples()
    assert logs.poll(samples).evidence.settled_through == 0
    logs.write(_mine(1))
    assert logs.poll(samples).evidence.settled_through == 0
    logs.write(_mine(0))
    assert logs.poll(samples).evidence.settled_through == 2
    logs.write(_mine(3))
    assert logs.poll(samples).evidence.settled_through == 2


def test_or_when_no_proof_can_come_any_more(logs: Logs) -> None:
    samples = _samples()
    logs.now_s = ZERO + WAIT_S + LINE_LATE_S - 0.001
    assert logs.poll(samples).evidence.settled_through == 0
    logs.now_s += 0.012
    assert logs.poll(samples).evidence.settled_through == 2
    logs.now_s += 1
    assert logs.poll(samples).evidence.settled_through == 4


def test_or_when_there_is_nothing_to_prove(logs: Logs) -> None:
    assert logs.poll(_samples(Arm.CONTROL, Arm.CONTROL)).evidence.settled_through == 2


@pytest.mark.parametrize("phase", [Phase.WARMUP, Phase.RECOVERY])
def test_without_a_fault_there_is_nothing_to_prove(logs: Logs, phase: Phase) -> None:
    assert logs.poll(_samples(phase=phase)).evidence.settled_through == 4


def test_what_is_not_decided_is_not_settled(logs: Logs) -> None:
    samples = _samples(decided=False)
    logs.write(*(_mine(number) for number in range(4)))
    assert logs.poll(samples).evidence.settled_through == 0
    samples.close(0, done_ns=MS, failure=Failure.DEADLINE)
    assert logs.poll(samples).evidence.settled_through == 1


# Where the scope was lost


def _inbound(headers: dict[str, str], workload: str) -> dict[str, Any]:
    return _line(headers, workload=workload, direction="inbound", route="default", flags="-")


def _outbound(headers: dict[str, str], workload: str) -> dict[str, Any]:
    return _line(headers, workload=workload, route="default", flags="-")


def test_a_workload_that_gets_the_scope_and_does_not_pass_it_on_is_named(logs: Logs) -> None:
    for number in range(3):
        scoped = SCOPE.headers(number)
        logs.write(_inbound(scoped, "storefront"), _outbound(scoped, "storefront"), to="storefront-0")
        logs.write(_inbound(scoped, "checkout"), _outbound({}, "checkout"), to="checkout-0")
        logs.write(_inbound({}, "inventory"), _outbound({}, "inventory"), to="inventory-0")
    assert logs.poll(_samples()).evidence.lost_at == Counter(checkout=3)


def test_control_requests_do_not_stand_for_a_loss(logs: Logs) -> None:
    control = SCOPE.control_headers(1)
    logs.write(_inbound(control, "checkout"), _outbound(control, "checkout"), _outbound({}, "checkout"))
    assert not logs.poll(_samples()).evidence.lost_at
    logs.write(_inbound(SCOPE.headers(0), "checkout"), _outbound(SCOPE.headers(0), "checkout"))
    assert not logs.poll(_samples()).evidence.lost_at


def _at(begin_ms: int, took_ms: int, line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "start": f"{ZERO + begin_ms / 1000:.6f}", "duration_us": str(took_ms * 1000)}


def _elsewhere(line: dict[str, Any], service: str) -> dict[str, Any]:
    return {**line, "cluster": f"outbound|80||{service}.bookinfo.svc.cluster.local"}


def _two_kinds(logs: Logs, bare: Callable[[int], list[dict[str, Any]]]) -> Evidence:
    """Return what is known when every second request of checkout's meets the fault, and *bare* is logged for each other one."""
    samples = _samples(*(Arm.FAULT,) * 80)
    for number in range(80):
        scoped = SCOPE.headers(number)
        logs.write(_at(number * 100, 20, _inbound(scoped, "checkout")), to="checkout-0")
        samples.request[number] = number % 2
        if number % 2 == 0:
            logs.write(_at(number * 100 + 5, 10, _mine(number, workload="checkout")), to="checkout-0")
        else:
            logs.write(*bare(number * 100), to="checkout-0")
    logs.now_s = ZERO + 100
    return logs.poll(samples).evidence


def _excused(evidence: Evidence) -> int:
    samples = _samples(*(Arm.FAULT,) * 80)
    for number in range(80):
        samples.request[number] = number % 2
    return bystanders_of(samples, evidence).total


def test_a_workload_that_loses_the_scope_on_one_of_its_paths_is_named_and_excuses_nobody(logs: Logs) -> None:
    evidence = _two_kinds(logs, lambda begin: [_at(begin + 5, 10, _outbound({}, "checkout"))])
    assert evidence.lost_at == Counter(checkout=40)
    assert _excused(evidence) == 0


def test_so_is_one_whose_peer_then_cannot_know_better(logs: Logs) -> None:
    evidence = _two_kinds(
        logs,
        lambda begin: [
            _at(begin + 5, 10, _elsewhere(_outbound({}, "checkout"), "pricing")),
            _at(begin + 6, 8, _inbound({}, "pricing")),
            _at(begin + 7, 5, _outbound({}, "pricing")),
        ],
    )
    assert evidence.lost_at == Counter(checkout=40)


def test_calls_without_the_scope_that_lead_elsewhere_accuse_nobody(logs: Logs) -> None:
    def bare(begin: int) -> list[dict[str, Any]]:
        return [
            _at(begin + 5, 10, _elsewhere(_outbound({}, "checkout"), "adverts")),
            _at(begin + 5, 10, _elsewhere(_outbound({}, "ratings"), "database")),
        ]

    evidence = _two_kinds(logs, bare)
    assert not evidence.lost_at
    assert _excused(evidence) == 40


def test_a_service_that_asks_the_dependency_by_itself_now_and_then_does_not_lose_the_scope(logs: Logs) -> None:
    # Each poll begins while nothing of ours is there, but for one that meets a request by chance.
    def bare(begin: int) -> list[dict[str, Any]]:
        return [_at(begin + (10 if begin == 1100 else 50), 10, _outbound({}, "checkout"))]

    evidence = _two_kinds(logs, bare)
    assert not evidence.lost_at
    assert _excused(evidence) == 40


@pytest.mark.parametrize("carrier", [Carrier.HEADER, Carrier.BAGGAGE])
def test_calls_of_another_run_are_not_taken_for_some_that_lost_the_scope(logs: Logs, carrier: Carrier) -> None:
    beside = Scope(secret="1" * 32, decoy="2" * 32, carriers=(carrier,))
    evidence = _two_kinds(logs, lambda begin: [_at(begin + 5, 10, _outbound(beside.headers(begin), "checkout"))])
    assert not evidence.lost_at


def test_a_dependency_that_calls_its_own_database_without_the_scope_is_not_accused(logs: Logs) -> None:
    for number in range(3):
        scoped = SCOPE.headers(number)
        logs.write(_inbound(scoped, "reviews"), _mine(number), to="reviews-0")
        logs.write(_inbound(scoped, "ratings"), _elsewhere(_outbound({}, "ratings"), "database"), to="ratings-0")
    logs.now_s = ZERO + 100
    assert not logs.poll(_samples()).evidence.lost_at


def test_before_the_fault_nobody_loses_what_there_is_not_to_meet(logs: Logs) -> None:
    logs.write(_mine(9, workload="checkout"))
    for number in range(4):
        logs.write(_inbound(SCOPE.headers(number), "checkout"), _outbound({}, "checkout"))
    logs.now_s = ZERO + 100
    assert not logs.poll(_samples(phase=Phase.WARMUP)).evidence.lost_at


# Calls, for explanations


def test_calls_of_the_fault_arm_are_kept(logs: Logs) -> None:
    logs.write(
        _mine(1, flags="DI,DC", status=0),
        _line(SCOPE.control_headers(2), route="default"),
        _line({}, route="default"),
        _mine(2, route="default", flags="-", cluster=None, duration_us="-", direction="inbound"),
    )
    assert logs.poll(_samples()).evidence.calls == [
        Call("reviews", "outbound", "ratings", "/ratings/0", 1, ZERO + 1, ZERO + 3.5, 0, "DI,DC", TWIN),
        Call("reviews", "inbound", "ratings:9080", "/ratings/0", 2, ZERO + 1, ZERO + 3.5, 200, "-", "default"),
    ]


def test_only_so_many_calls_are_kept(logs: Logs) -> None:
    logs.write(*[_mine(0)] * (CALLS_MOST + 10))
    evidence = logs.poll(_samples()).evidence
    assert (len(evidence.calls), evidence.attempts_total) == (CALLS_MOST, CALLS_MOST + 10)


def test_a_long_warm_up_leaves_room_for_the_calls_under_the_fault(logs: Logs) -> None:
    samples = _samples(Arm.FAULT, phase=Phase.WARMUP)
    number = samples.open(Arm.FAULT, Phase.FAULT, 0, 10 * MS)
    logs.write(*[_mine(0, route="default")] * CALLS_MOST, _mine(number))
    assert [call.number for call in logs.poll(samples).evidence.calls] == [number]


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_however_a_log_grows_it_is_read_once(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    logs = Logs(tmp_path_factory.mktemp("grows"))
    text = "".join(json.dumps(_mine(number)) + "\n" for number in range(4)).encode()
    path = logs.folder / "reviews-0.access.jsonl"
    at = 0
    for cut in [*sorted(min(cut, len(text)) for cut in cuts), len(text)]:
        with path.open("ab") as file:
            file.write(text[at:cut])
        at = cut
        logs.poll(_samples())
    assert list(logs.source.evidence.attempts) == [1, 1, 1, 1]


# Where luff is the direct caller


def test_the_response_header_proves_it_where_luff_calls_itself() -> None:
    source, samples = ResponseHeader(), Samples()
    flags = [Flag.TWIN | Flag.DELAY_INJECTED, Flag(0), Flag.TWIN, Flag.TWIN | Flag.FAULT_INJECTED]
    for flag in flags:
        number = samples.open(Arm.FAULT, Phase.FAULT, 0, 0)
        samples.close(number, done_ns=1, status=200, flags=int(flag))
    samples.close(samples.open(Arm.CONTROL, Phase.FAULT, 0, 0), done_ns=1, status=200, flags=int(Flag.TWIN))
    hanging = samples.open(Arm.FAULT, Phase.FAULT, 0, 0)
    for _ in range(2):
        asyncio.run(source.poll(samples))
    evidence = source.evidence
    assert list(evidence.attempts) == [1, 0, 1, 1, 0, 0]
    assert list(evidence.fired)[:4] == flags
    assert (evidence.attempts_total, evidence.fired_total, evidence.breaches) == (3, 2, 1)
    assert (evidence.settled_through, evidence.callers) == (hanging, Counter(luff=3))
    samples.close(hanging, done_ns=1, failure=Failure.RESET)
    asyncio.run(source.poll(samples))
    assert evidence.settled_through == hanging + 1
