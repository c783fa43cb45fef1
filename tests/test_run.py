"""One run against fakes that we ship: what it does when the world does not go along."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.errors import RunAborted, UsageError
from luff.evidence import DataPlane, Sighting, Source
from luff.evidence.lab_log import LINE_LATE_S, LabLog
from luff.evidence.response_header import ResponseHeader
from luff.exit_codes import exit_code
from luff.lever import LEVER
from luff.lifecycle import Phase, StoredLever
from luff.lock import STOP_ANNOTATION, lease_ref
from luff.mesh import Kind, Ref
from luff.outcome import Context, MeshIdentity, Outcome
from luff.parse import parse_documents
from luff.plan import Plan
from luff.reaper import Reaper
from luff.routes import Injection
from luff.run import Options, World, run_experiment
from luff.samples import Evidence, Failure, Samples
from luff.scope import FLAGS_HEADER
from luff.testing import (
    Cluster,
    MemoryJournal,
    MemoryLevers,
    NoWatcher,
    SimClock,
    SimMesh,
    Trouble,
    virtual_time,
)
from luff.traffic.dial import TrafficError
from luff.words import Arm, Object, Verdict
from tests.factories import valid

EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: e, namespace: shop}
spec:
  target: stock
  subject: stock
  fault: {abort: 503}
  traffic: {requests: [GET http://stock/], rate: 200/s, duration: 2s, warmup: WARMUP}
  expect: [{errors: {atMost: 50%}}]
"""
SLOW = EXPERIMENT.replace("200/s", "10/s").replace("duration: 2s", "duration: 80s").replace("50%", "99.9%")
"""One that goes on until something ends it."""
REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "stock")
OBJECT: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "stock", "namespace": "shop"},
    "spec": {"hosts": ["stock"], "http": [{"name": "all", "route": [{"destination": {"host": "stock"}}]}]},
}


class _Transport(httpx.MockTransport):
    closed = False

    async def aclose(self) -> None:
        self.closed = True


class Setting:
    """This is everything around one run, made of fakes."""

    def __init__(self, *, warmup: str = "0s", text: str = EXPERIMENT) -> None:
        self.cluster = Cluster()
        self.cluster.add(OBJECT)
        for name in ("shop", "luff-system"):
            self.cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.mesh = SimMesh(self.cluster)
        self.journal = MemoryJournal()
        self.levers = MemoryLevers()
        self.steps: list[str] = []
        self.live = asyncio.Event()
        self.armed = asyncio.Event()
        self.clean = asyncio.Event()
        self.plane: DataPlane | None = None
        self.guard_died = asyncio.Event()
        self.traces: list[str] = []
        self.source: Source = ResponseHeader()
        self.sources: Callable[[Plan, float], Source] = lambda _plan, _zero_s: self.source
        self.clock = SimClock()
        self.answer: Callable[[httpx.Request], httpx.Response] = self._faulted
        self.transport = _Transport(lambda request: self.answer(request))
        self.outside: dict[str, Any] = {}
        self.time = virtual_time
        [self.experiment] = parse_documents([("e.yaml", text.replace("WARMUP", warmup))]).experiments

    def _faulted(self, request: httpx.Request) -> httpx.Response:
        """Answer as the stock's proxy would: with the twin's header while it is there, for requests in scope."""
        for route in self.cluster.objects[REF]["spec"]["http"]:
            for match in route.get("match") or []:
                prefix = match["headers"].get("x-luff-run", {}).get("prefix")
                if prefix and request.headers["x-luff-run"].startswith(prefix):
                    return httpx.Response(503, headers={FLAGS_HEADER: "FI"})
        return httpx.Response(200)

    def run(
        self,
        *,
        during: Callable[[Callable[[RunAborted], None]], Awaitable[Any]] | None = None,
        before: Callable[[], Awaitable[Any]] | None = None,
        **options: Any,
    ) -> Outcome:
        """Run the experiment and return its outcome."""

        async def watcher_died() -> int:
            await self.guard_died.wait()
            return 9

        def keep(trace: str) -> str:
            self.traces.append(trace)
            return "the test's list"

        async def story() -> Outcome:
            if before is not None:
                await before()
            world = World(
                mesh=self.mesh,
                identity=MeshIdentity(kind="cluster", name="sim"),
                journal=self.journal,
                watcher=NoWatcher(),
                watcher_died=watcher_died,
                clock=self.clock,
                transport=lambda _: self.transport,
                source=self.sources,
                plane=self.plane,
                keep_traceback=keep,
                levers=self.levers,
            )
            world = replace(world, **self.outside)
            stops: list[Callable[[RunAborted], None]] = []
            task = asyncio.create_task(
                run_experiment(
                    self.experiment, world, options=Options(actor="me", **options), progress=self, on_start=stops.append
                )
            )
            await asyncio.sleep(0)
            if during is not None:
                await during(stops[0])
            outcome, _ = await task
            return outcome

        with self.time() as play:
            found = play(story())
        assert isinstance(found, Outcome)
        return valid(found)

    def deny(self) -> None:
        """Let the API server refuse everything about the VirtualService from now on."""
        self.mesh.trouble = lambda _, ref: Trouble.DENIED if ref.kind is Kind.VIRTUAL_SERVICE else Trouble.NONE

    def step(self, name: str, note: str = "") -> None:
        """Take note of a step, as progress."""
        self.steps.append(name)
        if name == "live":
            self.live.set()
        for word, event in (("armed", self.armed), ("clean", self.clean)):
            if name == word:
                event.set()

    def traffic(self, *_: Any, **__: Any) -> None:
        """Take note of nothing."""

    @property
    def routes(self) -> list[str]:
        """Return the names of the object's routes now."""
        return [route["name"] for route in self.cluster.objects[REF]["spec"]["http"]]


