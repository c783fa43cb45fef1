"""What several servers ask of one database at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from luff.errors import UsageError
from luff.outcome import MeshIdentity
from luff.store import Store
from luff.store.access import Actor
from luff.store.diary import Diary

T = TypeVar("T")
ROUNDS = 20
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PROD = MeshIdentity(kind="cluster", name="prod")


def at_once(url: str, act: Callable[[Store, str, int], T]) -> list[T]:
    """Let four stores on the database at *url* do the same in each of `ROUNDS`, and return what all of them got."""
    ready = threading.Barrier(4)
    Store.open(url).close()

    def do(who: str) -> list[T]:
        found = []
        with Store.open(url) as store:
            for number in range(ROUNDS):
                ready.wait(timeout=20)
                found.append(act(store, who, number))
        return found

    with ThreadPoolExecutor(4) as pool:
        return [each for found in pool.map(do, "abcd") for each in found]


def test_the_same_key_at_once_is_one_request(url: str) -> None:
    asked = at_once(
        url, lambda store, _, number: store.access.request_run("slow", actor="ci", idempotency_key=f"k{number}")
    )

    assert len({request.id for request, _ in asked}) == ROUNDS
    assert [new for _, new in asked].count(True) == ROUNDS


def test_of_those_who_pause_a_game_day_at_once_one_does(url: str) -> None:
    def pause(store: Store, who: str, number: int) -> bool:
        try:
            Diary.of(store).pause(f"day-{number}", "black friday", actor=Actor(who), now=NOON)
        except UsageError:
            return False
        return True

    assert at_once(url, pause).count(True) == ROUNDS


def test_a_lever_that_several_pull_at_once_is_on(url: str) -> None:
    pulled = at_once(
        url,
        lambda store, who, number: asyncio.run(store.levers(PROD).pull(f"shop-{number}", who=who, why="an incident")),
    )

    with Store.open(url) as store:
        kept = asyncio.run(store.levers(PROD).pulled())
    assert len(pulled) == 4 * ROUNDS
    assert len(kept) == ROUNDS
