"""`luff lever`: the global stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from luff.cli import tell
from luff.cli.options import MeshOptions, MustAct, Voice, mesh_options, option, store_option, voice_options
from luff.cli.restore import who_am_i
from luff.errors import LuffError, MeshError, StoreError, UsageError

if TYPE_CHECKING:
    from luff.lever import LetGo, LeverPulled, Pulled
    from luff.lifecycle import StoredLever
    from luff.mesh import Mesh
    from luff.outcome import MeshIdentity
    from luff.store import Store

__all__ = ["lever"]

_output = option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer."
)


@dataclass(frozen=True, slots=True)
class _Record:
    """
    This is the store's half, opened anew whenever it is asked.

    A database that is away must keep nobody waiting who pulls the other half.
    """

    url: str | None
    mesh: MeshIdentity

    async def pull(self, namespace: str | None, *, who: str, why: str) -> StoredLever:
        with await self._opened() as store:
            return await store.levers(self.mesh).pull(namespace, who=who, why=why)

    async def let_go(self, namespace: str | None) -> bool:
        with await self._opened() as store:
            return await store.levers(self.mesh).let_go(namespace)

    async def pulled(self) -> Sequence[StoredLever]:
        with await self._opened() as store:
            return await store.levers(self.mesh).pulled()

    async def _opened(self) -> Store:
        from luff.store import Store  # SQLAlchemy costs a third of a second

        return await asyncio.to_thread(Store.open, self.url)


@dataclass(frozen=True, slots=True)
class _Hand:
    """This is who has a hand on the lever: where it is, and how the answer is given."""

    api: Mesh
    record: _Record
    namespace: str | None
    output: str
    voice: Voice

    @property
    def scope(self) -> str:
        return "everywhere" if self.namespace is None else f"in {self.namespace}"

    def again(self, *words: str) -> str:
        """Return the exact command ``luff lever WORDS`` for what was asked about."""
        from luff.mesh import command_on

        return command_on(self.api, "lever", *words, namespace=self.namespace)

    def say(self, text: str) -> None:
        """Say *text* on stdout; beside JSON on stderr."""
        tell(text, err=self.output == "json")


@dataclass(frozen=True, slots=True)
class _Asked:
    """This is what every one of these commands is told."""

    mesh: MeshOptions
    store: str | None
    output: str
    voice: Voice


@click.group()
def lever() -> None:
    """The global stop: end every run, restore everything, refuse new runs until it is off again."""


@lever.command(cls=MustAct)
@option("--why", metavar="TEXT", help="The reason, for everybody whose run is refused.")
@_output
@mesh_options
@store_option
@voice_options
def on(why: str | None, output: str, store: str | None, mesh: MeshOptions, voice: Voice) -> int:
    """
    Stop every run, restore everything, and refuse new runs until `luff lever off`.

    With -n for that namespace, without it everywhere. It asks nothing: who
    pulls it is in a hurry. It is put into the cluster and into the store; one
    of the two that is away is no reason not to pull the other.
    """
    reason = (why or "").strip()
    if not reason:
        raise UsageError("a lever needs a reason", next_step="add --why 'what happened'")
    from luff.cli.signals import to_the_end
    from luff.lever import PULL_WITHIN_S
    from luff.withdraw import PATIENCE_S

    patience = {"patience_s": PULL_WITHIN_S, "restoring_s": PULL_WITHIN_S + PATIENCE_S}
    return _with_mesh(_Asked(mesh, store, output, voice), lambda hand: to_the_end(_on(hand, reason)), **patience)


@lever.command(cls=MustAct)
@_output
@mesh_options
@store_option
@voice_options
def off(output: str, store: str | None, mesh: MeshOptions, voice: Voice) -> int:
    """Let runs be started again. Nothing is started by it. Exits 5 when a half of it could not be put off."""
    return _with_mesh(_Asked(mesh, store, output, voice), _off)


@lever.command(cls=MustAct)
@_output
@mesh_options
@store_option
@voice_options
def status(output: str, store: str | None, mesh: MeshOptions, voice: Voice) -> int:
    """Show who pulled which lever, when and why. Exits 0 when all are off, 1 when one is on, 5 when it cannot tell."""
    return _with_mesh(_Asked(mesh, store, output, voice), _status)


def _with_mesh(asked: _Asked, work: Callable[[_Hand], Awaitable[int]], **patience: float) -> int:
    """Do *work* with a hand on the lever; *patience* is what a silent server is told with, by default that of one call."""
    from luff.cli.mesh_choice import ambient_mesh
    from luff.cli.silence import tell_silence
    from luff.cli.world import identity_of
    from luff.mesh.kubernetes import KubernetesMesh, Limits  # the client costs half a second

    chosen = ambient_mesh(asked.mesh)
    told = tell_silence(chosen.connection, **{"patience_s": Limits().answer_s, **patience})
    api = KubernetesMesh.connect(chosen.connection, on_silence=told)
    hand = _Hand(api, _Record(asked.store, identity_of(chosen, api)), asked.mesh.namespace, asked.output, asked.voice)

    async def done() -> int:
        return await work(hand)

    try:
        return asyncio.run(done())
    finally:
        api.close()


async def _on(hand: _Hand, why: str) -> int:
    from luff.cli.stop import stop_everything
    from luff.clock import SystemClock
    from luff.lever import pull

    clock = SystemClock()
    done = await pull(hand.api, hand.record, hand.namespace, who=who_am_i(), why=why, clock=clock)
    for line in _what_is_stopped(hand, done):
        hand.say(line)
    restored = False
    try:
        where = None if hand.namespace is None else [hand.namespace]
        await stop_everything(hand.api, where, clock=clock, voice=hand.voice)
        restored = True
    finally:
        if hand.output == "json":
            tell(json.dumps(_pulled_as_json(done, restored=restored), indent=2))
    if not done.holds:
        raise _not_set(hand, done)
    hand.say("every run is stopped, every route is back")
    return 0


def _what_is_stopped(hand: _Hand, done: Pulled) -> list[str]:
    """Say what new runs are refused by now, and what are not."""
    said = []
    if done.cluster_error is None:
        said.append(f"the lever is on {hand.scope}: new runs are refused")
    else:
        said.append(f"the lever could NOT be set {hand.scope} in the cluster: {done.cluster_error.message}")
        if done.namespaces:
            said.append(f"new runs are refused in these namespaces, by a lever in each: {', '.join(done.namespaces)}")
        if done.open_:
            said.append(f"NOT refused in: {', '.join(done.open_)}")
        if hand.namespace is None and done.namespaces:
            said.append("NOT refused in namespaces that are made from now on")
        elif hand.namespace is None:
            said.append("NOT refused in any namespace")
    if done.store_error is not None:
        said.append(f"it is not in the store: {done.store_error}")
    elif done.cluster_error is not None:
        said.append("refused wherever they are: runs that use this store, since it is on there")
    return said


def _not_set(hand: _Hand, done: Pulled) -> LuffError:
    from luff.lever import SYSTEM_NAMESPACE

    where = hand.namespace or SYSTEM_NAMESPACE
    return LuffError(
        f"every route is back, but new runs are not refused {hand.scope}: the lever in {where} is not set",
        next_step=f"with a role that may: `kubectl create namespace {where}; kubectl create configmap luff-lever -n {where}`",
    )


def _pulled_as_json(done: Pulled, *, restored: bool) -> dict[str, Any]:
    return {
        "namespace": done.namespace,
        "refused": done.holds,
        "refused_in": list(done.namespaces),
        "not_refused_in": None if done.open_ is None else list(done.open_),
        "store": done.store_error is None,
        "restored": restored,
        "errors": [error.message for error in (done.cluster_error, done.store_error) if error is not None],
    }


async def _off(hand: _Hand) -> int:
    from luff.lever import let_go

    done = await let_go(hand.api, hand.record, hand.namespace)
    if hand.output == "json":
        tell(json.dumps(_let_go_as_json(hand, done), indent=2))
    for where, error in done.cluster_errors:
        tell(f"luff: the lever in {where} could NOT be put off in the cluster: {error.message}", err=True)
    if done.store_error is not None:
        tell(f"luff: it could NOT be put off in the store: {done.store_error}", err=True)
    if not done.is_off:
        left = [f"the cluster ({where})" for where, _ in done.cluster_errors] + ["the store"] * bool(done.store_error)
        raise LuffError(
            f"the lever {hand.scope} may still be on in {' and in '.join(left)}, so runs may still be refused",
            next_step=f"see `{hand.again('status')}`, and run `{hand.again('off')}` again",
        )
    if hand.voice.level >= 0:
        tell(f"the lever {hand.scope} is off" if done.was_on else f"the lever {hand.scope} was off already", err=True)
    await _say_what_is_still_on(hand)
    return 0


def _let_go_as_json(hand: _Hand, done: LetGo) -> dict[str, Any]:
    errors = [f"{where}: {error.message}" for where, error in done.cluster_errors]
    return {
        "namespace": hand.namespace,
        "was_on": done.was_on,
        "off": done.is_off,
        "store": done.store_error is None,
        "errors": errors + ([] if done.store_error is None else [done.store_error.message]),
    }


async def _say_what_is_still_on(hand: _Hand) -> None:
    """A namespace's lever is off; the one over all may be on, and the other way round."""
    found, errors = await _both_halves(hand)
    for each in found:
        tell(f"runs are still refused: {each}; next: {each.refusal().next_step}", err=True)
    for error in errors:
        tell(f"whether another lever is on cannot be told: {error.message}", err=True)


