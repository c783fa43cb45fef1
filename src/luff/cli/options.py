"""Options that several commands share, each with its environment variable."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

__all__ = [
    "Duration",
    "MeshOptions",
    "MustAct",
    "Voice",
    "by_hand",
    "mesh_options",
    "option",
    "policy_option",
    "store_option",
    "voice_options",
    "with_common_flags",
]

F = TypeVar("F", bound=Callable[..., Any])


def option(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """Return a click option that can also be given as ``LUFF_<FLAG>``, without the command's name."""
    long = next(d for d in declarations if d.startswith("--")).split("/")[0]
    attributes.setdefault("envvar", "LUFF_" + long.removeprefix("--").replace("-", "_").upper())
    attributes.setdefault("show_envvar", False)
    return click.option(*declarations, **attributes)


def by_hand(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """Return a click option that no environment variable gives: for consent, and for what would keep an emergency command from acting."""
    return click.option(*declarations, cls=_ByHand, **attributes)


class _ByHand(click.Option):
    """This is an option without an environment variable."""


class MustAct(click.Command):
    """
    This is a command for an emergency: a variable that another command can take and this one cannot keeps it from nothing.

    Such a variable is ignored, and that is said. ``LUFF_LAB`` is not: nobody may guess which mesh is meant.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse *args* as click does, without what the environment says and no option here can be."""
        while True:
            try:
                return super().parse_args(ctx, list(args))
            except click.BadParameter as error:
                variable = _variable_behind(error, ctx)
                if variable is None:
                    raise
                del os.environ[variable]
                with contextlib.suppress(OSError, ValueError):
                    click.echo(f"luff: {variable} is ignored here: {error.message}", err=True)


def _variable_behind(error: click.BadParameter, ctx: click.Context) -> str | None:
    """Return the environment variable that *error* is about; ``None`` where the command line is at fault, or the mesh in doubt."""
    flag = error.param
    if not isinstance(flag, click.Option) or flag.name == "lab":
        return None
    if ctx.get_parameter_source(flag.name) is not ParameterSource.ENVIRONMENT:
        return None
    names = [flag.envvar] if isinstance(flag.envvar, str) else [*(flag.envvar or ())]
    return next((name for name in names if os.environ.get(name)), None)


class Duration(click.ParamType[float]):
    """
    This is a duration such as ``90s`` on a command line, more than nothing; the command gets seconds.

    *between* are the shortest and the longest that may be written.
    """

    name = "duration"

    def __init__(self, *, between: tuple[str, str] | None = None) -> None:
        self._between = between

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return *value* in seconds."""
        from luff.units import parse_duration_s  # the help needs none of it

        try:
            seconds = parse_duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._between is not None:
            least_s, most_s = map(parse_duration_s, self._between)
            if not least_s <= seconds <= most_s:
                self.fail(f"{value} is not between {self._between[0]} and {self._between[1]}", param, ctx)
        elif seconds <= 0:
            self.fail(f"{value} is no time at all: write at least 1s", param, ctx)
        return seconds


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """
    This is which mesh was asked for, and the file of the Policy that bounds what may be done there.

    *lab_dir* is the folder of the lab that is meant, ``None`` for the one that is found.
    """

    lab: bool
    context: str | None
    kubeconfig: str | None
    namespace: str | None
    yes: bool = False
    policy: Path | None = None
    lab_dir: Path | None = None


def policy_option(command: F) -> F:
    """Add ``--policy``."""
    return option(
        "--policy",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The Policy that bounds what may be done, and may name the cluster.",
    )(command)


def mesh_options(command: F) -> F:
    """Add the options that say which mesh is meant; the command gets them as *mesh*."""

    @option("--lab", is_flag=True, help="Use the local mesh, and start one if none is running.")
    @option("--context", metavar="NAME", help="The kubeconfig's context that names the cluster.")
    @option("--kubeconfig", envvar=["LUFF_KUBECONFIG", "KUBECONFIG"], metavar="FILE", help="The kubeconfig to use.")
    @option("-n", "--namespace", metavar="NAME", help="The namespace to work in.")
    @policy_option
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        lab: bool,
        context: str | None,
        kubeconfig: str | None,
        namespace: str | None,
        policy: Path | None,
        **rest: Any,
    ) -> Any:
        yes = rest.get("yes", False)
        chosen = MeshOptions(lab, context, kubeconfig, namespace, yes=yes, policy=policy)
        return command(*args, mesh=chosen, **rest)

    return wrapped  # type: ignore[return-value]  # functools.wraps keeps the signature that click reads


def store_option(command: F) -> F:
    """Add ``--store``."""
    return option(
        "--store", metavar="URL", help="The database (SQLAlchemy URL); by default a SQLite file of your own."
    )(command)


@dataclass(frozen=True, slots=True)
class Voice:
    """This is how much is said, and with what colour. *level* is -1 quiet, 0 usual, 1 and more verbose."""

    level: int
    color: bool | None


def voice_options(command: F) -> F:
    """Add ``-q``, ``-v`` and ``--no-color``; the command gets them as *voice*."""

    @click.option("-q", "--quiet", is_flag=True, help="Say only what was asked for.")
    @click.option("-v", "--verbose", count=True, help="Say more.")
    @click.option("--no-color", is_flag=True, help="No colours; so says any NO_COLOR in the environment.")
    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, verbose: int, no_color: bool, **rest: Any) -> Any:
        return command(*args, voice=Voice(-1 if quiet else verbose, False if no_color else None), **rest)

    return wrapped  # type: ignore[return-value]  # functools.wraps keeps the signature that click reads


def with_common_flags(command: click.Command) -> click.Command:
    """
    Return *command*, which takes ``-q``, ``-v`` and ``--no-color``, and ``--store`` where it takes ``--context``.

    Where a command has no use for one of these it takes it all the same, so
    that a script may give the same ones to all. Every flag that has no
    environment variable yet gets its own, but for those given `by_hand`. What
    says which mesh is meant (``--context``, ``--kubeconfig``, ``-n``,
    ``--policy``) and ``-o`` are flags of the commands for which they mean something.
    """
    if isinstance(command, click.Group):
        for each in command.commands.values():
            with_common_flags(each)
        return command
    mine = [each for each in command.params if isinstance(each, click.Option)]
    taken = {name for each in mine for name in each.opts}
    common = [*_UNUSED, *([_UNUSED_STORE] if "--context" in taken else [])]
    command.params += [each for each in common if not taken & set(each.opts)]
    for flag in command.params:
        if isinstance(flag, click.Option) and flag.envvar is None and not isinstance(flag, _ByHand):
            long = next(name for name in reversed(flag.opts) if name.startswith("--"))
            flag.envvar = "LUFF_" + long.removeprefix("--").replace("-", "_").upper()
    return command


def _without_colour(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        # What this command prints asks no `Voice`; whatever colours it asks the environment.
        os.environ["NO_COLOR"] = "1"


_UNUSED = (
    click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, help="Say only what was asked for."),
    click.Option(["-v", "--verbose"], count=True, expose_value=False, help="Say more."),
    click.Option(
        ["--no-color"],
        is_flag=True,
        expose_value=False,
        callback=_without_colour,
        help="No colours.",
    ),
)
_UNUSED_STORE = click.Option(
    ["--store"], metavar="URL", expose_value=False, envvar="LUFF_STORE", help="Not used: this needs no database."
)
