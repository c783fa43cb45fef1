"""
The game days in some files, with the suites, experiments and calendar files that they stand on.

What must stay true:

1. A mistake in the files stops no game day: what was read before goes on, and the mistake is said.
2. Everybody who asks sees one reading of the files: experiments, game days and calendars are exchanged together.
3. Everything here may block on the disk, and may be called from several threads.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from luff.blackouts import Blackout, parse_ics
from luff.errors import InvalidFile, LuffError, Problem
from luff.files import is_folder
from luff.gameday import Firing, Known, Planned, Reason, check_game_days, firings, planned, ruled_out, suites_under
from luff.model import Experiment, GameDay, Schedule, Suite
from luff.parse import Documents
from luff.policy import Hours
from luff.suite import expand
from luff.yaml_nodes import Node, Place, Problems, place_at, plain, read_nodes

__all__ = ["Begun", "GameDays"]

ENDINGS = (".yaml", ".yml", ".ics")
ICS_MOST_BYTES = 5 << 20
NO_CANARY = Reason("cannot_tell", "whether a canary is progressing cannot be asked here")
NO_PROMETHEUS = Reason("cannot_tell", "there is no Prometheus to ask")


@dataclass(slots=True)
class Begun:
    """This is the search for a *schedule*'s firings later than *after*, as far as it has come: the *first*, and the *rest*."""

    schedule: Schedule
    after: datetime
    first: Firing | None
    rest: Iterator[Firing]

    def holds_from(self, after: datetime) -> bool:
        """Return whether it is the search for what is later than *after* as well: nothing lies between the two."""
        return self.after <= after and (self.first is None or self.first.at > after)


@dataclass(frozen=True, slots=True)
class _Read:
    """This is one reading of the files."""

    documents: Documents = field(default_factory=Documents)
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    game_days: Mapping[str, GameDay] = field(default_factory=dict)
    calendars: Mapping[Path, tuple[Blackout, ...]] = field(default_factory=dict)
    warnings: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)