def test_a_run_ends_with_what_was_learnt_and_the_object_as_it_was() -> None:
    setting = Setting()

    outcome = setting.run()

    assert outcome.verdict is Verdict.FAILED, outcome.explanation
    assert outcome.phase is Phase.CLEAN
    assert outcome.restore is not None
    assert outcome.restore.api == "verified"
    assert outcome.evidence is not None
    assert outcome.evidence.exposure == 1.0
    assert outcome.evidence.calls_per_request == 1.0
    assert setting.routes == ["all"]


def test_connections_are_let_go_of_where_no_evidence_can_be_had() -> None:
    setting = Setting()

    def nowhere(_plan: Plan, _zero_s: float) -> Source:
        raise OSError("the folder of logs cannot be read")

    setting.sources = nowhere

    outcome = setting.run()

    assert (outcome.verdict, outcome.phase) == (Verdict.ERROR, Phase.CLEAN)
    assert setting.transport.closed


def test_an_outcome_says_what_was_tested_as_the_pods_of_the_subject_say() -> None:
    setting = Setting()
    for name, app, digest in (("a", "stock", "ab"), ("b", "other", "cd")):
        image = {"name": "main", "image": f"shop/{app}:1"}
        setting.cluster.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "shop",
                    "labels": {"app": app, "app.kubernetes.io/version": f"{app}-1.4"},
                },
                "spec": {"containers": [image]},
                "status": {
                    "phase": "Running",
                    "containerStatuses": [{**image, "imageID": f"shop/{app}@sha256:{digest}"}],
                },
            }
        )

    outcome = setting.run(context=Context(commit="e83c5163"))

    assert outcome.context == Context(commit="e83c5163", image="shop/stock:1@sha256:ab", revision="stock-1.4")
    assert not [entry for entry in outcome.timeline if "not known" in (entry.note or "")]


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (Trouble.NONE, "no running pod in shop has the labels app=stock"),
        (Trouble.DENIED, "pods in shop may not be listed (the rule is in deploy/runs.yaml)"),
        (Trouble.ERROR, "the pods in shop could not be listed"),
    ],
)
def test_what_is_tested_and_cannot_be_read_is_null_and_said(trouble: Trouble, why: str) -> None:
    setting = Setting()
    setting.mesh.trouble = lambda _, ref: trouble if ref.kind is Kind.POD else Trouble.NONE

    outcome = setting.run()

    assert outcome.verdict is Verdict.FAILED, "it is judged all the same"
    assert (outcome.context.image, outcome.context.revision) == (None, None)
    [note] = [entry.note for entry in outcome.timeline if entry.phase == "mind"]
    assert note is not None
    assert note.startswith("which image and revision of stock is tested is not known: ")
    assert why in note


@pytest.mark.parametrize("warmup", ["0s", "0.5s"])
def test_where_control_requests_are_switched_off_none_is_sent(warmup: str) -> None:
    text = EXPERIMENT.replace("GET http://stock/", "POST http://stock/").replace("rate:", "control: false, rate:")
    setting = Setting(warmup=warmup, text=text)
    numbers: list[str] = []
    faulted = setting.answer

    def answer(request: httpx.Request) -> httpx.Response:
        numbers.append(request.headers["x-luff-run"].partition(".")[0])
        return faulted(request)

    setting.answer = answer

    outcome = setting.run()

    assert outcome.verdict is Verdict.FAILED, outcome.explanation
    assert outcome.arms["control"].sent == 0
    assert len(set(numbers)) == 1, "only what carries the scope is sent, also before the fault"


def test_a_service_that_is_sick_before_the_fault_is_never_touched() -> None:
    setting = Setting(warmup="0.5s")
    setting.answer = lambda _: httpx.Response(500)

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "control_unhealthy")
    assert outcome.restore is None
    assert len(setting.cluster.history[REF]) == 1


def test_bystanders_that_are_hurt_end_the_run_at_once() -> None:
    setting = Setting()
    faulted = setting.answer

    def hurt(request: httpx.Request) -> httpx.Response:
        live = len(setting.cluster.objects[REF]["spec"]["http"]) > 1
        return httpx.Response(503) if live and FLAGS_HEADER not in faulted(request).headers else faulted(request)

    setting.answer = hurt

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "isolation_breach")
    assert setting.routes == ["all"]


