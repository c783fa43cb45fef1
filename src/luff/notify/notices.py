"""
What is told: a notice is one change of state, in a line that a person understands and in facts for a program.

Pure: who tells brings what was before. Nothing of a scope's secret is here,
because an outcome has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from luff.exit_codes import is_unrestored
from luff.outcome import Outcome
from luff.report.trend import age_words
from luff.report.words import MARKS, visible
from luff.words import Verdict

__all__ = [
    "Ahead",
    "Event",
    "NotHeld",
    "Notice",
    "as_json",
    "as_slack",
    "game_day_ahead",
    "occurrences_not_held",
    "of_outcome",
]

SCHEMA = "luff.dev/notice/v1"
TEXT_MOST = 2000
"""Characters; Slack takes 3000 in one part of a message."""


class Event(StrEnum):
    """This is what kind of news it is."""

    VERDICT = "verdict"
    """An experiment says something else than the time before."""
    STRANDED = "stranded"
    """A fault may still be live: a person has to look."""
    OCCURRENCE = "occurrence"
    """A game day was skipped, lost, stopped, or did not go as expected."""
    ANNOUNCEMENT = "announcement"
    """A game day is ahead."""


@dataclass(frozen=True, slots=True)
class Notice:
    """
    This is one piece of news. *about* is the experiment or the game day.

    The *id* is the same in every try and on every channel, so that whoever
    hears it twice can tell. *path* is where the server shows more.
    """

    id: str
    event: Event
    at: datetime
    about: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None

    @property
    def urgent(self) -> bool:
        """Return whether it must not be lost for want of room."""
        return self.event is Event.STRANDED


def of_outcome(outcome: Outcome, before: Verdict | None, *, at: datetime) -> list[Notice]:
    """
    Return what is to be told of *outcome*: a restore that is not proven, always, and a verdict that is another than *before*.

    *before* is the newest verdict of the same experiment, written the same way,
    in the same place; without one a pass is no news.
    """
    found = []
    where = f"on {outcome.mesh.kind} {outcome.mesh.name}"
    if is_unrestored(outcome):
        what = "look at it now" if outcome.next is None else outcome.next.do
        text = f"A fault may still be live: {outcome.experiment} {where} was not proven restored; {what}"
        found.append(_notice(Event.STRANDED, outcome, text, before, at))
    changed = outcome.verdict is not before
    if changed and not (before is None and outcome.verdict is Verdict.PASSED):
        since = "there is no verdict before it" if before is None else f"before it was {before}"
        reason = "" if outcome.reason is None else f" ({outcome.reason})"
        text = f"{MARKS[outcome.verdict]} {outcome.experiment} is {outcome.verdict}{reason} {where}, {since}: {outcome.explanation}"
        found.append(_notice(Event.VERDICT, outcome, text, before, at))
    return found


def _notice(event: Event, outcome: Outcome, text: str, before: Verdict | None, at: datetime) -> Notice:
    facts = {
        "experiment": outcome.experiment,
        "run": outcome.run,
        "labels": outcome.labels,
        "mesh": outcome.mesh.model_dump(mode="json"),
        "subject": outcome.subject,
        "spec_sha256": outcome.spec_sha256,
        "verdict": str(outcome.verdict),
        "before": None if before is None else str(before),
        "reason": outcome.reason,
        "explanation": outcome.explanation,
        "next": None if outcome.next is None else outcome.next.model_dump(mode="json"),
        "phase": str(outcome.phase),
        "context": outcome.context.model_dump(mode="json"),
    }
    id_ = _id(event, outcome.run)
    return Notice(id_, event, at, outcome.experiment, _line(text), facts, f"/runs/{outcome.run}")


@dataclass(frozen=True, slots=True)
class NotHeld:
    """
    This is an occurrence of *game_day* that ended in *state*, which is not as expected.

    *others* did before it as well.
    """

    game_day: str
    scheduled_for: datetime
    state: str
    reason: str | None
    said: str | None
    runs: tuple[str, ...] = ()
    others: int = 0


def occurrences_not_held(ended: NotHeld, *, at: datetime) -> Notice:
    """Return that *ended* did so."""
    why = ended.said or ended.reason or "no reason is known"
    more = f" ({ended.others} before it were not held either)" if ended.others else ""
    how = _ENDED.get(ended.state, ended.state)
    text = f"Game day {ended.game_day} of {_when(ended.scheduled_for)} {how}: {why}{more}"
    scheduled_for = _iso(ended.scheduled_for)
    facts = {**asdict(ended), "scheduled_for": scheduled_for, "runs": list(ended.runs)}
    id_ = _id(Event.OCCURRENCE, ended.game_day, scheduled_for, ended.state)
    return Notice(id_, Event.OCCURRENCE, at, ended.game_day, _line(text), facts, "/calendar")


_ENDED = {
    "skipped": "was not held",
    "lost": "was lost",
    "failed": "did not go as expected",
    "error": "ended with an error",
    "aborted": "was stopped",
}


@dataclass(frozen=True, slots=True)
class Ahead:
    """This is an occurrence of *game_day* to come; *skipped* is why it will not be held, as far as that is known."""

    game_day: str
    scheduled_for: datetime
    due: datetime
    owner: str | None
    skipped: str | None


def game_day_ahead(coming: Ahead, *, at: datetime) -> Notice:
    """Return that *coming* is due."""
    ahead = age_words(at, coming.due)
    owned = "" if coming.owner is None else f" Owner: {coming.owner}."
    against = "" if coming.skipped is None else f" It will not be held as things stand: {coming.skipped}."
    text = f"Game day {coming.game_day} begins in {ahead}, at {_when(coming.due)}.{owned}{against}"
    scheduled_for = _iso(coming.scheduled_for)
    facts = {**asdict(coming), "scheduled_for": scheduled_for, "due": _iso(coming.due)}
    id_ = _id(Event.ANNOUNCEMENT, coming.game_day, scheduled_for, ahead)
    return Notice(id_, Event.ANNOUNCEMENT, at, coming.game_day, _line(text), facts, "/calendar")


def as_json(notice: Notice, link: str | None) -> bytes:
    """Return *notice* for a program."""
    body = {
        "schema": SCHEMA,
        "id": notice.id,
        "event": str(notice.event),
        "at": _iso(notice.at),
        "text": notice.text,
        "url": _url(notice, link),
        **notice.facts,
    }
    return json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def as_slack(notice: Notice, link: str | None) -> bytes:
    """Return *notice* as an incoming webhook of Slack takes it: plain text, so that nothing in it becomes markup."""
    url = _url(notice, link)
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "plain_text", "text": notice.text, "emoji": False}}
    ]
    if url is not None:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"<{_escaped(url)}|Look at it>"}]})
    body = {"text": _escaped(notice.text), "blocks": blocks}
    return json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def _url(notice: Notice, link: str | None) -> str | None:
    return None if link is None or notice.path is None else link + notice.path


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line(text: str) -> str:
    """Return *text* as one line; what came from a service may hold anything."""
    shown = visible(" ".join(text.split()))
    return shown if len(shown) <= TEXT_MOST else shown[: TEXT_MOST - 1] + "…"


def _id(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M %Z}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
