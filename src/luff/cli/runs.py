"""`luff runs list|show|diff|coverage|prune|push|import`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli.coverage import coverage
from luff.cli.options import Voice, option, store_option, voice_options
from luff.errors import LuffError, UsageError
from luff.files import is_file

if TYPE_CHECKING:
    from luff.outcome import Outcome
    from luff.store import RunFilter, RunRow, Store

__all__ = ["runs"]

LIST_USUAL = 20
LIST_MOST = 1000
PAGE = 1000
ANSWER_WITHIN_S = 30.0
OUTCOMES_PATH = "/api/v1/outcomes"
STEP = "name a file that `luff run --json` wrote"


@click.group()
def runs() -> None:
    """Look at history, thin it out, and carry it elsewhere."""


runs.add_command(coverage)


@runs.command("list")
@store_option
@option(
    "--limit", type=click.IntRange(1, LIST_MOST), default=LIST_USUAL, show_default=True, help="How many, newest first."
)
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option(
    "--verdict", type=click.Choice(["passed", "failed", "inconclusive", "aborted", "error"]), help="Only these."
)
@click.option("-l", "--labels", metavar="SELECTOR", help="Only runs with these labels, such as team=books,tier!=3.")
@click.option("--since", metavar="TIME", help="Only runs that began since: a date, or how long ago, such as 7d.")
@click.option("--until", metavar="TIME", help="Only runs that began until: a date (with that day), or how long ago.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "name"]), default="table", help="The shape of the answer."
)
@voice_options
def list_(
    store: str | None,
    limit: int,
    experiment: str | None,
    verdict: str | None,
    labels: str | None,
    since: str | None,
    until: str | None,
    output: str,
    voice: Voice,
) -> None:
    """
    List runs, newest first.

    ROUTES with a question mark is the last that an unfinished run wrote down; `luff status` shows what is injected now.
    """
    from luff.cli.selecting import matches_labels
    from luff.lifecycle import Phase
    from luff.report.trend import moment
    from luff.store import RunFilter, Store  # SQLAlchemy costs a third of a second

    now = datetime.now(UTC)
    where = RunFilter(
        experiment=experiment,
        verdict=verdict,
        since=None if since is None else moment(since, "--since", now=now),
        until=None if until is None else moment(until, "--until", now=now, end=True),
    )
    if labels is not None:
        matches_labels({}, labels)  # a selector that cannot be read is refused whether or not there are runs
    with Store.open(store) as opened:
        rows = _listed(opened, where, limit=limit, labels=labels)
    if output == "name":
        click.echo("".join(f"{row.run}\n" for row in rows), nl=False)
        return
    found = [
        {
            "run": row.run,
            "experiment": row.experiment,
            "verdict": row.verdict,
            "reason": row.reason,
            "phase": row.phase,
            "mesh": row.mesh_name,
            "labels": dict(row.labels),
            "commit": row.context.commit,
            "started_at": row.started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        for row in rows
    ]
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        if voice.level >= 0:
            asked = any(each is not None for each in (experiment, verdict, labels, since, until))
            click.echo("no such runs" if asked else "no runs yet; `luff demo` makes some", err=True)
        return
    click.echo(f"{'RUN':<17} {'AGE':>6} {'VERDICT':<13} {'ROUTES':<11} EXPERIMENT")
    for row in rows:
        verdict_shown = (row.verdict or "unfinished") + ("" if row.reason is None else "*")
        # Of a run that was killed it is the last that it wrote down: its guard, or a reaper, restores without the database.
        routes = f"{row.phase}?" if row.verdict is None and row.phase not in (Phase.PLANNED, Phase.CLEAN) else row.phase
        click.echo(
            f"{row.run:<17} {_age((now - row.started_at).total_seconds()):>6} {verdict_shown:<13} {routes:<11} {row.experiment}"
        )


def _listed(store: Store, where: RunFilter, *, limit: int, labels: str | None) -> list[RunRow]:
    """Return at most *limit* runs with *labels*, newest first. The database compares what is equal, we the rest."""
    from luff.cli.selecting import matches_labels

    if labels is None:
        return store.runs(where, limit=limit)
    where = replace(where, labels=_equal_labels(labels))
    found: list[RunRow] = []
    before: str | None = None
    while len(found) < limit:
        page = store.runs(where, limit=PAGE, before=before)
        found += [row for row in page if matches_labels(dict(row.labels), labels)]
        if len(page) < PAGE:
            break
        before = page[-1].run
    return found[:limit]


def _equal_labels(selector: str) -> dict[str, str]:
    """Return the terms ``key=value`` of *selector*; a key that is there twice is left to the slower comparison."""
    pairs = [term.replace("==", "=").partition("=") for term in selector.split(",") if "!" not in term and "=" in term]
    keys = [key.strip() for key, _, _ in pairs]
    return {key.strip(): value.strip() for key, _, value in pairs if keys.count(key.strip()) == 1}


@runs.command()
@store_option
@click.argument("run")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer.")
@voice_options
def show(store: str | None, run: str, output: str, voice: Voice) -> None:
    """Show one run; a unique beginning of its id is enough."""
    from luff.cli.paint import print_outcomes
    from luff.report.document import render
    from luff.store import Store  # SQLAlchemy costs a third of a second

    with Store.open(store) as opened:
        outcome = opened.outcome(run)
    if output == "json":
        click.echo(render(outcome), nl=False)
        return
    print_outcomes([outcome], voice=voice)


@runs.command()
@store_option
@click.argument("a", metavar="RUN|FILE")
@click.argument("b", metavar="RUN|FILE")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer.")
def diff(store: str | None, a: str, b: str, output: str) -> None:
    """Say what two runs learnt, measured and asked differently. Each is an id, a unique beginning of one, or a file."""
    from luff.report.difference import as_text, difference

    found = difference(*named_outcomes([a, b], store, one_each=True))
    click.echo(json.dumps(found.as_json(), indent=2) if output == "json" else as_text(found))


@runs.command()
@store_option
@click.option("--keep-days", type=click.IntRange(0), metavar="N", help="Keep the runs of the last N days.")
@click.option(
    "--keep-last", type=click.IntRange(0), metavar="N", help="Keep the N newest runs of each experiment in each place."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer.")
@voice_options
def prune(
    store: str | None, keep_days: int | None, keep_last: int | None, dry_run: bool, output: str, voice: Voice
) -> None:
    """
    Delete old runs, each with its samples and its journal.

    The last pass and the last fail of each experiment, as it was written, in
    the lab and on each cluster, are never deleted, nor a run whose routes are
    not known to be back.
    """
    from luff.cli.restore import who_am_i
    from luff.store import Keep, Store

    keep = Keep(days=keep_days, last=keep_last)
    with Store.open(store) as opened:
        pruned = opened.prune(keep, dry_run=dry_run)
        if pruned.runs and not dry_run:
            kept = f"--keep-days {keep_days}" if keep_last is None else f"--keep-last {keep_last}"
            opened.access.audit("runs.prune", f"{len(pruned.runs)} runs", actor=who_am_i(), note=kept)
    if output == "json":
        said = {"dry_run": dry_run, "runs": list(pruned.runs), "protected": pruned.protected, "left": pruned.left}
        click.echo(json.dumps(said, indent=2))
        return
    for run in pruned.runs if dry_run or voice.level > 0 else ():
        click.echo(run)
    if voice.level >= 0:
        done = "would be deleted" if dry_run else "deleted"
        click.echo(
            f"{_count(len(pruned.runs))} {done}, {pruned.left} left; "
            f"{pruned.protected} of them are old, and kept as a last proof or because their routes may not be back",
            err=True,
        )


@runs.command("import")
@store_option
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@voice_options
def import_(store: str | None, files: tuple[str, ...], voice: Voice) -> None:
    """Put the outcomes in result files into this history. What is there already stays as it is."""
    from luff.store import Store

    outcomes = [outcome for name in files for outcome in read_file(name)]
    with Store.open(store) as opened:
        done = _each(outcomes, lambda outcome: opened.bring([outcome]), "put into history")
    if voice.level >= 0:
        click.echo(f"{_count(done)} in {opened.url}", err=True)


@runs.command()
@store_option
@click.argument("what", nargs=-1, required=True, metavar="RUN|FILE...")
@option(
    "--to",
    "server",
    required=True,
    envvar=["LUFF_TO", "LUFF_SERVER"],
    metavar="URL",
    help="The other luff's address; LUFF_TO, or LUFF_SERVER.",
)
@voice_options
def push(store: str | None, what: tuple[str, ...], server: str, voice: Voice) -> None:
    """Send outcomes to another `luff serve`, with the bearer token that LUFF_TOKEN holds."""
    import httpx

    address = _address(server)
    token = os.environ.get("LUFF_TOKEN", "").strip()
    if not token:
        raise UsageError("LUFF_TOKEN is not set", next_step="have an operator's token made with `luff token create`")
    if not token.isascii() or not token.isprintable():
        raise UsageError("LUFF_TOKEN holds characters that no token has", next_step="copy it again")
    if address.scheme == "http" and not _is_loopback(address.host) and voice.level >= 0:
        click.echo(f"luff: {address} is not https: whoever is on the way can read the token", err=True)
    outcomes = named_outcomes(what, store)
    with httpx.Client(timeout=ANSWER_WITHIN_S, headers={"authorization": f"Bearer {token}"}) as client:
        done = _each(outcomes, lambda outcome: _post(client, address, outcome), f"sent to {address}")
    if voice.level >= 0:
        click.echo(f"{_count(done)} sent to {address}", err=True)


if TYPE_CHECKING:
    import httpx


def _address(text: str) -> httpx.URL:
    import httpx

    step = "write it such as https://luff.example"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise UsageError(f"--to {text!r} is not an address: {error}", next_step=step) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"--to {text!r} is not the address of a server", next_step=step)
    if url.userinfo:
        raise UsageError("--to holds a user or password", next_step="put the token into LUFF_TOKEN instead")
    path = url.path.rstrip("/").removesuffix(OUTCOMES_PATH)
    return url.copy_with(path=path + OUTCOMES_PATH, query=None, fragment=None)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _post(client: httpx.Client, address: httpx.URL, outcome: Outcome) -> None:
    import httpx

    body = json.dumps(outcome.model_dump(mode="json", by_alias=True), allow_nan=False)
    try:
        answer = client.post(address, content=body, headers={"content-type": "application/json"})
    except httpx.TimeoutException as error:
        raise LuffError(
            f"{address} did not answer within {ANSWER_WITHIN_S:g} s", next_step="send it again: nothing is kept twice"
        ) from error
    except httpx.HTTPError as error:
        raise LuffError(
            f"{address} cannot be reached: {error}", next_step="check that `luff serve` runs there"
        ) from error
    if answer.is_success:
        return
    raise LuffError(f"{address} refused it: {answer.status_code} {_said(answer)}", next_step=_step(answer))


def _said(answer: httpx.Response) -> str:
    """Return what the server says of its refusal: a problem of RFC 9457, or the phrase of the status."""
    from luff.report.words import visible

    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        said = [str(problem[name]) for name in ("title", "detail") if isinstance(problem.get(name), str)]
        if said:
            return visible(": ".join(said))[:500]
    return answer.reason_phrase


def _step(answer: httpx.Response) -> str:
    if answer.is_redirect:
        return f"give the address that it names: {answer.headers.get('location', '')[:200]}"
    return {
        401: "check LUFF_TOKEN: the server does not know this token, or it was revoked",
        403: "this token may not: an operator's is needed",
        404: "this address is no `luff serve`, or an older one",
        409: "the server has another outcome of this run, or the run is underway there",
        413: "the server takes no body of this size",
    }.get(answer.status_code, "look at the server's log")


def _each(outcomes: Sequence[Outcome], act: Callable[[Outcome], object], done: str) -> int:
    """Do *act* with each outcome; an error says how many were *done* before it."""
    for number, outcome in enumerate(outcomes):
        try:
            act(outcome)
        except LuffError as error:
            before = f" ({number} of {len(outcomes)} were {done} before)" if len(outcomes) > 1 else ""
            raise type(error)(f"run {outcome.run}: {error.message}{before}", next_step=error.next_step) from error
    return len(outcomes)


def named_outcomes(names: Sequence[str], store: str | None, *, one_each: bool = False) -> list[Outcome]:
    """Return the outcomes that *names* stand for: files, or ids of stored runs; with *one_each* exactly one for each."""
    from luff.store import Store

    in_files = {name: read_file(name) for name in names if means_file(name)}
    stored: dict[str, list[Outcome]] = {}
    ids = [name for name in dict.fromkeys(names) if name not in in_files]
    if ids:
        with Store.open(store) as opened:
            stored = {name: [opened.outcome(name)] for name in ids}
    found = [in_files[name] if name in in_files else stored[name] for name in names]
    if one_each:
        for name, outcomes in zip(names, found, strict=True):
            if len(outcomes) != 1:
                raise UsageError(
                    f"{name} holds {len(outcomes)} outcomes, not one",
                    next_step=f"put them into history with `luff runs import {name}`, and name one by its id",
                )
    return [outcome for outcomes in found for outcome in outcomes]


def means_file(name: str) -> bool:
    """Return whether *name* means a file rather than the id of a run."""
    return "/" in name or name.endswith(".json") or is_file(name)


def read_file(name: str) -> list[Outcome]:
    """Return the outcomes in the file *name*; `UsageError` when they cannot be had."""
    from luff.cli.files import read_text
    from luff.report.document import read_outcomes

    return read_outcomes(read_text(Path(name), "the file", next_step=f"{STEP}, or the id of a run"), name)


def _count(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _age(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
