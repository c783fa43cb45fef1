"""Failures on command: what an API server, its webhooks and its roles do on bad days, as often as a test asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from luff.model import Object

__all__ = ["Attempt", "Misbehaviour", "Rule", "parse_rules"]

Action = Literal[
    "delay", "status", "drop_reply", "apply_late", "duplicate", "hang", "close", "stale", "frozen",
    "mutate", "deny", "webhook_down", "forbid",
]  # fmt: skip
ADMISSION: frozenset[Action] = frozenset({"mutate", "deny", "webhook_down"})
"""What happens inside of a write, beside whatever else happens to the request."""
When = Literal["always", "present", "absent", "empty"]
READS = frozenset({"get", "list", "watch"})
REVIEWS = "selfsubjectaccessreviews"
"""With these one asks what one may do oneself, which nobody is forbidden and no webhook looks at."""
MOST_TIMES = 1_000_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    This is one request as RBAC would name it, empty where it names nothing.

    *user* is ``None`` for who comes with the lab's own token.
    """

    verb: str
    group: str
    plural: str
    namespace: str = ""
    name: str = ""
    dry_run: bool = False
    user: str | None = None


@dataclass(slots=True)
class Rule:
    """
    This is one way to fail, for the next *times* requests that match.

    - ``delay``: answer after *seconds*;
    - ``status``: answer *code* (with *retry_after*) and do nothing;
    - ``drop_reply``: do it, and close the connection without an answer;
    - ``apply_late``: close the connection now, do it after *seconds*;
    - ``duplicate``: do it twice, as a retry in between would, and answer what came of the second;
    - ``hang``: keep the connection open for *seconds* without an answer, then close it; do nothing;
    - ``close``: close the connection, do nothing;
    - ``stale``: answer a get or list as it was *revisions* changes ago;
    - ``frozen``: answer a get or list as it was when the rule was made, as a replica that has stopped would.

    What admission does, dry runs included; every such rule that matches counts:

    - ``mutate``: merge *change* into each http route whose name begins with *routes*, as a merge patch: a null takes
      a field away, and ``{name}`` in a new name is the old one;
    - ``deny``: refuse with *code* (403 unless given) and *message* what would result, *when* a route whose name begins
      with *routes* is ``present`` or ``absent`` in it, when there is no route at all (``empty``), or ``always``;
    - ``webhook_down``: refuse with 500, as a webhook does that fails closed and cannot be called.

    And who may do what: ``forbid`` refuses with 403 and is not used up.

    *verb* is get, list, watch, create, update, patch, delete, deletecollection,
    or one of ``*``, ``read``, ``write``; *plural* may be ``*``. *user* is a name
    that was given to a token; ``None`` is everybody.
    """

    action: Action
    verb: str = "*"
    plural: str = "*"
    name: str | None = None
    namespace: str | None = None
    dry_run: bool | None = None
    times: int = 1
    seconds: float = 0.0
    code: int | None = None
    retry_after: int | None = None
    revisions: int = 1
    skip: int = 0
    """This many matching requests pass unharmed first."""
    user: str | None = None
    routes: str = ""
    change: Object = field(default_factory=dict)
    when: When = "always"
    message: str = "not allowed here"
    revision: int | None = None
    """What a ``frozen`` rule shows; filled in when it is added."""

    def matches(self, attempt: Attempt) -> bool:
        """Return whether the rule is about this request."""
        return (
            self.verb in {"*", attempt.verb, "read" if attempt.verb in READS else "write"}
            and self.plural in {"*", attempt.plural}
            and self.name in {None, attempt.name}
            and self.namespace in {None, attempt.namespace}
            and self.dry_run in {None, attempt.dry_run}
            and self.user in {None, attempt.user}
            and self._may_fail(attempt)
        )

    def _may_fail(self, attempt: Attempt) -> bool:
        """Return whether such a request can fail in this way at all."""
        if attempt.plural == REVIEWS and (self.action in ADMISSION or self.action == "forbid"):
            return False
        if self.action in {"stale", "frozen"}:
            return attempt.verb in {"get", "list"}
        if self.action in ADMISSION:
            # The webhooks of a cluster seldom look at deletions: who means them says so.
            return attempt.verb not in READS and ("delete" not in attempt.verb or self.verb == attempt.verb)
        return True


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
        if item.get("when", "always") not in get_args(When):
            raise ValueError(f"when is one of {', '.join(get_args(When))}")
        if not isinstance(item.get("change", {}), dict):
            raise ValueError("change is a merge patch of a route, an object")  # noqa: TRY004  # the same
        rule = Rule(**item)
        if not 0 < rule.times <= MOST_TIMES:
            raise ValueError(f"times is from 1 to {MOST_TIMES}")
        rules.append(rule)
    return rules


class Misbehaviour:
    """
    This is the list of failures still to come. Thread safe.

    *revision* tells the store's newest one.
    """

    def __init__(self, revision: Callable[[], int]) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._revision = revision

    def add(self, rules: list[Rule]) -> None:
        """Append *rules*."""
        for rule in rules:
            if rule.action == "frozen" and rule.revision is None:
                rule.revision = self._revision()
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

    def forbids(self, attempt: Attempt) -> bool:
        """Return whether its user may not do this."""
        with self._lock:
            return any(rule.action == "forbid" and rule.matches(attempt) for rule in self._rules)

    def next_for(self, attempt: Attempt) -> Rule | None:
        """Return the rule for this request and count it, or ``None``: the first that matches is used up by one."""
        with self._lock:
            for rule in list(self._rules):
                if rule.action in ADMISSION or rule.action == "forbid":
                    continue
                if rule.matches(attempt) and self._counts(rule):
                    return rule
        return None

    def admission_for(self, attempt: Attempt) -> list[Rule]:
        """Return every rule of admission for this request, in order, and count each."""
        with self._lock:
            return [
                rule
                for rule in list(self._rules)
                if rule.action in ADMISSION and rule.matches(attempt) and self._counts(rule)
            ]

    def _counts(self, rule: Rule) -> bool:
        if rule.skip > 0:
            rule.skip -= 1
            return False
        rule.times -= 1
        if rule.times <= 0:
            self._rules.remove(rule)
        return True
