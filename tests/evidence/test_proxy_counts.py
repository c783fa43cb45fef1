"""Counts of the callers' proxies: read beside the run, across restarts, and what happens when they cannot be read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from luff.errors import MeshBusy, MeshDenied, MeshError, NotFound, PlanRefused
from luff.evidence.first_readable import FirstReadable
from luff.evidence.istio_metrics import REQUESTS
from luff.evidence.latency_shift import LatencyShift
from luff.evidence.pod_metrics import PODS_MOST, PROXY_RULE, PodMetrics
from luff.evidence.prometheus import ANSWER_MOST_BYTES, Prometheus
from luff.evidence.proxy_counts import ProxyCounts, Reading, Unreadable
from luff.samples import Evidence, Samples
from luff.testing import virtual_time
from luff.words import Arm, Object, Phase

DESTINATIONS = frozenset({"stock"})
COUNT = (
    f'{REQUESTS}{{reporter="source",source_workload="cart-v1",destination_service_name="stock",response_flags="FI"}} '
)


def pod(name: str, uid: str = "", **changes: Any) -> Object:
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "labels": {"app": "cart"},
            **changes.pop("metadata", {}),
        },
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
        "status": {"phase": "Running"},
        **changes,
    }


@dataclass
class Pods:
    """These are pods as an API server shows them; a page may be a number, a text, an error, or a wait in seconds."""

    there: list[Object] | MeshError
    pages: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def list(self, namespace: str) -> Sequence[Object]:
        if isinstance(self.there, MeshError):
            raise self.there
        return self.there

    async def page(self, namespace: str, name: str, port: int, path: str) -> str:
        self.asked.append((name, port))
        page = self.pages.get(f"{name}:{port}", self.pages.get(name, 0))
        if isinstance(page, MeshError):
            raise page
        if isinstance(page, float):
            await asyncio.sleep(page)
            return ""
        return page if isinstance(page, str) else f"# TYPE {REQUESTS} counter\n{COUNT}{page}\n"

    @property
    def reader(self) -> PodMetrics:
        return PodMetrics(self.list, self.page, "shop", {"app": "cart"}, DESTINATIONS, "shop")


@dataclass
class Run:
    """This is a run's samples and its source, in virtual time."""

    source: ProxyCounts
    samples: Samples = field(default_factory=Samples)

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            number = self.samples.open(Arm.FAULT, Phase.FAULT, 0, int(now() * 1e9))
            self.samples.close(number, done_ns=int(now() * 1e9) + 1, status=200)

    async def poll(self, for_s: float = 0.3) -> Evidence:
        until_s = now() + for_s
        while now() < until_s:
            await self.source.poll(self.samples)
            await asyncio.sleep(0.1)
        return self.source.evidence


def now() -> float:
    return asyncio.get_running_loop().time()


def counting(reader: Any, *, delay_s: float = 0.0) -> Run:
    return Run(ProxyCounts(reader, delay_s, now(), now))


def play(story: Callable[[], Any]) -> Any:
    with virtual_time() as run:
        return run(story())


def test_what_the_proxies_fired_since_the_beginning_is_counted_by_caller() -> None:
    pods = Pods([pod("a"), pod("b")], {"a": 100, "b": 7})

    async def story() -> Evidence:
        run = counting(pods.reader)
        await run.source.begin()
        run.send(5)
        pods.pages.update(a=103, b=9)
        evidence = await run.poll(2.5)
        await run.source.close()
        return evidence

    evidence = play(story)
    assert (evidence.source, evidence.per, evidence.note) == ("pod-metrics", "aggregate", "")
    assert (evidence.attempts_total, evidence.fired_total, evidence.callers) == (5, 5, Counter({"cart-v1": 5}))
    assert evidence.settled_through == 5, "a look after the last call shows all of it"


def test_a_call_that_the_delay_still_holds_is_waited_for() -> None:
    pods = Pods([pod("a")])

    async def story() -> tuple[int, int]:
        run = counting(pods.reader, delay_s=5.0)
        await run.source.begin()
        run.send()
        early = (await run.poll(4.0)).settled_through
        pods.pages["a"] = 1
        await run.poll(4.0)
        await run.source.close()
        assert run.source.evidence.fired_total == 1
        return early, run.source.evidence.settled_through

    assert play(story) == (0, 1)


