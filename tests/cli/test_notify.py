"""Whom `run` and `gate` tell, and that it changes nothing of what they find."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from luff.cli.notify import channels_of
from luff.cli.running import Crew, Done
from luff.clock import SystemClock
from luff.errors import UsageError
from luff.evidence.response_header import ResponseHeader
from luff.notify import Channel, Channels, Shape
from luff.outcome import MeshIdentity
from luff.parse import parse_documents
from luff.run import World
from luff.store import Store
from luff.testing import Cluster, MemoryJournal, NoWatcher, SimMesh
from luff.words import Verdict
from tests.cli.test_running import EXPERIMENT, SETTINGS
from tests.notify.conftest import Receiver, receiving


async def _never() -> int:
    await asyncio.Event().wait()
    return 0


async def ran(store: Store, receiver: Receiver) -> Done:
    """Run one experiment whose object is not there, as a command does, until everybody is told."""
    world = World(
        mesh=SimMesh(Cluster()),
        identity=MeshIdentity(kind="cluster", name="sim"),
        journal=MemoryJournal(),
        watcher=NoWatcher(),
        watcher_died=_never,
        clock=SystemClock(),
        transport=lambda _: httpx.MockTransport(lambda _: httpx.Response(200)),
        source=lambda *_: ResponseHeader(),
        plane=None,
    )
    channel = Channel("ops", Shape.JSON, receiver.url, "a secret of enough length")
    done = Done()
    crew = Crew(world, store, replace(SETTINGS, channels=Channels({"ops": channel})), done, lambda _: None)
    await crew.work(parse_documents([("e.yaml", EXPERIMENT.replace("NAME", "late"))]).experiments)
    assert crew.tidings is not None
    await crew.tidings.close(within_s=30)
    return done


def test_a_command_tells_news_once_and_says_who_could_not_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def whole(store: Store) -> tuple[list[Done], Receiver]:
        async with receiving([404]) as receiver:
            return [await ran(store, receiver) for _ in range(2)], receiver

    with Store.open(f"sqlite:///{tmp_path / 'luff.db'}") as store:
        runs, receiver = asyncio.run(whole(store))

    (got,) = receiver.got
    assert json.loads(got.body)["run"] == runs[0].outcomes[0].run
    assert [each.verdict for done in runs for each in done.outcomes] == [Verdict.ERROR] * 2
    assert "ops (127.0.0.1) was not told: it answered 404" in capsys.readouterr().err


def test_who_writes_experiments_does_not_say_who_is_told(tmp_path: Path) -> None:
    experiments = tmp_path / "experiments"
    (experiments / "deep").mkdir(parents=True)
    text = "kind: Notify\nspec: {channels: {a: {shape: slack, url: 'https://hooks.example/T'}}}"
    for path in (experiments / "deep" / "notify.yaml", tmp_path / "notify.yaml"):
        path.write_text(text)

    assert list(channels_of(tmp_path / "notify.yaml", [experiments]).by_name) == ["a"]
    with pytest.raises(UsageError, match="among the experiments"):
        channels_of(experiments / "deep" / "notify.yaml", [experiments])
    one = experiments / "deep" / "one.yaml"
    one.touch()
    with pytest.raises(UsageError, match="among the experiments"):
        channels_of(experiments / "deep" / "notify.yaml", [one])
    assert channels_of(tmp_path / "notify.yaml", [one]).by_name
    (tmp_path / "link.yaml").symlink_to(experiments / "deep" / "notify.yaml")
    with pytest.raises(UsageError, match="among the experiments"):
        channels_of(tmp_path / "link.yaml", [experiments])
