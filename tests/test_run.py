"""One run against fakes that we ship: what it does when the world does not go along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from luff.errors import RunAborted
from luff.evidence.response_header import ResponseHeader
from luff.lever import LEVER
from luff.lifecycle import Phase
from luff.mesh import Kind, Ref
from luff.outcome import MeshIdentity, Outcome
from luff.parse import parse_documents
from luff.run import Options, World, run_experiment
from luff.scope import FLAGS_HEADER
from luff.testing import Cluster, MemoryJournal, NoWatcher, SimClock, SimMesh, Trouble, virtual_time
from luff.words import Object, Verdict

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
REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "stock")
OBJECT: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "stock", "namespace": "shop"},
    "spec": {"hosts": ["stock"], "http": [{"name": "all", "route": [{"destination": {"host": "stock"}}]}]},
}


class Setting:
    """This is everything around one run, made of fakes."""

    def __init__(self, *, warmup: str = "0s") -> None:
        self.cluster = Cluster()
        self.cluster.add(OBJECT)
        for name in ("shop", "luff-system"):
            self.cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.mesh = SimMesh(self.cluster)
        self.journal = MemoryJournal()
        self.steps: list[str] = []
        self.live = asyncio.Event()
        self.answer: Callable[[httpx.Request], httpx.Response] = self._faulted
        [self.experiment] = parse_documents([("e.yaml", EXPERIMENT.replace("WARMUP", warmup))]).experiments

    def _faulted(self, request: httpx.Request) -> httpx.Response:
        """Answer as the stock's proxy would: with the twin's header while it is there, for requests in scope."""
        for route in self.cluster.objects[REF]["spec"]["http"]:
            for match in route.get("match") or []:
                prefix = match["headers"].get("x-luff-run", {}).get("prefix")
                if prefix and request.headers["x-luff-run"].startswith(prefix):
                    return httpx.Response(503, headers={FLAGS_HEADER: "FI"})
        return httpx.Response(200)

    def run(
        self, *, during: Callable[[Callable[[RunAborted], None]], Awaitable[Any]] | None = None, **options: Any
    ) -> Outcome:
        """Run the experiment and return its outcome."""

        async def never() -> int:
            await asyncio.Event().wait()
            return 0

        async def story() -> Outcome:
            world = World(
                mesh=self.mesh,
                identity=MeshIdentity(kind="cluster", name="sim"),
                journal=self.journal,
                watcher=NoWatcher(),
                watcher_died=never,
                clock=SimClock(),
                transport=lambda _: httpx.MockTransport(lambda request: self.answer(request)),
                source=lambda *_: ResponseHeader(),
                plane=None,
            )
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

        with virtual_time() as play:
            found = play(story())
        assert isinstance(found, Outcome)
        return found

    def step(self, name: str, note: str = "") -> None:
        """Take note of a step, as progress."""
        self.steps.append(name)
        if name == "live":
            self.live.set()

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
    assert setting.routes == ["all"]


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


def test_a_container_without_a_reaper_is_refused() -> None:
    setting = Setting()

    outcome = setting.run(needs_reaper=True)

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:no_guard")
    assert outcome.next is not None
    assert "--accept-inert-leftover" in outcome.next.do
    assert len(setting.cluster.history[REF]) == 1


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
    setting = Setting()

    async def remove_when_live(_: Callable[[RunAborted], None]) -> None:
        await setting.live.wait()
        setting.cluster.edit(REF, lambda thing: thing["spec"].update(http=OBJECT["spec"]["http"]))

    outcome = setting.run(during=remove_when_live)

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "fault_removed")
    assert setting.routes == ["all"]
    assert setting.journal.phases[outcome.run][-1] is Phase.CLEAN


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