def test_pods_that_come_go_and_start_again_are_counted_for_what_was_seen_of_them() -> None:
    pods = Pods([pod("a"), pod("b")], {"a": 10, "b": 10})

    async def story() -> int:
        run = counting(pods.reader)
        await run.source.begin()
        run.send()
        pods.pages.update(a=14, b=12)
        await run.poll(2.5)
        # The proxy of a started again; b is gone, and another pod came in its place.
        pods.there = [pod("a"), pod("b", uid="another")]
        pods.pages.update(a=3, b=5)
        run.send()
        evidence = await run.poll(2.5)
        await run.source.close()
        return evidence.fired_total

    assert play(story) == (4 + 2) + (3 + 5)


def test_pods_that_do_not_run_have_no_proxy_or_are_others_are_left_alone() -> None:
    pods = Pods(
        [
            pod("a"),
            pod("pending", status={"phase": "Pending"}),
            pod("bare", spec={"containers": [{"name": "app"}]}),
            pod("till", metadata={"labels": {"app": "till"}}),
            pod("native", spec={"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]}),
        ]
    )
    reading = play(lambda: pods.reader.read())
    assert isinstance(reading, Reading)
    assert set(reading.proxies) == {"uid-a", "uid-native"}


def test_the_other_port_is_tried_and_the_one_that_answered_is_kept_to() -> None:
    pods = Pods([pod("a")], {"a:15090": MeshBusy("refused"), "a:15020": 1})

    async def story() -> None:
        reader = pods.reader
        await reader.read()
        await reader.read()

    play(story)
    assert pods.asked == [("a", 15090), ("a", 15020), ("a", 15020)]


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        (
            Pods(MeshDenied("403: pods is forbidden")),
            ["may not be listed", "forbidden", "pods/proxy", "deploy/runs.yaml"],
        ),
        (Pods(MeshBusy("503")), ["could not be listed", "503"]),
        (Pods([]), ["no running pod", "app=cart in shop", "target.from"]),
        (Pods([pod(f"p{n}") for n in range(PODS_MOST + 1)]), ["prometheus", "target.from", str(PODS_MOST)]),
        (Pods([pod("a")], {"a": MeshDenied("403: pods/proxy")}), ["a: 403", "pods, pods/proxy", "deploy/runs.yaml"]),
        (Pods([pod("a")], {"a": NotFound("gone")}), ["a: gone"]),
        (Pods([pod("a")], {"a": "<html>hello</html>"}), ["not a page of metrics"]),
        (Pods([pod("a")], {"a": 3600.0}), ["no answer within"]),
    ],
)
def test_what_cannot_be_read_says_why_and_what_to_do(pods: Pods, words: list[str]) -> None:
    with pytest.raises(Unreadable) as refused:
        play(lambda: pods.reader.read())
    said = f"{refused.value.why} {refused.value.next_step}"
    assert all(word in said for word in words), said


def test_the_role_in_deploy_allows_what_reading_pods_needs() -> None:
    path = Path(__file__).parents[2] / "deploy" / "runs.yaml"
    roles = {each["metadata"]["name"]: each for each in yaml.safe_load_all(path.read_text())}
    allowed = {
        (what, verb) for rule in roles["luff-runs"]["rules"] for what in rule["resources"] for verb in rule["verbs"]
    }

    assert {("pods", "list"), ("pods/proxy", "get")} <= allowed
    assert set(yaml.safe_load(PROXY_RULE)["resources"]) == {"pods", "pods/proxy"}


def test_one_proxy_of_several_that_is_silent_is_said_and_keeps_the_count_open() -> None:
    pods = Pods([pod("a"), pod("b")], {"b": MeshBusy("refused")})

    async def story() -> Evidence:
        run = counting(pods.reader)
        await run.source.begin()
        run.send()
        pods.pages["a"] = 1
        evidence = await run.poll(3.0)
        assert (evidence.settled_through, evidence.fired_total) == (0, 1)
        assert "b: refused" in evidence.note
        # What it counted before it could be read is not known, so it is not counted.
        pods.pages["b"] = 40
        await run.poll(1.5)
        pods.pages["b"] = 41
        run.send()
        evidence = await run.poll(1.5)
        await run.source.close()
        return evidence

    evidence = play(story)
    assert (evidence.fired_total, evidence.note, evidence.settled_through) == (2, "", 2)


