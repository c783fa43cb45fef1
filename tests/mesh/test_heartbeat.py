"""No injection where nobody could clean up: what a reaper shows, what it does not, and what is said without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from luff.errors import NoGuard
from luff.heartbeat import COVERS, HEARTBEAT, HEARTBEAT_S, check_heartbeat, heartbeat_lost
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.lever import SYSTEM_NAMESPACE
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import KubernetesMesh
from luff.reaper import PROVE_EVERY_S, PROVE_ON_MOST, Reaper, Sweep
from luff.testing import Cluster, SimClock, SimMesh, Trouble, virtual_time
from luff.words import Object

LEASE = Ref(Kind.LEASE, SYSTEM_NAMESPACE, HEARTBEAT)


def virtual_service(namespace: str, name: str = "stock") -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hosts": [name], "http": [{"name": "all", "route": [{"destination": {"host": name}}]}]},
    }


@pytest.fixture
def cluster() -> Cluster:
    """Return an API server with routes in two namespaces."""
    made = Cluster()
    for namespace in ("books", "shop"):
        made.add(virtual_service(namespace))
    return made


@pytest.fixture
def play() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Return what runs an awaitable in virtual time."""
    with virtual_time() as run:
        yield run


async def sweep(cluster: Cluster, namespaces: Sequence[str] | None = None, **mesh: Any) -> Sweep:
    return await Reaper(SimMesh(cluster, **mesh), SimClock(), namespaces=namespaces).sweep()


def test_a_reaper_that_has_looked_everywhere_covers_every_namespace_with_routes(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    async def story() -> None:
        await sweep(cluster)
        for namespace in ("books", "shop"):
            await check_heartbeat(SimMesh(cluster), namespace)

    play(story())


@pytest.mark.parametrize(
    ("trips", "left"), [("read shop", ["shop"]), ("list", ["books", "shop"]), ("time", ["books", "shop"])]
)
def test_a_look_that_trips_us_up_is_said_and_keeps_nobody_from_the_others(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any], trips: str, left: list[str]
) -> None:
    twin = {"name": "luff.1.0123456789abcdef.1.2.0", "match": [], "route": []}
    for namespace in ("books", "shop"):
        cluster.change(
            Ref(Kind.VIRTUAL_SERVICE, namespace, "stock"), [{"op": "add", "path": "/spec/http/0", "value": twin}]
        )

    def trouble(verb: str, ref: Ref) -> Trouble:
        # What a machine without memory says to whoever wants a thread for a call.
        if f"{verb} {ref.namespace}".startswith(trips):
            raise RuntimeError("can't start new thread")
        return Trouble.NONE

    async def story() -> Sweep:
        return await sweep(cluster, trouble=trouble)

    found = play(story())

    assert any("can't start new thread" in error for error in found.errors)
    objects = {ref.namespace: each for ref, each in cluster.objects.items() if ref.kind is Kind.VIRTUAL_SERVICE}
    assert [namespace for namespace, each in objects.items() if len(each["spec"]["http"]) > 1] == left


def test_a_reaper_of_another_namespace_is_none_here(cluster: Cluster, play: Callable[[Awaitable[Any]], Any]) -> None:
    async def story() -> None:
        await sweep(cluster, ["books"])
        with pytest.raises(NoGuard, match=r"could remove a route in shop \(it has in: books\)"):
            await check_heartbeat(SimMesh(cluster), "shop")

    play(story())


