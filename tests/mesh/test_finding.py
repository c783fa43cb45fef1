"""Finding what is injected, and stopping it: what counts as held, when nothing is left, and what to run where something is."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from luff.cli.options import Voice
from luff.cli.stop import LATE_S, stop_everything, stop_runs
from luff.errors import LuffError, RestoreNotVerified
from luff.lock import OBJECT_ANNOTATION, RUN_ANNOTATION, lease_ref
from luff.mesh import Kind, Ref
from luff.mesh.answers import error_of
from luff.restore import find_injected, find_patiently, moment
from luff.testing import EPOCH_S, Cluster, SimClock, SimMesh, Trouble, virtual_time
from luff.words import Object

RUN = "0123456789abcdef"
REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "stock")
QUIET = Voice(level=-1, color=False)
Play = Callable[[Awaitable[Any]], Any]


@pytest.fixture
def play() -> Iterator[Play]:
    """Return what runs an awaitable in virtual time."""
    with virtual_time() as run:
        yield run


def _twin(*, life_s: int = 600) -> Object:
    return {"name": f"luff.1.{RUN}.{int(EPOCH_S)}.{int(EPOCH_S) + life_s}.0", "match": [], "route": []}


@pytest.fixture
def cluster() -> Cluster:
    """Return an API server with an object and nothing of ours."""
    made = Cluster()
    made.add({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "stock", "namespace": "shop"},
        "spec": {"hosts": ["stock"], "http": [{"name": "all", "route": [{"destination": {"host": "stock"}}]}]},
    })  # fmt: skip
    return made


def _put_in(cluster: Cluster, **more: Any) -> None:
    cluster.change(REF, [{"op": "add", "path": "/spec/http/0", "value": _twin(**more)}])


@pytest.mark.parametrize(
    ("trouble", "life_s", "state"),
    [
        (Trouble.NONE, 600, "orphaned"),
        (Trouble.DENIED, 600, "unknown"),
        (Trouble.BUSY, 600, "unknown"),
        (Trouble.ERROR, 600, "unknown"),
        (Trouble.LOST_BEFORE, 600, "unknown"),
        (Trouble.DENIED, -1, "expired"),
        (Trouble.ERROR, -1, "expired"),
    ],
)
def test_a_lease_that_cannot_be_read_is_not_nobody_until_the_time_of_the_routes_is_over(
    cluster: Cluster, play: Play, trouble: Trouble, life_s: int, state: str
) -> None:
    _put_in(cluster, life_s=life_s)
    mesh = SimMesh(cluster, trouble=lambda _, ref: trouble if ref.kind is Kind.LEASE else Trouble.NONE)

    [found], _ = play(find_injected(mesh, None))

    assert found.state == state
    assert (found.unread is None) == (trouble is Trouble.NONE)


@pytest.mark.parametrize(
    ("trouble", "with_leases", "state"),
    [
        (Trouble.BUSY, True, "orphaned"),
        (Trouble.BUSY, False, "unknown"),
        (Trouble.DENIED, True, "unknown"),
    ],
)
def test_a_lease_that_cannot_be_read_for_now_is_asked_for_again_where_it_matters(
    cluster: Cluster, play: Play, trouble: Trouble, with_leases: bool, state: str
) -> None:
    _put_in(cluster, life_s=600)
    asked = itertools.count()

    def troubled(_verb: str, ref: Ref) -> Trouble:
        return trouble if ref.kind is Kind.LEASE and next(asked) < 1 else Trouble.NONE

    mesh, clock = SimMesh(cluster, trouble=troubled), SimClock()
    [found], _ = play(find_patiently(mesh, None, clock=clock, asked=["restore"], with_leases=with_leases))

    assert found.state == state


@pytest.mark.parametrize(("unix_s", "year"), [(0, 1970), (int(EPOCH_S), 2027), (999_999_999_999, None), (None, None)])
def test_a_name_may_hold_a_number_that_is_no_time(unix_s: int | None, year: int | None) -> None:
    found = moment(unix_s)

    assert (found and found.year) == year


@pytest.mark.parametrize(
    ("trouble", "namespaces", "said"),
    [
        (
            Trouble.DENIED,
            ["shop"],
            "run `luff restore 0123 -n shop --context simulated` with credentials that may list VirtualServices",
        ),
        (
            Trouble.DENIED,
            None,
            "run `luff restore 0123 --context simulated` with credentials that may list VirtualServices, or with -n NS",
        ),
        (
            Trouble.ERROR,
            None,
            "run `luff restore 0123 --context simulated --kubeconfig /home/ada/config` once the API server answers",
        ),
    ],
)
def test_who_cannot_look_is_told_to_run_what_was_asked_again(
    cluster: Cluster, play: Play, trouble: Trouble, namespaces: list[str] | None, said: str
) -> None:
    mesh = SimMesh(cluster, trouble=lambda verb, _: trouble if verb == "list" else Trouble.NONE)
    mesh.kubeconfig = "/home/ada/config"

    with pytest.raises(RestoreNotVerified) as caught:
        play(find_patiently(mesh, namespaces, clock=SimClock(), asked=["restore", "0123"]))

    assert caught.value.next_step == said


def test_where_there_is_no_istio_nobody_waits_for_it(cluster: Cluster) -> None:
    class NoIstio(SimMesh):
        async def list(self, kind: Kind, namespace: str | None) -> list[Object]:
            raise error_of(Ref(kind, "", "*"), 404, "404 page not found", None)

    async def story() -> float:
        clock = SimClock()
        with pytest.raises(RestoreNotVerified, match="does not know what a VirtualService is") as caught:
            await find_patiently(NoIstio(cluster), None, clock=clock, asked=["restore"])
        assert "Istio 1.22" in str(caught.value.next_step)
        return clock.monotonic_s()

    with virtual_time() as run:
        assert run(story()) < 1.0


def test_everything_is_stopped_only_when_nothing_came_after_a_look_that_found_nothing(
    cluster: Cluster, play: Play
) -> None:
    async def story() -> None:
        # A run that asked the lever just before it was pulled, of whose Lease this role may not know.
        asyncio.get_running_loop().call_later(LATE_S / 2, _put_in, cluster)
        await stop_everything(SimMesh(cluster), None, clock=SimClock(), voice=QUIET)

    play(story())

    assert [route["name"] for route in cluster.objects[REF]["spec"]["http"]] == ["all"]


@pytest.mark.parametrize(
    ("kubeconfig", "said"), [(None, ""), ("/home/ada/my clusters", " --kubeconfig '/home/ada/my clusters'")]
)
def test_what_could_not_be_stopped_names_the_exact_command(
    cluster: Cluster, play: Play, kubeconfig: str | None, said: str
) -> None:
    _put_in(cluster)
    mesh = SimMesh(cluster, trouble=lambda verb, _: Trouble.DENIED if verb == "patch" else Trouble.NONE)
    mesh.kubeconfig = kubeconfig

    with pytest.raises(RestoreNotVerified) as caught:
        play(stop_everything(mesh, None, clock=SimClock(), voice=QUIET))

    assert caught.value.next_step == f"run `luff restore {RUN} -n shop --context {mesh.name}{said}`"


def _hold(cluster: Cluster, *, renewed_s: float = EPOCH_S) -> None:
    cluster.add({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": lease_ref(REF).name,
            "namespace": "shop",
            "annotations": {RUN_ANNOTATION: RUN, OBJECT_ANNOTATION: "stock"},
        },
        "spec": {"holderIdentity": "ada", "leaseDurationSeconds": 15, "renewTime": datetime.fromtimestamp(renewed_s, UTC).isoformat()},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Trouble.NONE, f"run {RUN} on VirtualService shop/stock was asked to end, and ada still holds it"),
        (Trouble.DENIED, f"run {RUN} on VirtualService shop/stock, held by ada, could not be asked to end"),
    ],
)
def test_a_run_that_goes_on_with_nothing_in_the_mesh_yet_is_not_said_to_have_ended(
    cluster: Cluster, play: Play, trouble: Trouble, said: str
) -> None:
    _hold(cluster, renewed_s=EPOCH_S + 3600)
    mesh = SimMesh(cluster, trouble=lambda verb, _: trouble if verb == "replace" else Trouble.NONE)

    done = play(stop_runs(mesh, RUN, None, clock=SimClock(), voice=QUIET))

    assert done.runs == {RUN}
    with pytest.raises(LuffError, match=re.escape(said)) as caught:
        done.check_ended(mesh, None)
    assert caught.value.exit_code == 5


def test_a_run_whose_routes_were_taken_out_is_over_though_its_lease_is_held(cluster: Cluster, play: Play) -> None:
    _put_in(cluster)
    _hold(cluster, renewed_s=EPOCH_S + 3600)
    mesh = SimMesh(cluster)

    play(stop_runs(mesh, RUN, None, clock=SimClock(), voice=QUIET)).check_ended(mesh, None)

    assert [route["name"] for route in cluster.objects[REF]["spec"]["http"]] == ["all"]


def test_a_reader_who_has_left_keeps_nobody_from_stopping(
    cluster: Cluster, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_in(cluster)
    _hold(cluster)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        play(stop_everything(SimMesh(cluster), None, clock=SimClock(), voice=Voice(level=0, color=False)))

    assert [route["name"] for route in cluster.objects[REF]["spec"]["http"]] == ["all"]