def test_a_restore_that_is_not_verified_pulls_the_lever() -> None:
    setting = Setting()
    lost = False

    def trouble(verb: str, ref: Ref) -> Trouble:
        nonlocal lost
        if verb == "patch" and ref == REF:
            first, lost = not lost, True
            return Trouble.NONE if first else Trouble.ERROR
        return Trouble.NONE

    setting.mesh.trouble = trouble

    outcome = setting.run()

    assert outcome.phase is Phase.STRANDED
    assert outcome.verdict is Verdict.ERROR
    assert outcome.restore is not None
    assert outcome.restore.api == "unverified"
    lever = setting.cluster.objects[Ref(Kind.CONFIG_MAP, "shop", LEVER)]
    assert outcome.run in lever["data"]["who"]
    assert "not verified" in lever["data"]["why"]
    assert outcome.run in setting.levers.on["shop"].who


def test_a_lever_in_the_store_alone_refuses_a_run_before_its_warm_up() -> None:
    setting = Setting(warmup="0.5s")
    setting.levers.on[None] = StoredLever(None, "ada", "an incident", datetime.now(UTC))

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "lever")
    assert "an incident" in outcome.explanation
    assert "warm-up" not in setting.steps


def test_a_lever_that_is_pulled_in_the_store_alone_ends_a_live_run() -> None:
    setting = Setting(text=SLOW)

    async def pull_when_live(_: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        await setting.levers.pull("shop", who="ada", why="an incident")

    outcome = setting.run(during=pull_when_live)

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "lever")
    assert setting.routes == ["all"]


def test_a_store_whose_lever_cannot_be_read_refuses_a_run() -> None:
    setting = Setting()
    setting.levers.broken = True

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "store_unreachable")
    assert len(setting.cluster.history[REF]) == 1


def test_a_store_whose_lever_cannot_be_read_ends_no_run_that_is_live() -> None:
    setting = Setting(text=SLOW.replace("duration: 20s", "duration: 5s"))

    async def lose_the_store(_: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        setting.levers.broken = True

    outcome = setting.run(during=lose_the_store)

    assert outcome.verdict is not Verdict.ABORTED
    assert outcome.evidence is not None


def test_an_object_that_carries_twins_is_refused_and_nobody_is_told_to_take_out_what_is_live() -> None:
    setting = Setting()
    scoped = [{"headers": {"x-luff-run": {"prefix": f"{'a' * 32}."}}}]
    twin = {**OBJECT["spec"]["http"][0], "name": "luff.1.0123456789abcdef.1.2.0", "match": scoped}
    setting.cluster.change(REF, [{"op": "add", "path": "/spec/http/0", "value": twin}])

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:already_injected")
    assert outcome.next is not None
    assert "`luff restore -n shop`" in outcome.next.do
    assert "--all" not in outcome.next.do


def test_a_secret_that_cannot_be_sent_ends_a_run_before_anything_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUFF_SECRET_TOKEN", "Bearer abc\n")
    request = "{url: 'http://stock/', headers: {authorization: {fromEnv: LUFF_SECRET_TOKEN}}}"
    setting = Setting(text=EXPERIMENT.replace("GET http://stock/", request))

    with pytest.raises(UsageError, match="LUFF_SECRET_TOKEN"):
        setting.run()

    assert lease_ref(REF) not in setting.cluster.history
    assert len(setting.cluster.history[REF]) == 1


def test_a_container_without_a_reaper_is_refused() -> None:
    setting = Setting()

    outcome = setting.run(needs_reaper=True)

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:no_guard")
    assert outcome.next is not None
    assert "--accept-inert-leftover" in outcome.next.do
    assert len(setting.cluster.history[REF]) == 1


def test_a_reaper_that_falls_silent_ends_a_run_that_relies_on_it() -> None:
    setting = Setting(text=SLOW)

    async def one_sweep() -> None:
        await Reaper(SimMesh(setting.cluster), SimClock()).sweep()

    outcome = setting.run(before=one_sweep, needs_reaper=True)

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "bound")
    assert "the reaper's last heartbeat is" in outcome.explanation
    assert setting.routes == ["all"]


