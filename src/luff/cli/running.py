"""
Running experiments one after another, with signals that restore.

The first Ctrl-C or SIGTERM stops the run and puts the routes back; a second
one does not skip that.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from luff.cli.mesh_choice import Chosen, chosen_mesh
from luff.cli.options import MeshOptions, Voice
from luff.cli.progress import progress_for
from luff.cli.restore import who_am_i
from luff.cli.world import context_from_environment, open_world
from luff.errors import RunAborted, StoreError
from luff.model import Experiment, Verdict
from luff.outcome import Outcome
from luff.parse import Documents
from luff.run import Options, World, run_experiment
from luff.samples import Samples
from luff.store import Store

__all__ = ["Done", "RunSettings", "run_all"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """This is what the command line said about how to run."""

    mesh: MeshOptions
    store: str | None
    seed: int | None
    fail_fast: bool
    voice: Voice


@dataclass(slots=True)
class Done:
    """This is what came of it. *signal* is the one that ended it, or ``None``."""

    outcomes: list[Outcome] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)
    signal: int | None = None


def run_all(
    experiments: Sequence[Experiment], documents: Documents, settings: RunSettings, *, each: Callable[[Outcome], None]
) -> Done:
    """Run *experiments* in order and return every outcome; *each* is called as they come."""
    with chosen_mesh(settings.mesh, documents) as chosen, Store.open(settings.store) as store:
        return _event_loop(_run_all(experiments, chosen, store, settings, each=each))


def _event_loop(work: Coroutine[Any, Any, Done]) -> Done:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _run_all(
    experiments: Sequence[Experiment],
    chosen: Chosen,
    store: Store,
    settings: RunSettings,
    *,
    each: Callable[[Outcome], None],
) -> Done:
    done = Done()
    stops: list[Callable[[RunAborted], None]] = []

    def on_signal(number: int) -> None:
        if done.signal is not None:
            click.echo("luff: restoring; this is not skipped", err=True)
        done.signal = done.signal or number
        for stop in stops:
            stop(RunAborted("operator", f"stopped by {signal.Signals(number).name}"))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    async with open_world(chosen, store) as world:
        for experiment in experiments:
            if done.signal is not None:
                break
            outcome = await _run_one(experiment, world, store, settings, done, stops)
            each(outcome)
            if settings.fail_fast and outcome.verdict is not Verdict.PASSED:
                break
    return done


async def _run_one(
    experiment: Experiment,
    world: World,
    store: Store,
    settings: RunSettings,
    done: Done,
    stops: list[Callable[[RunAborted], None]],
) -> Outcome:
    options = Options(
        actor=who_am_i(), namespace=settings.mesh.namespace, seed=settings.seed, context=context_from_environment()
    )
    stops.clear()
    with progress_for(settings.voice, experiment.name) as progress:
        outcome, samples = await run_experiment(
            experiment, world, options=options, progress=progress, on_start=stops.append
        )
    stops.clear()
    done.outcomes.append(outcome)
    done.samples[outcome.run] = samples
    try:
        await asyncio.to_thread(store.record, outcome, samples)
    except StoreError as error:
        click.echo(f"luff: the outcome is not in history: {error}", err=True)
    return outcome