def test_a_source_that_is_slow_never_holds_up_who_polls_it() -> None:
    pods = Pods([pod("a")])

    async def story() -> float:
        run = counting(pods.reader)
        await run.source.begin()
        run.send()
        pods.pages["a"] = 3600.0
        await asyncio.sleep(2.0)
        began_s = now()
        for _ in range(50):
            await run.source.poll(run.samples)
        await run.source.close()
        return now() - began_s

    assert play(story) == 0.0


def test_a_source_that_fails_meanwhile_is_read_again_and_loses_nothing() -> None:
    pods = Pods([pod("a")])

    async def story() -> Evidence:
        run = counting(pods.reader)
        await run.source.begin()
        run.send()
        pods.pages["a"] = MeshBusy("429")
        assert "429" in (await run.poll(2.5)).note
        pods.pages["a"] = 6
        evidence = await run.poll(2.5)
        await run.source.close()
        return evidence

    evidence = play(story)
    assert (evidence.fired_total, evidence.note) == (6, "")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (f"# TYPE {REQUESTS} counter\n", ["app=cart in shop", "no request is counted", "Telemetry", "target.from"]),
        ("envoy_server_live 1\n", ["no request is counted"]),
        (f'{REQUESTS}{{reporter="source"}} 9\n', ["without response_flags"]),
    ],
)
def test_pages_that_would_show_no_fault_are_no_source_once_requests_were_sent(page: str, words: list[str]) -> None:
    async def story(*, warmed_up: bool) -> None:
        source = ProxyCounts(Pods([pod("a")], {"a": page}).reader, 0.0, now(), now, warmed_up=warmed_up)
        await source.begin()

    play(lambda: story(warmed_up=False))
    with pytest.raises(Unreadable) as refused:
        play(lambda: story(warmed_up=True))

    said = f"{refused.value.why} {refused.value.next_step}"
    assert all(word in said for word in words), said


def test_one_page_that_counts_is_enough() -> None:
    pods = Pods([pod("a"), pod("b")], {"a": f"# TYPE {REQUESTS} counter\n", "b": 3})

    play(counting_of(pods))


def counting_of(pods: Pods) -> Callable[[], Any]:
    async def story() -> None:
        await counting(pods.reader).source.begin()

    return story


# The best that can be read


def test_the_first_that_can_be_read_is_chosen_and_says_why_no_better_one() -> None:
    async def story() -> Evidence:
        evidence = Evidence("pod-metrics", "aggregate")
        denied = Pods(MeshDenied("403: pods is forbidden")).reader
        counts = ProxyCounts(denied, 0.0, now(), now, evidence)
        source = FirstReadable(evidence, [counts, LatencyShift(evidence)])
        await source.begin()
        await source.close()
        assert source.evidence is evidence
        return evidence

    evidence = play(story)
    assert evidence.source == "latency-shift"
    assert "forbidden" in evidence.remarks
    assert "pods/proxy" in evidence.remarks


def test_why_no_better_source_was_taken_is_not_forgotten_while_the_chosen_one_is_read() -> None:
    async def story() -> str:
        evidence = Evidence("pod-metrics", "aggregate")
        pods = Pods([pod("a")])
        denied = ProxyCounts(Pods(MeshDenied("403: first")).reader, 0.0, now(), now, evidence)
        run = Run(ProxyCounts(pods.reader, 0.0, now(), now, evidence))
        source = FirstReadable(evidence, [denied, run.source])
        await source.begin()
        run.send()
        pods.pages["a"] = MeshBusy("429: then")
        for _ in range(30):
            await source.poll(run.samples)
            await asyncio.sleep(0.1)
        await source.close()
        return evidence.remarks

    remarks = play(story)
    assert "403: first" in remarks
    assert "429: then" in remarks