@pytest.mark.parametrize("reason", ["operator", "bound", "tripwire"])
def test_a_stop_from_outside_restores_and_says_why(reason: str) -> None:
    setting = Setting()

    async def stop_when_live(stop: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        stop(RunAborted(reason, "enough"))

    outcome = setting.run(during=stop_when_live)

    assert (outcome.verdict, outcome.reason, outcome.explanation) == (Verdict.ABORTED, reason, "enough")
    assert outcome.restore is not None
    assert outcome.restore.api == "verified"
    assert setting.routes == ["all"]


def test_twins_that_others_take_out_are_not_put_back() -> None:
    setting = Setting(text=SLOW)

    async def remove_when_live(_: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        setting.cluster.edit(REF, lambda thing: thing["spec"].update(http=OBJECT["spec"]["http"]))

    outcome = setting.run(during=remove_when_live)

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "fault_removed")
    assert setting.routes == ["all"]
    assert setting.journal.phases[outcome.run][-1] is Phase.CLEAN


def test_twins_that_a_reaper_took_are_not_blamed_on_gitops() -> None:
    setting = Setting(text=SLOW)

    async def reap_when_live(_: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        mesh = SimMesh(
            setting.cluster, trouble=lambda _, ref: Trouble.NOT_FOUND if ref.kind is Kind.LEASE else Trouble.NONE
        )
        reaper = Reaper(mesh, SimClock(), identity="reaper-1")
        await reaper.sweep()
        await asyncio.sleep(16)
        await reaper.sweep()

    outcome = setting.run(during=reap_when_live)

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "fault_removed")
    assert f"a reaper of luff took out run {outcome.run} (reaper-1): its run is dead" in outcome.explanation
    assert outcome.next is not None
    assert "Lease" in outcome.next.do
    assert "GitOps" not in outcome.next.do


def test_an_object_that_was_deleted_is_not_blamed_on_gitops() -> None:
    setting = Setting(text=SLOW)

    async def delete_when_live(_: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        answered = setting.answer
        setting.answer = lambda request: answered(request) if REF in setting.cluster.objects else httpx.Response(200)
        setting.cluster.remove(REF)

    outcome = setting.run(during=delete_when_live)

    assert outcome.reason == "fault_removed"
    assert outcome.explanation == "the VirtualService was deleted while the fault was in it"
    assert outcome.next is not None
    assert "who deleted" in outcome.next.do


def test_who_else_may_write_is_in_the_runs_record_and_does_not_stop_it() -> None:
    setting = Setting()
    setting.cluster.edit(
        REF, lambda thing: thing["metadata"].update(labels={"kustomize.toolkit.fluxcd.io/name": "apps"})
    )

    outcome = setting.run()

    notes = [entry.note or "" for entry in outcome.timeline if entry.phase == "mind"]
    assert any("flux suspend kustomization apps" in note for note in notes), notes
    assert outcome.verdict is Verdict.FAILED


def test_an_older_object_of_another_namespace_for_the_same_host_is_a_refusal() -> None:
    setting = Setting()
    older: Object = {
        **OBJECT,
        "metadata": {"name": "old", "namespace": "platform", "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {**OBJECT["spec"], "hosts": ["stock.shop.svc.cluster.local"]},
    }
    setting.cluster.add(older)
    setting.cluster.edit(REF, lambda thing: thing["metadata"].update(creationTimestamp="2021-01-01T00:00:00Z"))

    outcome = setting.run()

    assert outcome.reason == "plan_refused:shadowed_virtual_service"
    assert setting.routes == ["all"]


def _events(setting: Setting) -> list[Object]:
    return [each for ref, each in setting.cluster.objects.items() if ref.kind is Kind.EVENT]


def test_what_was_done_is_said_in_events_on_the_object() -> None:
    setting = Setting()

    outcome = setting.run()

    said = {event["reason"]: event for event in _events(setting)}
    assert set(said) == {"LuffFaultInjected", "LuffFaultRemoved"}
    injected = said["LuffFaultInjected"]
    assert injected["note"].startswith(f"me runs e (run {outcome.run}): abort with HTTP 503")
    assert "until 20" in injected["note"]
    assert injected["regarding"]["uid"] == setting.cluster.objects[REF]["metadata"]["uid"]
    secret = setting.cluster.history[REF][1]["spec"]["http"][0]["match"][0]["headers"]["x-luff-run"]["prefix"]  # type: ignore[index]
    assert secret not in str(_events(setting))
    assert not [entry for entry in outcome.timeline if "event" in entry.phase]


def test_events_that_cannot_be_written_delay_and_fail_nothing() -> None:
    outcomes = []
    for trouble in (Trouble.NONE, Trouble.ERROR, Trouble.LOST_BEFORE):
        setting = Setting()
        setting.mesh.trouble = lambda _, ref, t=trouble: t if ref.kind is Kind.EVENT else Trouble.NONE  # type: ignore[misc]
        outcomes.append(setting.run())

    fine, *others = outcomes
    for outcome in others:
        assert (outcome.verdict, outcome.phase, outcome.reason) == (fine.verdict, fine.phase, fine.reason)
        notes = {entry.phase: entry.note for entry in outcome.timeline if entry.phase.startswith("event ")}
        assert set(notes) == {"event LuffFaultInjected", "event LuffFaultRemoved"}
        assert all("not done" in str(note) for note in notes.values())


def test_a_restore_that_failed_is_an_event_with_the_command() -> None:
    setting = Setting()
    seen: list[str] = []

    def trouble(verb: str, ref: Ref) -> Trouble:
        seen.append(verb)
        return Trouble.ERROR if verb == "patch" and ref == REF and seen.count("patch") > 1 else Trouble.NONE

    setting.mesh.trouble = trouble

    setting.run()

    [failed] = [event for event in _events(setting) if event["reason"] == "LuffRestoreFailed"]
    assert failed["type"] == "Warning"
    assert "luff restore" in failed["note"]


def test_ownership_of_the_routes_is_given_back_and_said() -> None:
    setting = Setting()
    entries: list[Object] = [{"manager": name, "fieldsV1": {"f:spec": {"f:http": {}}}} for name in ("helm", "luff")]
    setting.cluster.edit(REF, lambda thing: thing["metadata"].update(managedFields=entries))

    outcome = setting.run()

    assert [entry["manager"] for entry in setting.cluster.objects[REF]["metadata"]["managedFields"]] == ["helm"]
    [note] = [entry.note for entry in outcome.timeline if entry.phase == "ownership"]
    assert str(note).startswith("returned")


def _assert_stranded(setting: Setting, outcome: Outcome) -> None:
    """Assert what has to be said and done when a fault may still be live, however the run came to its end."""
    assert outcome.phase is Phase.STRANDED
    assert outcome.restore is not None
    assert outcome.restore.api == "unverified"
    assert exit_code([outcome], today=date(2026, 11, 24)) == 7
    assert outcome.next is not None
    assert outcome.next.do == f"run `luff restore {outcome.run} -n shop --context simulated`"
    assert not outcome.next.retryable
    lever = setting.cluster.objects[Ref(Kind.CONFIG_MAP, "shop", LEVER)]
    assert outcome.run in lever["data"]["who"]
    phases = [entry.phase for entry in outcome.timeline]
    assert phases.index("withdrawing") < phases.index("stranded") < phases.index("lever")
    assert setting.journal.phases[outcome.run][-1] is Phase.STRANDED


@pytest.mark.parametrize("reason", ["operator", "bound", "tripwire", "lever"])
def test_a_stop_that_meets_a_restore_that_is_not_verified_says_what_to_run(reason: str) -> None:
    setting = Setting()

    async def stop_when_live(stop: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        setting.deny()
        stop(RunAborted(reason, "enough", next_step="another time"))

    outcome = setting.run(during=stop_when_live)

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, reason)
    assert outcome.explanation.startswith("enough; and VirtualService shop/stock may still carry")
    _assert_stranded(setting, outcome)


def test_an_inject_without_an_answer_that_cannot_be_taken_back_says_what_to_run() -> None:
    setting = Setting()
    sent = False

    def trouble(verb: str, ref: Ref) -> Trouble:
        nonlocal sent
        if ref != REF or (verb != "patch" and not sent):
            return Trouble.NONE
        first, sent = not sent, True
        return Trouble.LOST_AFTER if first else Trouble.DENIED

    setting.mesh.trouble = trouble

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "mesh_unreachable")
    _assert_stranded(setting, outcome)


def test_a_lever_that_could_not_be_pulled_is_said() -> None:
    setting = Setting()

    async def stop_when_live(stop: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        setting.mesh.trouble = lambda verb, ref: (
            Trouble.DENIED if ref.kind is Kind.VIRTUAL_SERVICE or verb == "create" else Trouble.NONE
        )
        stop(RunAborted("operator", "enough"))

    outcome = setting.run(during=stop_when_live)

    note, in_store = [entry.note or "" for entry in outcome.timeline if entry.phase == "lever"]
    assert note.startswith("NOT pulled for shop")
    assert "`luff lever on --why 'a restore is not verified' -n shop --context simulated`" in note
    assert in_store.startswith("pulled for shop in the store:")
    assert "not verified" in setting.levers.on["shop"].why
    assert outcome.phase is Phase.STRANDED


class _Proxies:
    """This is a data plane of two proxies; *have* says which of them have what the API has, or breaks."""

    def __init__(self, setting: Setting, have: Callable[[bool], Collection[str]]) -> None:
        self.setting, self.have = setting, have

    async def look(self, injection: Injection) -> Sighting:
        """Return what *have* says, now that there are twins or none."""
        having = self.have(len(self.setting.routes) > 1)
        shown = {proxy: frozenset(injection.names) if proxy in having else frozenset() for proxy in ("a", "b")}
        return Sighting(frozenset(shown), shown, frozenset())


def test_a_stop_that_meets_proxies_that_keep_the_fault_pulls_the_lever() -> None:
    setting = Setting()
    setting.plane = _Proxies(setting, lambda _: {"a", "b"})

    async def stop_when_live(stop: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        stop(RunAborted("operator", "enough"))

    outcome = setting.run(during=stop_when_live)

    assert (outcome.verdict, outcome.reason, outcome.phase) == (Verdict.ABORTED, "operator", Phase.CLEAN)
    assert outcome.restore is not None
    assert outcome.restore.data_plane == "stale"
    assert exit_code([outcome], today=date(2026, 11, 24)) == 7
    assert "still run the fault" in outcome.explanation
    assert outcome.next is not None
    assert "`istioctl proxy-status --context simulated`" in outcome.next.do
    [pulled] = [str(entry.note) for entry in outcome.timeline if entry.phase == "lever"]
    assert "`luff lever off -n shop --context simulated`" in pulled
    assert Ref(Kind.CONFIG_MAP, "shop", LEVER) in setting.cluster.objects


@pytest.mark.parametrize("denied", [False, True])
def test_a_mistake_of_ours_while_the_fault_is_live_is_an_outcome(*, denied: bool) -> None:
    setting = Setting()

    def answer(request: httpx.Request) -> httpx.Response:
        if setting.live.is_set():
            if denied:
                setting.deny()
            raise KeyError("bug")
        return setting._faulted(request)

    setting.answer = answer

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "internal")
    assert "KeyError: 'bug'" in outcome.explanation
    assert "the test's list" in outcome.explanation
    assert any("in answer" in trace for trace in setting.traces)
    if denied:
        _assert_stranded(setting, outcome)
    else:
        assert outcome.phase is Phase.CLEAN
        assert setting.routes == ["all"]
        assert exit_code([outcome], today=date(2026, 11, 24)) == 5


def test_a_mistake_of_ours_in_judging_leaves_an_outcome_that_says_where_the_routes_are() -> None:
    setting = Setting()

    class Broken(ResponseHeader):
        """This is evidence that nobody can sum up."""

        async def poll(self, samples: Any) -> None:
            await super().poll(samples)
            if "clean" in setting.steps:
                self.evidence.settled_through = "many"  # type: ignore[assignment]

    setting.source = Broken()

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason, outcome.phase) == (Verdict.ERROR, "internal", Phase.CLEAN)
    assert outcome.restore is not None
    assert (outcome.restore.api, outcome.restore.object) == ("verified", "identical")


def test_an_odd_error_of_the_client_during_the_restore_is_never_taken_for_clean() -> None:
    setting = Setting()
    plain = setting.mesh.read

    class Odd(SimMesh):
        """This is a mesh whose client breaks while routes are put back."""

        async def read(self, ref: Ref) -> Object:
            if "withdrawing" in setting.steps and ref == REF:
                raise ValueError("Incorrect padding")
            return await plain(ref)

    setting.mesh = Odd(setting.cluster)

    outcome = setting.run()

    assert outcome.verdict is Verdict.ERROR
    assert "Incorrect padding" in outcome.explanation
    _assert_stranded(setting, outcome)


def test_a_journal_that_breaks_oddly_does_not_hold_up_the_restore() -> None:
    setting = Setting()

    class Odd(MemoryJournal):
        """This is a journal whose disk is pulled while it is written to."""

        async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
            if phase is not Phase.LIVE:
                raise OSError(5, "Input/output error")
            await super().mark(run, phase, note=note)

    setting.journal = Odd()

    outcome = setting.run()

    assert outcome.phase is Phase.CLEAN
    assert setting.routes == ["all"]


def test_a_journal_that_says_clean_already_ends_no_run() -> None:
    setting = Setting()

    async def close_the_journal(_: Callable[[RunAborted], None]) -> None:
        await setting.armed.wait()
        [run] = setting.journal.intents
        for phase in (Phase.WITHDRAWING, Phase.CLEAN):
            await setting.journal.mark(run, phase)

    outcome = setting.run(during=close_the_journal)

    assert outcome.verdict is Verdict.FAILED, outcome.explanation
    assert outcome.phase is Phase.CLEAN
    assert setting.routes == ["all"]


def test_whatever_keeps_us_from_looking_at_proxies_what_was_learnt_is_not_lost() -> None:
    setting = Setting()

    def have(there: bool) -> Collection[str]:
        if not there:
            raise RuntimeError("can't start new thread")
        return {"a", "b"}

    setting.plane = _Proxies(setting, have)

    outcome = setting.run()

    assert outcome.verdict is Verdict.FAILED
    assert outcome.restore is not None
    assert outcome.restore.data_plane == "unobserved"


def test_recovery_is_counted_from_when_the_proxies_were_seen_to_have_let_go() -> None:
    text = EXPERIMENT.replace("[{errors: {atMost: 50%}}]", "[{recovery: {within: 4s}}]").replace("200/s", "20/s")
    setting = Setting(text=text)
    seen: list[float] = []

    def have(there: bool) -> Collection[str]:
        if there:
            return {"a", "b"}
        seen.append(asyncio.get_running_loop().time())
        return {"a"} if seen[-1] - seen[0] < 6.0 else set()

    setting.plane = _Proxies(setting, have)

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.PASSED, None)
    assert outcome.checks[0].measured == 0.0


def test_who_watches_may_leave_and_the_run_goes_on() -> None:
    class Closed(Setting):
        """This is a reader of progress that has gone."""

        def step(self, name: str, note: str = "") -> None:
            super().step(name, note)
            raise BrokenPipeError

    setting = Closed()

    assert setting.run().verdict is Verdict.FAILED


def _settling(setting: Setting) -> None:
    """Let one proxy never learn of the twins, so that the run waits for it with the fault in place."""
    setting.plane = _Proxies(setting, lambda there: {"a"} if there else set())


def test_a_lever_that_is_pulled_while_proxies_are_waited_for_ends_the_run() -> None:
    setting = Setting()
    _settling(setting)

    async def pull(_: Callable[[RunAborted], None]) -> None:
        await setting.armed.wait()
        setting.cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": LEVER, "namespace": "shop"}})

    outcome = setting.run(during=pull)

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "lever")
    assert setting.routes == ["all"]