def test_two_reapers_of_two_namespaces_do_not_speak_against_one_another(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    async def story() -> None:
        await asyncio.gather(sweep(cluster, ["books"]), sweep(cluster, ["shop"]))
        for namespace in ("books", "shop"):
            await check_heartbeat(SimMesh(cluster), namespace)

    play(story())


def test_a_reaper_that_may_look_and_not_patch_covers_nothing(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    def trouble(verb: str, ref: Ref) -> Trouble:
        return Trouble.DENIED if verb == "dry-run" and ref.namespace == "shop" else Trouble.NONE

    async def story() -> None:
        swept = await sweep(cluster, trouble=trouble)
        assert any("nothing can be removed in shop" in error for error in swept.errors)
        await check_heartbeat(SimMesh(cluster), "books")
        with pytest.raises(NoGuard, match="in shop"):
            await check_heartbeat(SimMesh(cluster), "shop")

    play(story())


@pytest.mark.parametrize(
    ("verb", "trouble", "sees"),
    [
        ("dry-run", Trouble.DENIED, True),
        ("dry-run", Trouble.ERROR, True),
        ("replace", Trouble.DENIED, True),
        ("list", Trouble.ERROR, False),
        ("time", Trouble.ERROR, False),
    ],
)
def test_a_reaper_sees_everything_when_the_lists_are_answered_whatever_it_may_do(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any], verb: str, trouble: Trouble, *, sees: bool
) -> None:
    async def story() -> Sweep:
        await sweep(cluster)
        return await sweep(cluster, trouble=lambda asked, _: trouble if asked == verb else Trouble.NONE)

    found = play(story())

    assert found.errors
    assert found.saw_everything is sees


def test_one_of_several_lists_without_an_answer_is_not_everything(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    def trouble(verb: str, ref: Ref) -> Trouble:
        return Trouble.ERROR if (verb, ref.namespace) == ("list", "books") else Trouble.NONE

    async def story() -> Sweep:
        return await sweep(cluster, ["books", "shop"], trouble=trouble)

    assert not play(story()).saw_everything


def _refusing(names: set[str], answer: Trouble, tried: list[str]) -> Callable[[str, Ref], Trouble]:
    def trouble(verb: str, ref: Ref) -> Trouble:
        if verb != "dry-run" or ref.namespace != "shop":
            return Trouble.NONE
        tried.append(ref.name)
        return answer if ref.name in names else Trouble.NONE

    return trouble


def test_one_object_that_is_locked_does_not_uncover_its_namespace(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    for name in ("a", "b"):
        cluster.add(virtual_service("shop", name))
    tried: list[str] = []

    async def story() -> Sweep:
        found = await sweep(cluster, trouble=_refusing({"a", "b"}, Trouble.REJECTED, tried))
        await check_heartbeat(SimMesh(cluster), "shop")
        return found

    assert play(story()).errors == []
    assert tried == ["a", "b", "stock"]


@pytest.mark.parametrize(("answer", "asked"), [(Trouble.REJECTED, PROVE_ON_MOST), (Trouble.ERROR, 1)])
def test_a_namespace_where_nothing_may_be_changed_is_asked_a_few_times_and_uncovered(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any], answer: Trouble, asked: int
) -> None:
    names = {"a", "b", "c", "d", "stock"}
    for name in names - {"stock"}:
        cluster.add(virtual_service("shop", name))
    tried: list[str] = []

    async def story() -> Sweep:
        found = await sweep(cluster, trouble=_refusing(names, answer, tried))
        with pytest.raises(NoGuard, match="in shop"):
            await check_heartbeat(SimMesh(cluster), "shop")
        return found

    assert [error.partition(":")[0] for error in play(story()).errors] == ["nothing can be removed in shop"]
    assert len(tried) == asked


def test_what_a_reaper_has_shown_holds_for_a_while_and_is_shown_again(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    tried: list[Ref] = []

    def trouble(verb: str, ref: Ref) -> Trouble:
        if verb == "dry-run":
            tried.append(ref)
        return Trouble.NONE

    async def story() -> None:
        reaper = Reaper(SimMesh(cluster, trouble=trouble), SimClock(), namespaces=["shop"])
        for wait_s in (0, PROVE_EVERY_S / 3, PROVE_EVERY_S):
            await asyncio.sleep(wait_s)
            await reaper.sweep()

    play(story())

    assert len(tried) == 2


def test_a_reaper_that_is_gone_is_noticed_by_who_relies_on_it(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any]
) -> None:
    async def story() -> NoGuard:
        await sweep(cluster)
        return await heartbeat_lost(SimMesh(cluster), "shop", clock=SimClock())

    assert "s old" in play(story()).message


def test_one_that_does_not_stay_is_nobody_to_rely_on(cluster: Cluster, play: Callable[[Awaitable[Any]], Any]) -> None:
    async def story() -> None:
        await Reaper(SimMesh(cluster), SimClock(), beats=False).sweep()
        with pytest.raises(NoGuard, match="no reaper has ever been at work"):
            await check_heartbeat(SimMesh(cluster), "shop")

    play(story())


def test_one_look_that_fails_is_no_loss(cluster: Cluster, play: Callable[[Awaitable[Any]], Any]) -> None:
    looks = 0

    def trouble(verb: str, ref: Ref) -> Trouble:
        nonlocal looks
        looks += ref == LEASE
        return Trouble.BUSY if ref == LEASE and looks == 1 else Trouble.NONE

    async def story() -> None:
        reaper = Reaper(SimMesh(cluster), SimClock())
        waiting = asyncio.create_task(heartbeat_lost(SimMesh(cluster, trouble=trouble), "shop", clock=SimClock()))
        for _ in range(20):
            await reaper.sweep()
            await asyncio.sleep(5)
        assert not waiting.done()
        waiting.cancel()

    play(story())

    assert looks > 2


@pytest.mark.parametrize("covers", [None, "", "nonsense", "[]", '{"shop": "now"}', '{"shop": NaN}', '{"shop": true}'])
def test_a_heartbeat_that_does_not_say_what_it_covers_covers_nothing(
    cluster: Cluster, play: Callable[[Awaitable[Any]], Any], covers: str | None
) -> None:
    async def story() -> None:
        await sweep(cluster)
        annotations = {} if covers is None else {COVERS: covers}
        cluster.edit(LEASE, lambda lease: lease["metadata"].update(annotations=annotations))
        with pytest.raises(NoGuard, match="no namespace"):
            await check_heartbeat(SimMesh(cluster), "shop")

    play(story())


def test_an_old_heartbeat_will_not_do(cluster: Cluster, play: Callable[[Awaitable[Any]], Any]) -> None:
    async def story() -> NoGuard:
        await sweep(cluster)
        await asyncio.sleep(HEARTBEAT_S + 60)
        with pytest.raises(NoGuard, match=r"[89][0-9] s old") as caught:
            await check_heartbeat(SimMesh(cluster), "shop")
        return caught.value

    assert "--accept-inert-leftover" in str(play(story()).next_step)


def test_a_real_client_may_write_and_read_it(server: ApiServer, adapter: KubernetesMesh) -> None:
    server.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})
    server.store.put(virtual_service("shop", "heartbeat"))

    async def story() -> Object:
        reaper = Reaper(adapter, SimClock(), namespaces=["shop"])
        for _ in range(2):
            swept = await reaper.sweep()
            assert swept.errors == []
        await check_heartbeat(adapter, "shop")
        return await adapter.read(LEASE)

    lease = asyncio.run(story())

    assert list(json.loads(lease["metadata"]["annotations"][COVERS])) == ["shop"]


def test_a_heartbeat_that_cannot_be_read_will_not_do(server: ApiServer, adapter: KubernetesMesh) -> None:
    server.misbehaviour.add([Rule("status", plural="leases", code=403)])

    with pytest.raises(NoGuard, match="cannot be read"):
        asyncio.run(check_heartbeat(adapter, "shop"))