class GameDays:
    """
    This is the game days in some files, read again when the files change.

    *read* returns all that the files hold, and raises `InvalidFile`. *hours*
    are those of the policy; *metric* is whether Prometheus can be asked here;
    *channels* are the names of whom can be told, ``None`` where that is not
    known and not checked.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], Documents],
        *,
        hours: Hours | None = None,
        metric: bool = True,
        channels: Collection[str] | None = (),
    ) -> None:
        self._paths = tuple(paths)
        self._read_files = read
        self.hours = hours
        self._metric = metric
        self._channels = None if channels is None else frozenset(channels)
        self.problem: LuffError | None = None
        self.version = 0
        """How often the files were read with success: who remembers it notices a new reading."""
        self._seen: object = None
        self._now = _Read()
        self._begun: dict[str, Begun] = {}
        self._turn = threading.Lock()

    def load(self, now: datetime, *, since: Callable[[GameDay], datetime | None] = lambda _: None) -> None:
        """
        Read the files; raises `InvalidFile` with all that is wrong, and keeps what was there before.

        *since* says from when on somebody will ask for a game day's firings, so that they are looked for once.
        """
        with self._turn:
            self._load(now, since)

    def refresh(self, now: datetime) -> None:
        """Read the files again if they have changed; a mistake is kept in *problem*, a new reading counts in *version*."""
        with self._turn:
            stamp = self._stamp(self._now.calendars)
            if stamp == self._seen:
                return
            try:
                self._load(now, lambda _: None)
            except LuffError as error:
                self._seen, self.problem = stamp, error

    @property
    def all(self) -> Mapping[str, GameDay]:
        """Return the game days by name."""
        return self._now.game_days

    @property
    def documents(self) -> Documents:
        """Return all that the files hold."""
        return self._now.documents

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Return what is no mistake, and yet will surprise: game days that will always be skipped, and why."""
        return tuple(problem for problems in self._now.warnings.values() for problem in problems)

    def warnings_of(self, name: str) -> tuple[str, ...]:
        """Return what will surprise of the game day *name*, in sentences."""
        return tuple(each.message for each in self._now.warnings.get(name, ()))

    @property
    def every_experiment(self) -> Mapping[str, Experiment]:
        """Return the experiments in the files, and those that all suites make of them, by name."""
        return self._now.experiments

    def experiments(self, game_day: GameDay) -> tuple[Experiment, ...]:
        """Return the experiments of *game_day*'s suites, in order."""
        return _experiments(game_day, self._now.documents)

    def suite(self, name: str) -> tuple[Experiment, ...] | None:
        """Return the experiments of the suite *name*, ``None`` when there is none of that name."""
        documents = self._now.documents
        found = suites_under([name], documents.suites)
        return expand(found, documents.experiments) if found else None

    def begun(self, game_day: GameDay, after: datetime) -> Begun:
        """Return the firings of *game_day* later than *after*; whoever gets them goes on with the search alone."""
        found = self._begun.pop(game_day.metadata.name, None)
        if found is not None and found.schedule == game_day.spec.schedule and found.holds_from(after):
            return found
        coming = firings(game_day.spec.schedule, after)
        return Begun(game_day.spec.schedule, after, next(coming, None), coming)

    def ruled_out(self, game_day: GameDay, at: datetime) -> Reason | None:
        """Return why it is certain before it is due that *game_day* does not begin at *at*, or ``None``."""
        why = ruled_out(game_day, at, _of(self._now.calendars, game_day), self.hours)
        return why or next((reason for _, reason, _ in self._cannot_ask(game_day)), None)

    def _cannot_ask(self, game_day: GameDay) -> Iterator[tuple[int, Reason, str]]:
        """Yield which of *game_day*'s conditions cannot be asked here: its index, the reason, and what to do."""
        for index, condition in enumerate(game_day.spec.skip_when):
            if condition.canary_progressing:
                yield index, NO_CANARY, "leave canaryProgressing out"
            elif condition.prometheus is not None and not self._metric:
                yield index, NO_PROMETHEUS, "set LUFF_PROMETHEUS_URL, or leave it out"

    def planned_of(self, game_day: GameDay, after: datetime, until: datetime) -> Iterator[Planned]:
        """Yield the firings of one game day between two instants, in order, with why each will not be held as far as that is known."""
        return planned(game_day, after, until, lambda at: self.ruled_out(game_day, at))

    def coming_of(self, game_day: GameDay, now: datetime, until: datetime) -> Iterator[Planned]:
        """Yield the firings of one game day until *until* that are not due *now*: with a jitter also such as have fired."""
        since = now - timedelta(seconds=game_day.spec.schedule.jitter_s)
        return (each for each in self.planned_of(game_day, since, until) if each.due > now)

    def coming(
        self,
        now: datetime,
        until: datetime,
        *,
        limit: int | None = None,
        of: Iterable[GameDay] | None = None,
        each_most: int | None = None,
    ) -> list[Planned]:
        """Return the first *limit* firings to come of all game days, or those in *of*, in order; *each_most* of each."""
        game_days = self.all.values() if of is None else of
        spans = [itertools.islice(self.coming_of(each, now, until), each_most) for each in game_days]
        return _first(limit, spans)

    def planned(
        self,
        after: datetime,
        until: datetime,
        *,
        limit: int | None = None,
        of: Iterable[GameDay] | None = None,
    ) -> list[Planned]:
        """Return the first *limit* firings of all game days, or those in *of*, between two instants, in order."""
        game_days = self.all.values() if of is None else of
        return _first(limit, [self.planned_of(each, after, until) for each in game_days])

    def _load(self, now: datetime, since: Callable[[GameDay], datetime | None]) -> None:
        seen = self._stamp(self._now.calendars)
        documents = self._read_files()
        place = _Places()
        calendars = _calendars(documents.game_days, place)
        begun: dict[str, Begun] = {}

        def first(game_day: GameDay) -> Firing | None:
            after = since(game_day) or now
            coming = firings(game_day.spec.schedule, after)
            found = next(coming, None)
            begun[game_day.metadata.name] = Begun(game_day.spec.schedule, after, found, coming)
            # What fired before now may have been the last one.
            return found if found is None or found.at > now else next(firings(game_day.spec.schedule, now), None)

        known = Known(
            {suite.metadata.name for suite in documents.suites},
            now,
            self.hours,
            blackouts=lambda game_day: _of(calendars, game_day),
            first=first,
            experiments=lambda game_day: _names(game_day, documents),
            channels=self._channels,
        )
        check_game_days(documents.game_days, known, place=lambda each, path: place("GameDay", each, *path))
        experiments = {each.name: each for each in documents.experiments}
        if documents.suites:
            expanded = expand(
                documents.suites,
                documents.experiments,
                place=lambda suite, entry: place("Suite", suite, "spec", "experiments", entry),
            )
            experiments |= {each.name: each for each in expanded}
        if calendars.keys() != self._now.calendars.keys():
            seen = self._stamp(calendars)
        game_days = {each.metadata.name: each for each in documents.game_days}
        warnings = {name: tuple(self._warnings(each, place)) for name, each in game_days.items()}
        self._now = _Read(documents, experiments, game_days, calendars, warnings)
        self._seen, self._begun, self.problem = seen, begun, None
        self.version += 1

    def _warnings(self, game_day: GameDay, place: _Places) -> Iterator[Problem]:
        for index, why, instead in self._cannot_ask(game_day):
            at = place("GameDay", game_day, "spec", "skipWhen", index)
            said = f"every firing of {game_day.metadata.name} will be skipped: {why.said}"
            yield Problem(at.file, at.line, at.column, said, instead)

    def _stamp(self, calendars: Iterable[Path]) -> object:
        found: dict[str, tuple[int, int, int]] = {}
        for path in [*_watched(self._paths), *calendars]:
            with contextlib.suppress(OSError):
                seen = path.stat()
                found[str(path)] = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        return found