def test_a_guard_that_dies_while_proxies_are_waited_for_ends_the_run() -> None:
    setting = Setting()
    _settling(setting)

    async def die(_: Callable[[RunAborted], None]) -> None:
        await setting.armed.wait()
        setting.guard_died.set()

    outcome = setting.run(during=die)

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "bound")
    assert "guard" in outcome.explanation


def test_twins_that_others_take_out_while_proxies_are_waited_for_end_the_run() -> None:
    setting = Setting()
    _settling(setting)

    async def remove(_: Callable[[RunAborted], None]) -> None:
        await setting.armed.wait()
        setting.cluster.edit(REF, lambda thing: thing["spec"].update(http=OBJECT["spec"]["http"]))

    outcome = setting.run(during=remove)

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "fault_removed")


def test_a_watcher_that_breaks_ends_the_run() -> None:
    setting = Setting(text=SLOW)
    plain = setting.mesh.read

    class Odd(SimMesh):
        """This is a mesh whose client breaks over the lever, once the fault is live."""

        async def read(self, ref: Ref) -> Object:
            if setting.live.is_set() and ref.name == LEVER:
                raise ValueError("Invalid header value")
            return await plain(ref)

    setting.mesh = Odd(setting.cluster)

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "bound")
    assert "nobody watched the lever" in outcome.explanation
    assert setting.routes == ["all"]