def test_a_source_that_was_asked_for_and_cannot_be_read_is_refused_before_anything_is_injected() -> None:
    async def story() -> None:
        evidence = Evidence("pod-metrics", "aggregate")
        counts = ProxyCounts(Pods(MeshDenied("403")).reader, 0.0, now(), now, evidence)
        await FirstReadable(evidence, [counts]).begin()

    with pytest.raises(PlanRefused, match="nothing was injected") as refused:
        play(story)
    assert refused.value.rule == "evidence_unreadable"
    assert "pods/proxy" in str(refused.value.next_step)


# Prometheus


def prometheus(answer: Callable[[httpx.Request], httpx.Response]) -> Prometheus:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Prometheus("http://prometheus:9090/", {"source_app": 'ca"rt'}, DESTINATIONS, "shop", client=client)


@pytest.mark.parametrize("url", ["http://ada:s3cret@prometheus:9090/?token=s3cret", "http://ada:s3/cret@prometheus/"])
def test_the_password_of_a_prometheus_is_in_no_message(url: str) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    source = Prometheus(url, {"source_app": "cart"}, DESTINATIONS, "shop", client=client)

    with pytest.raises(Unreadable) as caught:
        asyncio.run(source.read())

    assert "Prometheus at http://" in caught.value.why
    assert "s3" not in caught.value.why


def vector(*series: tuple[dict[str, str], str]) -> bytes:
    result: list[Any] = [
        {"metric": {"__name__": REQUESTS, **metric}, "value": [1.7e9, value]} for metric, value in series
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


MINE: dict[str, str] = {"reporter": "source", "response_flags": "FI", "destination_service_name": "stock", "pod": "a"}


def test_prometheus_is_asked_for_the_callers_and_its_series_are_told_apart_by_pod() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v1/query"
        asked.append(request.url.params["query"])
        return httpx.Response(
            200,
            content=vector(
                (MINE, "3"), ({**MINE, "pod": "b"}, "4"), ({**MINE, "destination_service_name": "till"}, "9")
            ),
        )

    reading = play(lambda: prometheus(answer).read())
    assert reading.blind is None
    assert {name: sum(series.values()) for name, series in reading.proxies.items()} == {"a": 3.0, "b": 4.0}
    assert asked == [f'{REQUESTS}{{reporter="source",source_app="ca\\"rt",response_flags=~"(.*,)?(DI|FI)(,.*)?"}}']


@pytest.mark.parametrize("known", [True, False])
def test_a_prometheus_that_does_not_know_the_callers_is_no_source(known: bool) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["query"])
        any_ = asked[-1].startswith("count(")
        return httpx.Response(200, content=vector(({}, "7")) if any_ and known else vector())

    async def story() -> str:
        source = counting(prometheus(answer)).source
        try:
            await source.begin()
            await source.reader.read()
        except Unreadable as error:
            return f"{error.why} {error.next_step}"
        return ""

    said = play(story)
    assert asked[1] == f'count({REQUESTS}{{reporter="source",source_app="ca\\"rt",response_flags!=""}})'
    if known:
        assert said == ""
        assert len(asked) == 3, "who counts is asked once"
    else:
        assert all(word in said for word in ("source_app", "no istio_requests_total", "scrape", "pod-metrics")), said


def _down(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def _slow(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("too slow")


@pytest.mark.parametrize(
    "answer",
    [
        _down,
        _slow,
        lambda _: httpx.Response(200, content=b"<html>"),
        lambda _: httpx.Response(200, content=b"[]"),
        lambda _: httpx.Response(200, content=b"\xff\xfe"),
        lambda _: httpx.Response(200, json={"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}),
        lambda _: httpx.Response(200, json={"status": "error", "error": "no"}),
        lambda _: httpx.Response(200, content=vector((MINE, "NaN"))),
        lambda _: httpx.Response(200, content=vector((MINE, "many"))),
        lambda _: httpx.Response(401, content=b"who are you"),
        lambda _: httpx.Response(200, content=b" " * (ANSWER_MOST_BYTES + 1)),
    ],
)
def test_a_prometheus_that_is_down_slow_or_talks_nonsense_says_so(
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    with pytest.raises(Unreadable, match="http://prometheus:9090/") as refused:
        play(lambda: prometheus(answer).read())
    assert "LUFF_PROMETHEUS_URL" in refused.value.next_step
