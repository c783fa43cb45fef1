"""`luff gate`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli import tell
from luff.cli.options import Duration, option
from luff.cli.run import RunFlags, run_options

if TYPE_CHECKING:
    from luff.cli.running import Done
    from luff.cli.session import Session
    from luff.gate import Baseline, Decision, Waiver

__all__ = ["gate"]

LAST_PASS = "last-pass"  # noqa: S105  # a word, not a password
RUN_ID_LEAST = 4
MAX_AGE_USUAL = "24h"


@click.command()
@run_options
@option(
    "--baseline",
    metavar="last-pass|RUN|FILE",
    help="What to compare with: was passed, now failed is a stop; failed in the same way before is none.",
)
@option(
    "--waivers",
    "waivers_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A YAML list of experiment, reason and until (a date): these need not pass.",
)
@option(
    "--from-history",
    is_flag=True,
    help="Run nothing: decide from the newest stored outcomes of the named cluster, or with --lab of any lab.",
)
@option(
    "--max-age",
    type=Duration(),
    default=MAX_AGE_USUAL,
    show_default=True,
    metavar="D",
    help="How old a stored outcome may be for --from-history.",
)
def gate(flags: RunFlags, baseline: str | None, waivers_file: Path | None, from_history: bool, max_age: float) -> int:
    """
    Decide for a pipeline: go or stop.

    Runs the experiments in FILES (those of the suites, where FILES hold suites) and exits 0 only when each of them
    passed or somebody put on record why it need not.
    """
    from luff.cli.running import run_all
    from luff.cli.session import prepare

    waivers = () if waivers_file is None else _waivers(waivers_file)
    session = prepare(flags)
    session = replace(session, baseline=_baseline(baseline, session), waivers=waivers)
    if from_history:
        done, missing = _stored(session, max_age_s=max_age)
        for outcome in done.outcomes:
            session.show(outcome)
        decision = session.decide(done, missing=missing)
    else:
        done = run_all(session.experiments, session.documents, session.settings(), each=session.show)
        decision = session.decide(done)
    code = session.finish(decision, done)
    tell(_words(decision), err=flags.as_json)
    return code


def _words(decision: Decision) -> str:
    from luff.report.words import visible

    lines = [f"GATE {decision.words}"]
    lines += [f"  {visible(sentence)}" for sentence in decision.said]
    return "\n".join(lines)


def _waivers(path: Path) -> tuple[Waiver, ...]:
    from luff.cli.files import read_text
    from luff.gate import parse_waivers

    step = "write a YAML list of {experiment: NAME, reason: WHY, until: 2027-01-31}"
    return parse_waivers(read_text(path, "the file of waivers", next_step=step), str(path))


def _baseline(asked: str | None, session: Session) -> Baseline | None:
    """Return what was *asked* for, as it is before anything runs."""
    from luff.cli.files import read_text
    from luff.cli.session import newest_outcomes
    from luff.errors import StoreError, UsageError
    from luff.files import is_file
    from luff.gate import Baseline, newest_each
    from luff.model import Verdict
    from luff.report.document import read_outcomes
    from luff.store import Store

    if asked is None:
        return None
    if asked == LAST_PASS:
        with Store.open(session.flags.store) as store:
            passed = newest_outcomes(store, session.experiments, session.flags, verdict=Verdict.PASSED)
        return Baseline("history", passed)
    path = Path(asked)
    if is_file(path) or "/" in asked or path.suffix == ".json":
        step = "name a file that `luff run --json` wrote, the id of a run, or last-pass"
        outcomes = read_outcomes(read_text(path, "the baseline", next_step=step), str(path))
        return Baseline(asked, newest_each(outcomes))
    if len(asked) < RUN_ID_LEAST or set(asked) - set("0123456789abcdef"):
        raise UsageError(
            f"--baseline {asked!r} is neither last-pass, nor a file that is there, nor the id of a run",
            next_step="see `luff runs list`, or name a file that `luff run --json` wrote",
        )
    with Store.open(session.flags.store) as store:
        try:
            return Baseline(f"run {asked}", newest_each([store.outcome(asked)]))
        except StoreError as error:
            raise UsageError(f"--baseline: {error.message}", next_step=error.next_step) from error


def _stored(session: Session, *, max_age_s: float) -> tuple[Done, dict[str, str]]:
    """Return the outcomes in history that still say something, and why there is none for the others."""
    from luff.cli.running import Done
    from luff.cli.session import newest_outcomes
    from luff.gate import why_no_proof
    from luff.store import Store

    now = datetime.now(UTC)
    with Store.open(session.flags.store) as store:
        newest = newest_outcomes(store, session.experiments, session.flags)
    done, missing = Done(), dict[str, str]()
    for experiment in session.experiments:
        outcome = newest.get(experiment.name)
        why = why_no_proof(experiment, outcome, now=now, max_age_s=max_age_s)
        if why is not None:
            missing[experiment.name] = why
        elif outcome is not None:
            done.outcomes.append(outcome)
    return done, missing
