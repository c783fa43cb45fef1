"""`luff run`, and the flags that it shares with `luff gate`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from luff.cli.notify import notify_option
from luff.cli.options import Duration, MeshOptions, Voice, by_hand, mesh_options, option, store_option, voice_options

__all__ = ["RunFlags", "run", "run_options"]

PARALLEL_MOST = 64

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class RunFlags:
    """This is what `run` and `gate` were both told, as it was written."""

    files: tuple[Path, ...]
    mesh: MeshOptions
    store: str | None
    voice: Voice
    keyword: str | None
    labels: str | None
    fail_fast: bool
    last_failed: bool
    shard: str | None
    overrides: tuple[str, ...]
    seed: int | None
    json_file: Path | None
    junit_file: Path | None
    html_file: Path | None
    markdown_file: Path | None
    github: bool
    gitlab_dir: Path | None
    fail_on: str
    soft_fail: bool
    max_duration: float | None
    parallel: int
    wait_for: float | None
    yes: bool
    accept_inert_leftover: bool
    notify: Path | None
    output: str

    @property
    def as_json(self) -> bool:
        """Return whether stdout is for a program, and what people read goes to stderr."""
        return self.output == "json"


_FILE = click.Path(path_type=Path)


_REPORTS = (
    option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="The shape of the answer; json is what --json writes, and what people read goes to stderr.",
    ),
    option("--json", "json_file", type=_FILE, help="Write the results as JSON."),
    option("--junit", "junit_file", type=_FILE, help="Write JUnit XML."),
    option("--html", "html_file", type=_FILE, help="Write one self-contained HTML page."),
    option("--markdown", "markdown_file", type=_FILE, help="Write Markdown."),
    option("--github", is_flag=True, help="Annotate the YAML on GitHub, and add to its step summary."),
    option("--gitlab-dir", type=_FILE, help="Write GitLab's code quality report and JUnit XML into this folder."),
)


def _report_options(command: F) -> F:
    """Add the flags that say in which shapes the answer is given."""
    for add in reversed(_REPORTS):
        command = add(command)
    return command


def run_options(command: F) -> F:
    """Add the arguments and flags that `run` and `gate` share; the command gets them as a `RunFlags`."""

    @click.argument("files", nargs=-1, required=True, type=_FILE)
    @option(
        "-k",
        "keyword",
        "--keyword",
        metavar="EXPR",
        help="Only experiments whose name holds EXPR (words with and, or, not).",
    )
    @option(
        "-l",
        "labels",
        "--selector",
        metavar="LABELS",
        help="Only experiments with these labels, such as team=books,tier=1.",
    )
    @option("-x", "--fail-fast", is_flag=True, help="Start no more after the first that did not pass.")
    @option("--last-failed", is_flag=True, help="Only experiments whose newest run in history did not pass.")
    @option("--shard", metavar="I/N", help="Only the I-th of N parts of the selection.")
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Change a field, such as spec.traffic.rate=10/s.",
    )
    @option("--seed", type=click.IntRange(0), help="The seed of everything random but the secrets.")
    @_report_options
    @option("--fail-on", default="fail,inconclusive,aborted,error", show_default=True, help="Which verdicts are not 0.")
    @option("--soft-fail", is_flag=True, help="Exit 0 whatever the verdicts; an unverified restore is still 7.")
    @option(
        "--max-duration",
        type=Duration(),
        metavar="D",
        help="After this long stop what runs, restore, and start no more.",
    )
    @option(
        "--parallel",
        type=click.IntRange(1, PARALLEL_MOST),
        default=1,
        show_default=True,
        help="How many at once; never two on one object.",
    )
    @option(
        "--wait-for", type=Duration(), metavar="D", help="Wait so long for an object that somebody else's run holds."
    )
    @by_hand("--yes", is_flag=True, help="Use the kubeconfig's current context.")
    @by_hand(
        "--accept-inert-leftover",
        is_flag=True,
        help="In a container without a reaper: run all the same, though a twin that hits nobody may stay behind.",
    )
    @notify_option
    @mesh_options
    @store_option
    @voice_options
    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        shared = {name: given.pop(name) for name in RunFlags.__dataclass_fields__}
        return command(RunFlags(**shared), **given)

    return wrapped  # type: ignore[return-value]  # functools.wraps keeps the signature that click reads


@click.command()
@run_options
def run(flags: RunFlags) -> int:
    """Run the experiments in FILES and say what was learnt. Every route is put back, whatever happens."""
    from luff.cli.running import run_all
    from luff.cli.session import prepare

    session = prepare(flags)
    done = run_all(session.experiments, session.documents, session.settings(), each=session.show)
    return session.finish(session.decide(done), done)