async def _both_halves(hand: _Hand) -> tuple[list[LeverPulled], list[LuffError]]:
    """Return every lever over what was asked for, in either half, and why a half could not be read."""
    from luff.lever import SYSTEM_NAMESPACE, in_both, levers, recorded

    errors: list[LuffError] = []

    async def half(read: Awaitable[list[LeverPulled]]) -> list[LeverPulled]:
        try:
            found = await read
        except (MeshError, StoreError) as error:
            errors.append(error)
            return []
        return [
            each for each in found if hand.namespace is None or each.namespace in (hand.namespace, SYSTEM_NAMESPACE)
        ]

    namespaces = {SYSTEM_NAMESPACE} | ({hand.namespace} if hand.namespace else await _every_namespace(hand))
    in_cluster, in_store = await asyncio.gather(half(levers(hand.api, sorted(namespaces))), half(recorded(hand.record)))
    return in_both(in_cluster, in_store), errors


async def _every_namespace(hand: _Hand) -> set[str]:
    from luff.mesh import Kind

    try:
        return {str(each["metadata"]["name"]) for each in await hand.api.list(Kind.NAMESPACE, None)}
    except MeshError:
        tell(
            "namespaces cannot be listed, so of the cluster's levers only the one for all of them is shown; name one with -n",
            err=True,
        )
        return set()


async def _status(hand: _Hand) -> int:
    pulled, errors = await _both_halves(hand)
    if hand.output == "json":
        rows = [asdict(each) for each in pulled]
        tell(json.dumps({"levers": rows, "errors": [error.message for error in errors]}, indent=2))
    else:
        for each in pulled:
            tell(str(each))
    for error in errors:
        tell(f"luff: one half of the lever cannot be read: {error}", err=True)
    if not pulled and not errors and hand.output == "table" and hand.voice.level >= 0:
        tell("every lever is off", err=True)
    return 1 if pulled else 5 if errors else 0