def test_the_run_ends_before_its_twins_are_too_old_by_the_api_servers_clock() -> None:
    setting = Setting(text=SLOW)
    plain = setting.mesh.server_time_s

    class Later(SimMesh):
        """This is a mesh whose clock says, once the fault is live, that the default ttl of 10 min is nearly over."""

        async def server_time_s(self) -> float:
            return await plain() + (596.0 if setting.live.is_set() else 0.0)

    setting.mesh = Later(setting.cluster)

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason, outcome.explanation) == (Verdict.ABORTED, "bound", "restore.ttl is over")
    assert setting.routes == ["all"]


def test_an_object_that_came_up_meanwhile_and_is_not_locked_is_not_patched() -> None:
    setting = Setting(warmup="0.2s")
    newer = Ref(Kind.VIRTUAL_SERVICE, "shop", "another")

    def replace_it(request: httpx.Request) -> httpx.Response:
        if newer not in setting.cluster.objects:
            setting.cluster.remove(REF)
            setting.cluster.add({**OBJECT, "metadata": {"name": "another", "namespace": "shop"}})
        return httpx.Response(200)

    setting.answer = replace_it

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:target_moved")
    assert "another" in outcome.explanation
    assert outcome.restore is None
    assert len(setting.cluster.history[newer]) == 1


