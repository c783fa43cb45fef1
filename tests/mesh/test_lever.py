"""The lever in both halves: it is pulled where it can be, and says exactly where it could not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from luff.clock import SystemClock
from luff.errors import RunAborted, StoreError
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import MOST_TIMES, Rule
from luff.lever import (
    LEVER,
    SYSTEM_NAMESPACE,
    LetGo,
    Pulled,
    Record,
    check_lever,
    check_record,
    in_both,
    let_go,
    levers,
    pull,
    recorded,
)
from luff.mesh import Kind, Mesh, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.outcome import MeshIdentity
from luff.store import Store
from luff.testing import MemoryLevers

PROD = MeshIdentity(kind="cluster", name="prod")


@pytest.fixture
def bare() -> Iterator[ApiServer]:
    """Start an API server that has two namespaces and none of luff's."""
    server = ApiServer(token="t0ken")
    server.start()
    for name in ("books", "shop"):
        server.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield server
    server.stop()


@pytest.fixture
def mesh(bare: ApiServer, tmp_path: Path) -> Iterator[KubernetesMesh]:
    """Return the real client on it."""
    bare.write_kubeconfig(tmp_path / "kubeconfig")
    connected = KubernetesMesh.connect(Connection(str(tmp_path / "kubeconfig"), "luff-lab", kind="lab"))
    yield connected
    connected.close()


@pytest.fixture
def record(database: str) -> Iterator[Record]:
    """Return the store's half."""
    with Store.open(database) as store:
        yield store.levers(PROD)


def forbid(server: ApiServer, plural: str, namespace: str | None = None, verb: str = "write") -> None:
    """Let the API server answer 403 for as long as it is asked."""
    server.misbehaviour.add([Rule("status", verb=verb, plural=plural, namespace=namespace, code=403, times=MOST_TIMES)])


def pulled_for_all(mesh: Mesh, record: Record | None) -> Pulled:
    """Pull the lever for all namespaces."""
    return asyncio.run(pull(mesh, record, None, who="ada", why="an incident", clock=SystemClock()))


def refused(mesh: Mesh, namespace: str) -> RunAborted:
    """Return what a new run in *namespace* ends with."""
    with pytest.raises(RunAborted) as caught:
        asyncio.run(check_lever(mesh, namespace))
    return caught.value


def test_the_namespace_of_the_lever_is_made_where_it_is_missing(mesh: KubernetesMesh, record: Record) -> None:
    done = pulled_for_all(mesh, record)

    assert done == Pulled(None, (SYSTEM_NAMESPACE,))
    assert done.holds
    assert "everywhere: ada pulled it" in refused(mesh, "shop").message
    assert [each.namespace for each in asyncio.run(record.pulled())] == [None]


def test_a_namespace_of_a_user_is_not_made(mesh: KubernetesMesh, record: Record) -> None:
    done = asyncio.run(pull(mesh, record, "nowhere", who="ada", why="x", clock=SystemClock()))

    assert not done.holds
    assert done.open_ == ("nowhere",)
    assert "nowhere" not in {each["metadata"]["name"] for each in asyncio.run(mesh.list(Kind.NAMESPACE, None))}


@pytest.mark.parametrize("there", [False, True], ids=["its namespace is missing", "its namespace is there"])
def test_where_there_can_be_none_for_all_every_namespace_gets_its_own(
    bare: ApiServer, mesh: KubernetesMesh, record: Record, there: bool
) -> None:
    if there:
        bare.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})
        forbid(bare, "configmaps", SYSTEM_NAMESPACE)
    else:
        forbid(bare, "namespaces")

    done = pulled_for_all(mesh, record)

    assert {"books", "shop"} <= set(done.namespaces)
    assert done.open_ == ((SYSTEM_NAMESPACE,) if there else ())
    assert done.cluster_error is not None
    assert "in shop: ada pulled it" in refused(mesh, "shop").message
    assert refused(mesh, "shop").next_step == "ask them, then `luff lever off`", "off without -n takes these with it"


def test_what_could_not_be_stopped_is_named(bare: ApiServer, mesh: KubernetesMesh, record: Record) -> None:
    forbid(bare, "namespaces")
    forbid(bare, "configmaps", "books")

    done = pulled_for_all(mesh, record)

    assert (done.open_, done.holds) == (("books",), False)
    assert "shop" in done.namespaces