def _experiments(game_day: GameDay, documents: Documents) -> tuple[Experiment, ...]:
    return expand(suites_under(game_day.spec.suites, documents.suites), documents.experiments)


def _first(limit: int | None, spans: Iterable[Iterator[Planned]]) -> list[Planned]:
    in_order = heapq.merge(*spans, key=lambda each: (each.at, each.game_day.metadata.name))
    return list(in_order if limit is None else itertools.islice(in_order, limit))


def _names(game_day: GameDay, documents: Documents) -> Collection[str]:
    """Return the names of *game_day*'s experiments, none when its suites are wrong, which is said elsewhere."""
    known = {suite.metadata.name for suite in documents.suites}
    if not known.issuperset(game_day.spec.suites):
        return ()
    try:
        return {each.name for each in _experiments(game_day, documents)}
    except InvalidFile:
        return ()


def _watched(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if is_folder(path):
            yield from (inside for inside in path.rglob("*") if inside.suffix in ENDINGS)
        else:
            yield path


def _ics_path(game_day: GameDay, ics: str) -> Path:
    """Return where a calendar file lies: beside the game day that names it."""
    return Path(os.path.normpath(Path(game_day.file).parent / ics))


def _of(calendars: Mapping[Path, Sequence[Blackout]], game_day: GameDay) -> dict[str, Sequence[Blackout]]:
    names = [condition.ics for condition in game_day.spec.skip_when if condition.ics]
    return {ics: calendars.get(_ics_path(game_day, ics), ()) for ics in names}


def _calendars(game_days: Iterable[GameDay], place: _Places) -> dict[Path, tuple[Blackout, ...]]:
    found: dict[Path, tuple[Blackout, ...]] = {}
    problems: list[Problem] = []
    for game_day in game_days:
        for index, condition in enumerate(game_day.spec.skip_when):
            if not condition.ics or (path := _ics_path(game_day, condition.ics)) in found:
                continue
            found[path] = ()
            try:
                if path.stat().st_size > ICS_MOST_BYTES:
                    raise OSError(f"it is larger than {ICS_MOST_BYTES >> 20} MiB")  # noqa: TRY301  # said as the others are
                found[path] = parse_ics(str(path), path.read_text(encoding="utf-8-sig"))
            except InvalidFile as error:
                problems += error.problems
            except (OSError, ValueError) as error:
                why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
                at = place("GameDay", game_day, "spec", "skipWhen", index, "ics")
                message = f"the calendar {condition.ics[:80]!r} cannot be read: {why}"
                problems.append(Problem(at.file, at.line, at.column, message, "it lies beside the game day's file"))
    if problems:
        raise InvalidFile(problems)
    return found


class _Places:
    """This finds where a part of a document is written, by reading its file again: only problems need it."""

    def __init__(self) -> None:
        self._roots: dict[str, list[Node]] = {}

    def __call__(self, kind: str, document: GameDay | Suite, *path: str | int) -> Place:
        file = document.file
        if file not in self._roots:
            try:
                self._roots[file] = read_nodes(file, Path(file).read_text(encoding="utf-8-sig"), Problems())
            except (OSError, UnicodeDecodeError):
                self._roots[file] = []
        found = Place(file, 1, 1)
        for root in self._roots[file]:
            read = plain(root)
            if not isinstance(read, dict) or read.get("kind") != kind:
                continue
            if (read.get("metadata") or {}).get("name") == document.metadata.name:
                found = place_at(root, *path)  # the last one: of two with one name it is the second that is wrong
        return found