@pytest.mark.parametrize("failure", [Failure.POOL, Failure.RESOLVE])
def test_what_this_machine_cannot_send_is_no_sick_service(failure: Failure) -> None:
    setting = Setting(warmup="0.5s")
    asked = 0

    def now_and_then(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked % 2:
            raise TrafficError(failure, "no")
        return httpx.Response(200)

    setting.answer = now_and_then

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:traffic_not_sent")
    assert failure.words in outcome.explanation
    assert outcome.restore is None


@pytest.mark.parametrize("warmup", ["0s", "0.01s", "0.5s"])
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Failure.CONNECT, ["nobody accepts the connection", "via: {connect: HOST:PORT}"]),
        (Failure.RESOLVE, ["no address", "via: {connect: HOST:PORT}"]),
        (Failure.TLS, ["TLS", "traffic.via.tls"]),
        (Failure.PROTOCOL, ["another protocol", "traffic.via.protocol"]),
        (502, ["knows no such host", "traffic.requests"]),
        (404, ["knows no such host", "traffic.requests"]),
    ],
)
def test_traffic_that_reaches_no_service_is_the_experiments_affair(
    warmup: str, failure: Failure | int, words: list[str]
) -> None:
    setting = Setting(warmup=warmup)

    def nobody(_: httpx.Request) -> httpx.Response:
        if isinstance(failure, Failure):
            raise TrafficError(failure, "no")
        return httpx.Response(failure, headers={"server": "istio-envoy", "content-length": "0"})

    setting.answer = nobody

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:traffic_unreachable")
    assert outcome.next is not None
    assert (outcome.next.who, outcome.next.retryable) == ("experiment", False)
    assert all(word in f"{outcome.explanation} {outcome.next.do}" for word in words), outcome
    assert "http://stock/" in outcome.explanation
    assert len(setting.cluster.history[REF]) == 1, "nothing was touched"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(502, headers={"server": "envoy", "x-envoy-upstream-service-time": "3"}),
        httpx.Response(503, headers={"server": "envoy"}),
    ],
)
def test_a_sick_service_is_not_touched_though_there_is_no_warm_up(answer: httpx.Response) -> None:
    setting = Setting(warmup="0s")
    setting.answer = lambda _: answer

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "control_unhealthy")
    assert len(setting.cluster.history[REF]) == 1


