"""Failures on command: what an API server does on its bad days, as often as a test asks for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal, get_args

from luff.model import Object

__all__ = ["Misbehaviour", "Rule", "parse_rules"]

Action = Literal["delay", "status", "drop_reply", "apply_late", "hang", "close", "stale"]
READS = frozenset({"get", "list", "watch"})
MOST_TIMES = 1_000_000


@dataclass(slots=True)
class Rule:
    """
    This is one way to fail, for the next *times* requests that match.

    - ``delay``: answer after *seconds*;
    - ``status``: answer *code* (with *retry_after*) and do nothing;
    - ``drop_reply``: do it, and close the connection without an answer;
    - ``apply_late``: close the connection now, do it after *seconds*;
    - ``hang``: keep the connection open for *seconds* without an answer, then close it; do nothing;
    - ``close``: close the connection, do nothing;
    - ``stale``: answer a get or list as it was *revisions* changes ago.

    *verb* is get, list, watch, create, update, patch, delete, deletecollection,
    or one of ``*``, ``read``, ``write``; *plural* may be ``*``.
    """

    action: Action
    verb: str = "*"
    plural: str = "*"
    name: str | None = None
    namespace: str | None = None
    dry_run: bool | None = None
    times: int = 1
    seconds: float = 0.0
    code: int = 500
    retry_after: int | None = None
    revisions: int = 1
    skip: int = 0
    """This many matching requests pass unharmed first."""

    def matches(self, verb: str, plural: str, namespace: str, name: str, *, dry_run: bool) -> bool:
        """Return whether the rule is about this request."""
        verbs = {"*", verb, "read" if verb in READS else "write"}
        return (
            self.verb in verbs
            and self.plural in {"*", plural}
            and self.name in {None, name}
            and self.namespace in {None, namespace}
            and self.dry_run in {None, dry_run}
            and not (self.action == "stale" and verb not in {"get", "list"})
        )


def parse_rules(document: Any) -> list[Rule]:
    """Return the rules in *document*, a list of objects; `ValueError` says what is wrong."""
    if not isinstance(document, list):
        raise ValueError("expected a list of rules")  # noqa: TRY004  # whatever is wrong with a document is one error
    known = set(Rule.__dataclass_fields__)
    rules = []
    for item in document:
        if not isinstance(item, dict) or not known >= set(item):
            raise ValueError(f"a rule is an object with some of {', '.join(sorted(known))}")
        if item.get("action") not in get_args(Action):
            raise ValueError(f"action is one of {', '.join(get_args(Action))}")
        rule = Rule(**item)
        if not 0 < rule.times <= MOST_TIMES:
            raise ValueError(f"times is from 1 to {MOST_TIMES}")
        rules.append(rule)
    return rules


class Misbehaviour:
    """This is the list of failures still to come. Thread safe; the first rule that matches is used up by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def add(self, rules: list[Rule]) -> None:
        """Append *rules*."""
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        """Forget every rule."""
        with self._lock:
            self._rules = []

    def left(self) -> list[Object]:
        """Return what is still to come."""
        with self._lock:
            return [{"action": rule.action, "verb": rule.verb, "times": rule.times} for rule in self._rules]

    def next_for(self, verb: str, plural: str, namespace: str, name: str, *, dry_run: bool = False) -> Rule | None:
        """Return the rule for this request and count it, or ``None``."""
        with self._lock:
            for rule in self._rules:
                if not rule.matches(verb, plural, namespace, name, dry_run=dry_run):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
                return rule
        return None
