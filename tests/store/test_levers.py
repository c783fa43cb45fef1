"""The store's half of the lever: who, when and why, for one mesh; nothing is armed under it."""

from __future__ import annotations

import asyncio

import pytest

from luff.errors import RunAborted
from luff.lifecycle import Intent
from luff.outcome import MeshIdentity
from luff.store import Store

PROD = MeshIdentity(kind="cluster", name="prod")
INTENT = Intent("ab" * 8, "shop", "stock", "u", "7", ("luff.1.x",), 1795687800, "a" * 64)


def test_who_when_and_why_are_kept_until_the_lever_is_let_go(store: Store) -> None:
    levers = store.levers(PROD)

    pulled = asyncio.run(levers.pull("shop", who="ada", why="checkout is down"))
    kept = asyncio.run(levers.pulled())
    was_on = asyncio.run(levers.let_go("shop"))

    assert kept == [pulled]
    assert (pulled.who, pulled.why, pulled.namespace) == ("ada", "checkout is down", "shop")
    assert was_on
    assert asyncio.run(levers.pulled()) == []
    assert not asyncio.run(levers.let_go("shop"))


def test_pulling_it_again_says_the_newest_reason(store: Store) -> None:
    levers = store.levers(PROD)

    for why in ("a", "b"):
        asyncio.run(levers.pull(None, who="ada", why=why))

    assert [(each.namespace, each.why) for each in asyncio.run(levers.pulled())] == [(None, "b")]


@pytest.mark.parametrize(("namespace", "flag"), [(None, "off`"), ("shop", "off -n shop`")], ids=["all", "its own"])
def test_nothing_is_armed_under_a_lever(store: Store, namespace: str | None, flag: str) -> None:
    asyncio.run(store.levers(PROD).pull(namespace, who="ada", why="checkout is down"))

    with pytest.raises(RunAborted, match=r"in the store: ada pulled it at .*Z, since checkout is down") as caught:
        asyncio.run(store.journal(PROD).arm(INTENT))

    assert caught.value.reason == "lever"
    assert flag in str(caught.value.next_step)
    assert store.open_intents() == []


def test_a_lever_stops_nothing_elsewhere(store: Store) -> None:
    asyncio.run(store.levers(PROD).pull("books", who="ada", why="x"))
    asyncio.run(store.levers(MeshIdentity(kind="lab", name="prod")).pull(None, who="ada", why="x"))
    asyncio.run(store.levers(replace_name(PROD, "staging")).pull(None, who="ada", why="x"))

    asyncio.run(store.journal(PROD).arm(INTENT))

    assert [each.intent for each in store.open_intents()] == [INTENT]


def test_a_mesh_is_known_by_its_uid_and_by_its_name_only_without_one(store: Store) -> None:
    here = MeshIdentity(kind="cluster", name="in-cluster", uid="u-1")
    asyncio.run(store.levers(here).pull(None, who="ada", why="x"))

    by_uid = asyncio.run(store.levers(MeshIdentity(kind="cluster", name="prod", uid="u-1")).pulled())
    other = asyncio.run(store.levers(MeshIdentity(kind="cluster", name="in-cluster", uid="u-2")).pulled())
    by_name = asyncio.run(store.levers(MeshIdentity(kind="cluster", name="in-cluster")).pulled())

    assert (len(by_uid), len(other), len(by_name)) == (1, 0, 1)


def replace_name(mesh: MeshIdentity, name: str) -> MeshIdentity:
    return MeshIdentity(kind=mesh.kind, name=name, uid=mesh.uid)