def test_control_requests_that_are_still_out_at_the_end_are_judged_with_the_others() -> None:
    setting = Setting(
        text=EXPERIMENT.replace("errors: {atMost: 50%}", "arm: control, latency: {p50: 1s}").replace(
            "duration: 2s", "duration: 2s, timeout: 100s"
        )
    )
    let_go = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if setting.live.is_set() and FLAGS_HEADER not in setting._faulted(request).headers and len(setting.routes) > 1:
            await let_go.wait()
        return setting._faulted(request)

    setting.answer = answer  # type: ignore[assignment]  # httpx takes either

    async def let_go_when_clean(_: Callable[[RunAborted], None]) -> None:
        await setting.clean.wait()
        asyncio.get_running_loop().call_later(5.0, let_go.set)

    outcome = setting.run(during=let_go_when_clean)

    control = outcome.arms["control"]
    assert control.sent
    assert control.judged == control.sent


def test_somebody_who_asks_for_the_end_when_the_fault_is_out_already_is_heeded() -> None:
    setting = Setting()
    lease = lease_ref(REF)

    def ask(ref: Ref, object_: Object | None) -> None:
        if ref == REF and object_ is not None and len(setting.cluster.history[REF]) == 3:
            setting.cluster.edit(lease, lambda thing: thing["metadata"]["annotations"].update({STOP_ANNOTATION: "ada"}))

    setting.cluster.on_write.append(ask)

    outcome = setting.run()

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "operator")
    assert "ada" in outcome.explanation
    assert outcome.restore is not None
    assert outcome.restore.api == "verified"


def test_a_stop_that_comes_while_proxies_let_go_is_heeded_and_nothing_is_said_twice() -> None:
    setting = Setting()
    seen: list[float] = []

    def have(there: bool) -> Collection[str]:
        if there:
            return {"a", "b"}
        seen.append(asyncio.get_running_loop().time())
        return {"a"} if seen[-1] - seen[0] < 3.0 else set()

    setting.plane = _Proxies(setting, have)

    async def stop_when_clean(stop: Callable[[RunAborted], None]) -> None:
        await setting.clean.wait()
        stop(RunAborted("operator", "enough"))

    outcome = setting.run(during=stop_when_clean)

    assert (outcome.verdict, outcome.reason) == (Verdict.ABORTED, "operator")
    assert outcome.restore is not None
    assert outcome.restore.data_plane == "verified"
    assert sorted(event["reason"] for event in _events(setting)) == ["LuffFaultInjected", "LuffFaultRemoved"]
    assert [entry.phase for entry in outcome.timeline].count("clean") == 1


def test_a_delegate_in_another_namespace_is_planned_anew_locked_and_put_back() -> None:
    setting = Setting()
    leaf_ref = Ref(Kind.VIRTUAL_SERVICE, "team", "leaf")
    leaf = {
        **OBJECT,
        "metadata": {**OBJECT["metadata"], "name": "leaf", "namespace": "team"},
        "spec": {"http": [{"name": "all", "route": [{"destination": {"host": "stock.shop.svc.cluster.local"}}]}]},
    }
    setting.cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    setting.cluster.add(leaf)
    setting.cluster.edit(
        REF, lambda thing: thing["spec"].update(http=[{"delegate": {"name": "leaf", "namespace": "team"}}])
    )

    outcome = setting.run()

    assert outcome.reason != "plan_refused:target_moved"
    assert outcome.restore is not None, outcome.explanation
    assert outcome.restore.object == "identical"
    history = setting.cluster.history[leaf_ref]
    assert len(history) >= 3, "the leaf had twins, and has none any more"
    assert [route["name"] for route in setting.cluster.objects[leaf_ref]["spec"]["http"]] == ["all"]


@dataclass
class Watched:
    """This is `LabLog` on an empty folder, with the wall clock set while it waits, and the youngest request that it gave up on."""

    log: LabLog
    clock: SimClock
    jump_s: float
    evidence: Evidence
    youngest_s: float = math.inf
    late_s: float = 0.0

    async def begin(self) -> None:
        self.clock.skew_s += self.jump_s

    async def poll(self, samples: Samples) -> None:
        before = self.evidence.settled_through
        await self.log.poll(samples)
        age_s = self.clock.monotonic_s() - self.log.zero_s
        for number in range(before, self.evidence.settled_through):
            if samples[number].arm is Arm.FAULT:
                self.youngest_s = min(self.youngest_s, age_s - samples.due_ns[number] / 1e9)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_date_that_is_set_while_a_run_waits_for_proof_neither_hurries_nor_holds_it_up(
    tmp_path: Path, jump_s: float
) -> None:
    setting, wait_s = Setting(), 0.5
    made: list[Watched] = []

    def source(plan: Plan, zero_s: float) -> Source:
        log = LabLog(
            tmp_path,
            plan.stamp.scope,
            plan.injection.names,
            wait_s,
            zero_s,
            setting.clock.monotonic_s,
            plan.proof.destinations,
        )
        made.append(Watched(log, setting.clock, jump_s, log.evidence))
        return made[-1]

    setting.sources = source

    outcome = setting.run()

    [watched] = made
    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "fault_not_observed")
    assert wait_s + LINE_LATE_S <= watched.youngest_s < math.inf, (
        "nothing is given up before its time, and all is in the end"
    )
