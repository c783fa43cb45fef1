"""The journal: on the disk before the act, only by the ways there are, and found again after a crash."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from luff.errors import OutcomeRefused, StoreError
from luff.lifecycle import NEXT, Intent, Phase
from luff.outcome import MeshIdentity
from luff.store import Beginning, Store
from tests.factories import LAB, errored, passed, run_id, stranded

CLUSTER = MeshIdentity(kind="cluster", name="prod", uid="u-1")


def intent(run: str) -> Intent:
    return Intent(
        run=run,
        namespace="bookinfo",
        virtual_service="ratings",
        uid="0f",
        resource_version="48211",
        names=(f"luff.1.{run}.1795687200.1795687800.0", f"luff.1.{run}.1795687200.1795687800.1"),
        expires_s=1795687800,
        hash_before="a" * 64,
    )


def walk(store: Store, run: str, *phases: Phase, mesh: MeshIdentity | None = LAB) -> None:
    """Arm *run* and lead it through *phases*."""

    async def go() -> None:
        journal = store.journal(mesh)
        await journal.arm(intent(run))
        for phase in phases:
            await journal.mark(run, phase)

    asyncio.run(go())


def test_an_armed_run_is_found_with_all_that_restoring_needs(store: Store) -> None:
    walk(store, "ab" * 8, mesh=CLUSTER)

    (found,) = store.open_intents()

    assert found.intent == intent("ab" * 8)
    assert (found.phase, found.mesh) == (Phase.ARMED, CLUSTER)
    assert abs((datetime.now(UTC) - found.updated_at).total_seconds()) < 60


def test_every_way_of_the_table_may_be_gone_and_no_other(store: Store) -> None:
    ways_to = {
        Phase.ARMED: (),
        Phase.LIVE: (Phase.LIVE,),
        Phase.WITHDRAWING: (Phase.WITHDRAWING,),
        Phase.CLEAN: (Phase.WITHDRAWING, Phase.CLEAN),
        Phase.STRANDED: (Phase.WITHDRAWING, Phase.STRANDED),
    }
    for before, after in itertools.product(ways_to, Phase):
        run = run_id((before, after))
        walk(store, run, *ways_to[before])

        if after is before or after in NEXT[before]:
            asyncio.run(store.journal().mark(run, after))
            expected = after
        else:
            with pytest.raises(ValueError, match="no way from"):
                asyncio.run(store.journal().mark(run, after))
            expected = before

        assert store.timeline(run)[-1].phase is expected


def test_a_run_that_is_clean_cannot_be_armed_again(store: Store) -> None:
    walk(store, "ab" * 8, Phase.WITHDRAWING, Phase.CLEAN)

    with pytest.raises(ValueError, match="no way from clean to armed"):
        asyncio.run(store.journal().arm(intent("ab" * 8)))


def test_planning_anew_replaces_what_was_armed(store: Store) -> None:
    walk(store, "ab" * 8)
    again = replace(intent("ab" * 8), resource_version="48999", names=("luff.1.x",))

    asyncio.run(store.journal(LAB).arm(again))

    assert [found.intent for found in store.open_intents()] == [again]
    assert [change.phase for change in store.timeline("ab" * 8)] == [Phase.ARMED, Phase.ARMED]


def test_only_runs_that_may_still_be_injected_are_open(store: Store) -> None:
    walk(store, run_id("armed"))
    walk(store, run_id("live"), Phase.LIVE)
    walk(store, run_id("withdrawing"), Phase.LIVE, Phase.WITHDRAWING)
    walk(store, run_id("stranded"), Phase.WITHDRAWING, Phase.STRANDED)
    walk(store, run_id("clean"), Phase.WITHDRAWING, Phase.CLEAN)

    found = store.open_intents()

    assert [each.phase for each in found] == [Phase.ARMED, Phase.LIVE, Phase.WITHDRAWING, Phase.STRANDED]


def test_the_intents_of_another_mesh_are_not_ours_to_restore(store: Store) -> None:
    walk(store, run_id("lab"), mesh=LAB)
    walk(store, run_id("prod"), mesh=CLUSTER)
    walk(store, run_id("namesake"), mesh=MeshIdentity(kind="cluster", name="prod", uid="u-2"))

    found = store.open_intents(CLUSTER)

    assert [each.intent.run for each in found] == [run_id("prod")]


def test_the_timeline_keeps_every_change_with_its_note(store: Store) -> None:
    walk(store, "ab" * 8, Phase.LIVE, Phase.WITHDRAWING)
    asyncio.run(store.journal().mark("ab" * 8, Phase.STRANDED, note="the API server is away: ☃ \x00"))

    changes = store.timeline("ab" * 8)

    assert [change.phase for change in changes] == [Phase.ARMED, Phase.LIVE, Phase.WITHDRAWING, Phase.STRANDED]
    assert changes[-1].note == "the API server is away: ☃ \ufffd"
    assert all(change.at.tzinfo is UTC for change in changes)


def test_marking_the_same_phase_twice_is_one_change(store: Store) -> None:
    walk(store, "ab" * 8, Phase.LIVE, Phase.LIVE)

    assert len(store.timeline("ab" * 8)) == 2


def test_a_run_that_was_begun_follows_its_journal(store: Store) -> None:
    run = "ab" * 8
    store.begin(Beginning(run, "slow-ratings", "ada", LAB, datetime(2026, 11, 23, 10, tzinfo=UTC)))
    before = store.run(run)

    walk(store, run, Phase.LIVE)

    assert (before.phase, before.verdict) == (Phase.PLANNED, None)
    assert (store.run(run).phase, store.run(run).verdict) == (Phase.LIVE, None)


def test_an_outcome_closes_an_intent_whose_last_mark_was_lost(store: Store) -> None:
    outcome = passed()
    walk(store, outcome.run, Phase.LIVE)

    store.record(outcome)

    assert store.open_intents() == []
    assert [change.phase for change in store.timeline(outcome.run)][-2:] == [Phase.WITHDRAWING, Phase.CLEAN]


def test_a_stranded_run_stays_open_until_somebody_restores_it(store: Store) -> None:
    outcome = stranded()
    walk(store, outcome.run, Phase.LIVE)
    store.record(outcome)
    still_open = [(each.intent.run, each.phase) for each in store.open_intents()]

    asyncio.run(store.journal().mark(outcome.run, Phase.WITHDRAWING))
    asyncio.run(store.journal().mark(outcome.run, Phase.CLEAN, note="luff restore"))

    assert still_open == [(outcome.run, Phase.STRANDED)]
    assert store.open_intents() == []
    assert store.run(outcome.run).phase is Phase.CLEAN
    assert store.outcome(outcome.run) == outcome


def test_what_was_proven_clean_meanwhile_stays_clean(store: Store) -> None:
    outcome = stranded()
    walk(store, outcome.run, Phase.WITHDRAWING, Phase.CLEAN)

    store.record(outcome)

    assert store.run(outcome.run).phase is Phase.CLEAN


@pytest.mark.parametrize("phases", [[Phase.LIVE], [Phase.WITHDRAWING, Phase.STRANDED]], ids=str)
def test_an_outcome_from_elsewhere_leaves_the_journal_of_a_run_alone(store: Store, phases: list[Phase]) -> None:
    walk(store, passed().run, *phases)
    before = store.open_intents()

    with pytest.raises(OutcomeRefused, match="underway"):
        store.bring([passed()])

    assert store.open_intents() == before != []


def test_a_run_that_has_not_armed_yet_takes_no_outcome_from_elsewhere(store: Store) -> None:
    began = datetime(2026, 11, 23, tzinfo=UTC)
    store.begin(Beginning(run=passed().run, experiment="slow", actor="ada", mesh=LAB, started_at=began))

    with pytest.raises(OutcomeRefused, match="underway"):
        store.bring([passed()])


def test_the_outcome_of_a_run_that_was_restored_can_be_brought_later(store: Store) -> None:
    walk(store, stranded().run, Phase.WITHDRAWING, Phase.CLEAN)

    store.bring([stranded()])

    assert store.outcome(stranded().run) == stranded()
    assert store.run(stranded().run).phase is Phase.CLEAN


def test_a_run_that_never_armed_needs_no_journal(store: Store) -> None:
    store.record(errored())

    assert store.run(errored().run).phase is Phase.CLEAN
    assert store.open_intents() == []


def test_an_intent_survives_the_death_of_its_process(url: str, tmp_path: Path) -> None:
    Store.open(url).close()
    script = (
        "import asyncio, os, signal\n"
        "from luff.store import Store\n"
        "from luff.lifecycle import Intent\n"
        f"journal = Store.open({url!r}).journal()\n"
        f"asyncio.run(journal.arm({intent('ab' * 8)!r}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (died.returncode, died.stderr) == (-signal.SIGKILL, "")
    with Store.open(url) as store:
        assert [each.intent for each in store.open_intents()] == [intent("ab" * 8)]


def test_two_processes_may_write_at_once(url: str) -> None:
    Store.open(url).close()
    script = (
        "import asyncio, sys\n"
        "from luff.store import Store\n"
        "from luff.lifecycle import Phase\n"
        "from tests.store.test_journal import intent\n"
        "from tests.factories import run_id\n"
        "async def go(journal):\n"
        "    for number in range(25):\n"
        "        run = run_id((sys.argv[1], number))\n"
        "        await journal.arm(intent(run))\n"
        "        for phase in (Phase.LIVE, Phase.WITHDRAWING, Phase.CLEAN):\n"
        "            await journal.mark(run, phase)\n"
        f"with Store.open({url!r}) as store:\n"
        "    asyncio.run(go(store.journal()))\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    running = [
        subprocess.Popen([sys.executable, "-c", script, name], stderr=subprocess.PIPE, text=True, env=environment)
        for name in ("first", "second")
    ]
    errors = [process.communicate(timeout=90)[1] for process in running]

    assert errors == ["", ""]
    with Store.open(url) as store:
        timelines = [store.timeline(run_id((name, number))) for name in ("first", "second") for number in range(25)]
        assert store.open_intents() == []
    assert all(len(timeline) == 4 for timeline in timelines)


def test_many_tasks_of_one_process_may_mark_at_once(store: Store) -> None:
    async def go() -> None:
        journal = store.journal(LAB)

        async def one(number: int) -> None:
            await journal.arm(intent(run_id(number)))
            await journal.mark(run_id(number), Phase.WITHDRAWING)
            await journal.mark(run_id(number), Phase.CLEAN)

        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(go())

    assert all(len(store.timeline(run_id(number))) == 3 for number in range(20))


def test_a_locked_store_refuses_to_arm_and_nothing_is_armed_later(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'luff.db'}?timeout=0.05") as store:
        other = sqlite3.connect(tmp_path / "luff.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreError, match=r"is locked by another process; see who has it open with `fuser -v"):
            walk(store, "ab" * 8)
        other.execute("ROLLBACK")
        other.close()

        assert store.open_intents() == []
