"""One write to the lab's API: how it is made, on what condition, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from luff.lab.admission import Admission
from luff.model import Object

__all__ = ["Change", "Preconditions", "Write"]


@dataclass(frozen=True, slots=True)
class Change:
    """This is one committed change. *old* is ``None`` for ADDED; *new* is the last state for DELETED."""

    revision: int
    type: str
    kept_in: tuple[str, str]
    key: tuple[str, str]
    old: Object | None
    new: Object


@dataclass(slots=True)
class Write:
    """
    This is how a write is made: by whom, in which version, for real or not.

    The write fills *warnings*, and *created* when nothing was there before;
    *admission* is what webhooks other than istiod's do to it.
    """

    manager: str = "luff-lab"
    version: str | None = None
    dry_run: bool = False
    subresource: str | None = None
    warnings: list[str] = field(default_factory=list)
    created: bool = False
    admission: Admission = field(default_factory=Admission)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """This is what must still be so for a delete to happen."""

    uid: str | None = None
    resource_version: str | None = None
