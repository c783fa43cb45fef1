"""
Everything luff raises on purpose, in one place.

Each class says what it means *for the routes*, and carries the exit code of
the command that ends with it::

    LuffError                      exit 5   nothing left behind
    ├── UsageError                 exit 2   nothing was touched
    │   └── InvalidFile            exit 2   nothing was touched; carries every problem
    ├── NothingSelected            exit 6   nothing was touched
    ├── PlanRefused                exit 5   nothing was touched; carries the rule
    ├── MeshError                  exit 5   see the subclass
    │   ├── MeshUnreachable                 no answer: a write may or may not have been applied
    │   ├── MeshDenied                      401 or 403: the write was not applied
    │   ├── NotFound                        the object is gone: nothing of ours is in it
    │   ├── Conflict                        somebody else wrote first: the write was not applied
    │   ├── Rejected                        the server or a webhook refused: not applied
    │   └── MeshBusy                        429 or 5xx: a write may or may not have been applied
    ├── LockHeld                   exit 5   nothing was touched: another run has the target
    ├── NoGuard                    exit 5   nothing was touched: nobody could have cleaned up
    ├── StoreError                 exit 5   restoring never needs the store
    │   └── OutcomeRefused                  nothing was kept: see the class
    ├── LabError                   exit 5   a lab's routes are nobody's production
    ├── InternalError              exit 5   a mistake of luff's own: the run's phase says where its routes are
    ├── RunAborted                 exit 4   stopped from outside; routes restored
    └── RestoreNotVerified         exit 7   a fault may still be live
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "Conflict",
    "InternalError",
    "InvalidFile",
    "LabError",
    "LockHeld",
    "LuffError",
    "MeshBusy",
    "MeshDenied",
    "MeshError",
    "MeshUnreachable",
    "NoGuard",
    "NotFound",
    "NothingSelected",
    "OutcomeRefused",
    "PlanRefused",
    "Problem",
    "Rejected",
    "RestoreNotVerified",
    "RunAborted",
    "StoreError",
    "UsageError",
]


class LuffError(Exception):
    """
    This is the base of every error that luff raises on purpose.

    *message* says what and where; *next_step* what the reader should do, as a
    sentence or a command, or ``None`` when the message says it already.
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return self.message if self.next_step is None else f"{self.message}; {self.next_step}"


class UsageError(LuffError):
    """This is a command line that cannot mean anything. Nothing was touched."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """This is one thing wrong in one file. *line* and *column* count from 1."""

    file: str
    line: int
    column: int
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = "" if self.suggestion is None else f" ({self.suggestion})"
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class InvalidFile(UsageError):
    """This is one or more documents that are not valid. Nothing was touched; *problems* has all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class NothingSelected(LuffError):
    """This is a selection that left no experiment to run. Nothing was touched."""

    exit_code = 6


class PlanRefused(LuffError):
    """
    This is a plan that luff will not make. Nothing was touched.

    *rule* is a stable word in snake_case; an outcome's reason is
    ``plan_refused:RULE``.
    """

    def __init__(self, rule: str, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.rule = rule


class MeshError(LuffError):
    """This is an API server that could not be used as asked."""


class MeshUnreachable(MeshError):
    """This is no answer at all. A write may have been applied, or may yet be."""


class MeshBusy(MeshError):
    """
    This is 429 or 5xx. A write may have been applied.

    *retry_after_s* is what the server asked for, or ``None``.
    """

    def __init__(self, message: str, *, next_step: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.retry_after_s = retry_after_s


class MeshDenied(MeshError):
    """This is 401 or 403. The write was not applied."""


class NotFound(MeshError):
    """This is an object that is not there, so nothing of ours is in it."""


class Conflict(MeshError):
    """This is a write that came second, or a failed ``test``. It was not applied."""


class Rejected(MeshError):
    """This is a write that the server's schema or a webhook refused. It was not applied."""


class LockHeld(LuffError):
    """This is a target that another run holds. Nothing was touched."""


class NoGuard(LuffError):
    """This is a run without anybody who could clean up after it. Nothing was touched."""


class StoreError(LuffError):
    """This is a database that cannot be used. Restoring never needs it."""


class OutcomeRefused(StoreError):
    """This is an outcome of a run that has another already, or whose routes are not known to be back. Nothing was kept."""


class LabError(LuffError):
    """This is a lab that could not be started, found or stopped."""


class InternalError(LuffError):
    """This is a mistake of luff's own inside a run. It says nothing about the routes: the run's phase does."""


class RunAborted(LuffError):
    """
    This is a run that was stopped from outside. Its routes are restored.

    *reason* is one of ``operator``, ``lever``, ``tripwire``, ``bound``.
    """

    exit_code = 4

    def __init__(self, reason: str, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.reason = reason


class RestoreNotVerified(LuffError):
    """This is a fault that may still be live. It beats every other error; *next_step* is the command to run."""

    exit_code = 7
