"""
What `run` and `gate` do around the runs: choose before, decide and report after.

Everything that can be wrong with the command line is found before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import click

from luff.cli.files import expanded, overrides_of, read_documents
from luff.cli.mesh_choice import ambient_identity
from luff.cli.notify import channels_of
from luff.cli.paint import print_outcomes
from luff.cli.results import ReportFiles, all_written, write_reports, write_to_github
from luff.cli.run import RunFlags
from luff.cli.running import Done, RunSettings
from luff.cli.selecting import Choice, choose
from luff.cli.streams import may_be_lost
from luff.errors import NothingSelected
from luff.exit_codes import is_unrestored, parse_fail_on
from luff.gate import Baseline, Decision, Waiver, decide
from luff.model import Experiment, Verdict
from luff.notify import Channels
from luff.outcome import Outcome
from luff.parse import Documents
from luff.store import RunFilter, Store

__all__ = ["Session", "newest_outcomes", "prepare"]


@dataclass(frozen=True, slots=True)
class Session:
    """This is one `run` or `gate` whose command line is in order."""

    flags: RunFlags
    documents: Documents
    experiments: tuple[Experiment, ...]
    fail_on: frozenset[str]
    reports: ReportFiles
    baseline: Baseline | None = None
    waivers: tuple[Waiver, ...] = ()

    def settings(self) -> RunSettings:
        """Return how to run; raises `UsageError` for what cannot be."""
        flags = self.flags
        return RunSettings(
            mesh=flags.mesh,
            store=flags.store,
            seed=flags.seed,
            fail_fast=flags.fail_fast,
            voice=flags.voice,
            parallel=flags.parallel,
            max_duration_s=flags.max_duration,
            wait_for_s=flags.wait_for,
            passes=self.passes,
            accept_inert_leftover=flags.accept_inert_leftover,
            channels=Channels() if flags.notify is None else channels_of(flags.notify, flags.files),
        )

    def passes(self, outcome: Outcome) -> bool:
        """Return whether *outcome* alone lets the pipeline go on, whatever ``--fail-on`` leaves out."""
        return decide([outcome], today=_today(), baseline=self.baseline, waivers=self.waivers).go

    def show(self, outcome: Outcome) -> None:
        """Print the block of *outcome*; where nobody asked for it only if a fault may still be live."""
        if self.flags.as_json and self.flags.voice.level < 0 and not is_unrestored(outcome):
            return
        # The decision is told by the exit code as well.
        with may_be_lost(err=self.flags.as_json):
            print_outcomes([outcome], voice=self.flags.voice, stderr=self.flags.as_json)

    def decide(self, done: Done, *, missing: Mapping[str, str] | None = None) -> Decision:
        """Return go or stop."""
        return decide(
            done.outcomes,
            today=_today(),
            fail_on=self.fail_on,
            soft_fail=self.flags.soft_fail,
            signal=done.signal,
            baseline=self.baseline,
            waivers=self.waivers,
            missing=missing,
        )

    def finish(self, decision: Decision, done: Done) -> int:
        """Write every report that was asked for, and return the exit code."""
        all_written(lambda: self._write(decision, done), code=decision.exit_code)
        return decision.exit_code

    def _write(self, decision: Decision, done: Done) -> None:
        places = {each.name: (each.file, each.lines.get("metadata.name", 1)) for each in self.experiments if each.file}
        write_reports(
            done.outcomes,
            self.reports,
            code=decision.exit_code,
            samples=done.samples,
            decision=decision,
            fail_on=self.fail_on,
            places=places,
        )
        if self.flags.github:
            # GitHub reads its commands on stderr as well.
            write_to_github(done.outcomes, decision, places=places, err=self.flags.as_json)


def prepare(flags: RunFlags) -> Session:
    """Return the session that *flags* ask for; raises before anything is touched."""
    fail_on = parse_fail_on(flags.fail_on)
    reports = ReportFiles(
        html=flags.html_file,
        json=flags.json_file,
        junit=flags.junit_file,
        markdown=flags.markdown_file,
        gitlab_dir=flags.gitlab_dir,
        stdout=flags.as_json,
    )
    documents = read_documents(flags.files, overrides=overrides_of(flags.overrides))
    choice = Choice(flags.keyword, flags.labels, flags.shard, flags.last_failed)
    everything = expanded(documents)
    reports.check()
    try:
        experiments = choose(everything, choice, newest=lambda some: _newest(flags, some), today=_today())
    except NothingSelected as error:
        # A report of an earlier command must not be taken for this one's.
        decision = Decision(error.exit_code, (error.message,))
        write_reports([], reports, code=error.exit_code, decision=decision)
        raise
    _say_what_is_in_no_suite(documents, everything, flags)
    return Session(flags, documents, experiments, fail_on, reports)


def _say_what_is_in_no_suite(documents: Documents, everything: Sequence[Experiment], flags: RunFlags) -> None:
    if not documents.suites or flags.voice.level < 0:
        return
    lines = {(each.file, each.lines.get("spec.target")) for each in everything}
    outside = [each.name for each in documents.experiments if (each.file, each.lines.get("spec.target")) not in lines]
    if outside:
        click.echo(f"in no suite, so not run: {', '.join(outside)}", err=True)


def _newest(flags: RunFlags, experiments: Sequence[Experiment]) -> dict[str, Outcome]:
    with Store.open(flags.store) as store:
        return newest_outcomes(store, experiments, flags)


def newest_outcomes(
    store: Store, experiments: Sequence[Experiment], flags: RunFlags, *, verdict: Verdict | None = None
) -> dict[str, Outcome]:
    """Return the newest outcome of each experiment on the mesh that is meant, where there is one; with *verdict* only such."""
    mesh = ambient_identity(flags.mesh)
    found: dict[str, Outcome] = {}
    for experiment in experiments:
        where = RunFilter(experiment=experiment.name, ended=True, mesh=mesh, verdict=verdict)
        for row in store.runs(where, limit=1):
            found[experiment.name] = store.outcome(row.run)
    return found


def _today() -> date:
    return datetime.now(UTC).date()