def test_who_may_not_list_namespaces_stops_those_with_routes(bare: ApiServer, mesh: KubernetesMesh) -> None:
    forbid(bare, "namespaces", verb="*")
    bare.store.put(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "stock", "namespace": "shop"},
            "spec": {"hosts": ["stock"], "http": [{"route": [{"destination": {"host": "stock"}}]}]},
        }
    )

    assert pulled_for_all(mesh, None).namespaces == ("shop",)


def test_off_takes_both_halves_and_what_stands_in(bare: ApiServer, mesh: KubernetesMesh, record: Record) -> None:
    forbid(bare, "namespaces")
    pulled_for_all(mesh, record)

    done = asyncio.run(let_go(mesh, record, None))

    assert done == LetGo(was_on=True)
    assert asyncio.run(levers(mesh, ["books", "shop", SYSTEM_NAMESPACE])) == []
    assert asyncio.run(record.pulled()) == []
    assert asyncio.run(let_go(mesh, record, None)) == LetGo(was_on=False)


def test_off_for_all_leaves_a_lever_that_was_pulled_for_one_namespace(mesh: KubernetesMesh, record: Record) -> None:
    asyncio.run(pull(mesh, record, "shop", who="ada", why="x", clock=SystemClock()))

    asyncio.run(let_go(mesh, record, None))

    assert [each.namespace for each in asyncio.run(levers(mesh, ["shop"]))] == ["shop"]
    assert [each.namespace for each in asyncio.run(record.pulled())] == ["shop"]


def test_off_says_which_half_is_left(bare: ApiServer, mesh: KubernetesMesh, record: Record) -> None:
    pulled_for_all(mesh, record)
    forbid(bare, "configmaps", SYSTEM_NAMESPACE, verb="delete")

    done = asyncio.run(let_go(mesh, MemoryLevers(broken=True), None))

    assert [where for where, _ in done.cluster_errors] == [SYSTEM_NAMESPACE]
    assert done.store_error is not None


def test_a_store_that_is_away_keeps_nobody_from_pulling(mesh: KubernetesMesh) -> None:
    done = pulled_for_all(mesh, MemoryLevers(broken=True))

    assert done.holds
    assert done.store_error is not None
    assert "everywhere" in refused(mesh, "shop").message


def test_a_cluster_that_says_no_keeps_nobody_from_writing_the_store(
    bare: ApiServer, mesh: KubernetesMesh, record: Record
) -> None:
    forbid(bare, "*")

    done = pulled_for_all(mesh, record)

    assert not done.holds
    assert [(each.namespace, each.why) for each in asyncio.run(record.pulled())] == [(None, "an incident")]


@pytest.mark.parametrize(("pulled", "stops"), [(None, True), ("shop", True), ("books", False)])
def test_the_stores_half_stops_runs_by_itself(record: Record, pulled: str | None, stops: bool) -> None:
    asyncio.run(record.pull(pulled, who="ada", why="an incident"))

    if stops:
        with pytest.raises(RunAborted, match="an incident"):
            asyncio.run(check_record(record, "shop"))
    else:
        asyncio.run(check_record(record, "shop"))


def test_a_stores_half_that_cannot_be_read_is_not_a_yes() -> None:
    with pytest.raises(StoreError):
        asyncio.run(check_record(MemoryLevers(broken=True), "shop"))


def test_each_lever_is_shown_once_with_its_halves(mesh: KubernetesMesh, record: Record) -> None:
    asyncio.run(pull(mesh, record, "shop", who="ada", why="a", clock=SystemClock()))
    asyncio.run(pull(mesh, None, "books", who="ada", why="b", clock=SystemClock()))
    asyncio.run(record.pull(None, who="ada", why="c"))

    shown = in_both(asyncio.run(levers(mesh, ["books", "shop", SYSTEM_NAMESPACE])), asyncio.run(recorded(record)))

    halves = {each.namespace: (each.cluster, each.store) for each in shown}
    assert halves == {"shop": (True, True), "books": (True, False), SYSTEM_NAMESPACE: (False, True)}
    assert datetime.fromisoformat(shown[0].when).tzinfo == UTC


def test_a_lever_that_a_hand_has_made_is_on(bare: ApiServer, mesh: KubernetesMesh) -> None:
    bare.store.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": LEVER, "namespace": "shop"}})

    assert "somebody pulled it" in refused(mesh, "shop").message
    assert asyncio.run(mesh.read(Ref(Kind.CONFIG_MAP, "shop", LEVER)))
