"""
Telling people elsewhere what has changed: signed webhooks, and messages as Slack takes them.

What must stay true:

1. Whom to tell comes from the operator alone (`read_channels`), never from an experiment, a request or their folder.
2. Telling is in nobody's way: it never raises, never waits where something is to be told, and what could not be told
   changes no verdict. Queue, tries, each try and all of them together have a bound.
3. A secret, and an address that is one, is in no message, log or error.
"""

from __future__ import annotations

from luff.notify.channels import Channel, Channels, Shape, parse_channels, read_channels
from luff.notify.notices import Ahead, Event, NotHeld, Notice, game_day_ahead, occurrences_not_held, of_outcome
from luff.notify.sending import Limits, Notifier, Untold
from luff.notify.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature

__all__ = [
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "Ahead",
    "Channel",
    "Channels",
    "Event",
    "Limits",
    "NotHeld",
    "Notice",
    "Notifier",
    "Shape",
    "Untold",
    "game_day_ahead",
    "occurrences_not_held",
    "of_outcome",
    "parse_channels",
    "read_channels",
    "signature",
]
