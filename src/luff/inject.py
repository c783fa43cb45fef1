"""
Put the twins in, and never leave without taking them out.

`injected` is the one scope in which a fault may live. Its order is fixed: the
journal commits, the watcher confirms, only then the patch is sent. However the
body ends, the withdrawal runs, shielded from cancellation, and its proof (or
the lack of one) stands in `Live`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from luff.clock import Clock
from luff.errors import Conflict, MeshDenied, NotFound, Rejected, RestoreNotVerified, StoreError
from luff.lever import check_lever
from luff.lifecycle import Intent, Journal, Phase
from luff.mesh import Kind, Mesh, Ref
from luff.routes import Injection
from luff.withdraw import PATIENCE_S, Withdrawal, restore_command, withdraw
from luff.words import Object

__all__ = ["INJECT_TRIES", "Hands", "Live", "Watcher", "injected", "mark", "shielded"]

INJECT_TRIES = 5
"""How often a plan is made anew because somebody else wrote first."""

MARK_WITHIN_S = 2.0
"""How long a run waits for its journal once its patch was sent."""

T = TypeVar("T")


class Watcher(Protocol):
    """This is somebody who cleans up when this process cannot; it is told of the names before the patch is sent."""

    async def watch(self, ref: Ref, injection: Injection) -> None:
        """Return only when the watcher has confirmed; raises `luff.errors.NoGuard` otherwise."""

    async def release(self, run: str) -> None:
        """Tell the watcher that *run* is clean. Never raises: a watcher that is gone has nothing to do either."""

    async def take_over(self, run: str) -> None:
        """Tell the watcher to take *run* out now, since we could not. Never raises, for the same reason."""


@dataclass(slots=True)
class Live:
    """
    This is one injected fault, and what became of it.

    *injection* is ``None`` until something may be sent; *object_* is the
    object with the twins, as the server answered. *withdrawal* is set when the
    scope has ended and the routes are proven back, *stranded* when that could
    not be proven, *removed_at_s* when the proof came (monotonic seconds).
    *journal_errors* are marks that could not be written; they stop nothing.
    """

    ref: Ref | None = None
    injection: Injection | None = None
    object_: Object | None = None
    maybe_applied: bool = False
    withdrawal: Withdrawal | None = None
    stranded: RestoreNotVerified | None = None
    removed_at_s: float | None = None
    journal_errors: list[StoreError] = field(default_factory=list)


def _say_nothing(_step: str, _note: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Hands:
    """This is what carries out an injection: the mesh, the journal, the watcher and time. *say* is told of each phase on the way back."""

    mesh: Mesh
    journal: Journal
    watcher: Watcher
    clock: Clock
    say: Callable[[str, str], None] = _say_nothing


@asynccontextmanager
async def injected(
    plan: Callable[[], Awaitable[Injection]], hands: Hands, *, live: Live | None = None, patience_s: float = PATIENCE_S
) -> AsyncIterator[Live]:
    """
    Insert what *plan* returns, for the life of the ``async with`` body.

    *plan* is called again, for a fresh look, when somebody else wrote first.
    *live* is filled in from the first step on, for who must know even when no
    body was reached.
    Raises what the mesh raised when nothing could be inserted (the routes are
    proven untouched by then), and `RestoreNotVerified` when the proof is
    missing after *patience_s*, unless the body raised something itself.
    """
    live = live or Live()
    try:
        await _insert(live, plan, hands)
        yield live
    finally:
        if live.injection is not None:
            await shielded(_take_out(live, hands, patience_s=patience_s))
    if live.stranded is not None:
        raise live.stranded


async def _insert(live: Live, plan: Callable[[], Awaitable[Injection]], hands: Hands) -> None:
    for tries_left in reversed(range(INJECT_TRIES)):
        injection = await plan()
        ref = Ref(Kind.VIRTUAL_SERVICE, injection.namespace, injection.virtual_service)
        # Long after the plan was made, as after a warm-up, it may have been pulled.
        await check_lever(hands.mesh, injection.namespace)
        await hands.journal.arm(_intent(injection))
        live.ref, live.injection = ref, injection
        await hands.watcher.watch(ref, injection)
        before, live.maybe_applied = live.maybe_applied, True
        try:
            # The thread that sends a patch cannot be cancelled: its end is awaited whatever happens to us.
            live.object_ = await shielded(hands.mesh.patch(ref, injection.operations))
            return
        except Conflict:
            # This one was not applied. But a request that was doubled on its way is answered for its second half only,
            # so it is looked at as if it might have been.
            if tries_left == 0:
                raise
        except (Rejected, MeshDenied, NotFound):
            # These alone prove that it was not applied; whatever else comes may be about a patch that was.
            live.maybe_applied = before
            raise


def _intent(injection: Injection) -> Intent:
    return Intent(
        run=injection.run,
        namespace=injection.namespace,
        virtual_service=injection.virtual_service,
        uid=injection.uid,
        resource_version=injection.resource_version,
        names=injection.names,
        expires_s=injection.expires_s,
        hash_before=injection.hash_before,
    )


async def _take_out(live: Live, hands: Hands, *, patience_s: float) -> None:
    injection, ref = live.injection, live.ref
    assert injection is not None
    assert ref is not None
    hands.say(Phase.WITHDRAWING, "")
    await mark(live, hands.journal, Phase.WITHDRAWING)
    try:
        live.withdrawal = await withdraw(
            hands.mesh,
            ref,
            run=injection.run,
            clock=hands.clock,
            pinned=injection.resource_version,
            sent=live.maybe_applied,
            patience_s=patience_s,
        )
    except Exception as error:  # whatever it is, nothing was proven, and that must never be taken for clean
        # First, for the routes matter more than the record of them.
        await hands.watcher.take_over(injection.run)
        await _strand(live, hands, error)
        return
    if live.object_ is not None and (lost := injection.missing_in(live.object_)):
        # Removing by name proves nothing about routes that have lost theirs.
        await _strand(live, hands, _renamed(ref, lost))
        return
    live.removed_at_s = hands.clock.monotonic_s()
    await mark(live, hands.journal, Phase.CLEAN)
    await hands.watcher.release(injection.run)


def _renamed(ref: Ref, lost: list[str]) -> RestoreNotVerified:
    return RestoreNotVerified(
        f"{ref} may still carry {', '.join(lost)} under other names: a webhook changed them when they were inserted",
        next_step=f"run `kubectl edit virtualservice {ref.name} -n {ref.namespace}` and take out every route that sets"
        " the response header x-luff-flags",
    )


async def _strand(live: Live, hands: Hands, error: Exception) -> None:
    """Take down that the routes are not proven back. The watcher is not released."""
    assert live.ref is not None
    assert live.injection is not None
    if not isinstance(error, RestoreNotVerified):
        command = restore_command(hands.mesh, live.ref, live.injection.run)
        why = f"{live.ref} may still carry {live.injection.run}: {type(error).__name__}: {error}"
        error = RestoreNotVerified(why, next_step=f"run `{command}`")
    live.stranded = error
    hands.say(Phase.STRANDED, error.message)
    await mark(live, hands.journal, Phase.STRANDED, note=error.message)


async def mark(live: Live, journal: Journal, phase: Phase, *, note: str | None = None) -> None:
    """Write *phase* down, if that can be done soon and there is such a way: the routes matter more than the record of them."""
    assert live.injection is not None
    writing = asyncio.ensure_future(journal.mark(live.injection.run, phase, note=note))
    await asyncio.wait([writing], timeout=MARK_WITHIN_S)
    if not writing.done():
        writing.cancel()
        live.journal_errors.append(StoreError(f"{phase} was not written down within {MARK_WITHIN_S:.0f} s"))
        return
    try:
        writing.result()
    except Exception as error:  # no journal holds up a restore, whatever is wrong with it
        live.journal_errors.append(
            error if isinstance(error, StoreError) else StoreError(f"{type(error).__name__}: {error}")
        )


async def shielded(work: Awaitable[T]) -> T:
    """Await *work* to its own end even when this task is cancelled; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # asked for, so that nobody complains that it never was
        raise cancelled
    return task.result()
