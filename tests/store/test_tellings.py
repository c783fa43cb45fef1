"""Of several servers on one database, one tells, and once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from luff.store import Store
from luff.store.occurrences import New, Occurrences, Rule, State
from luff.store.tellings import Telling, Tellings

NOON = datetime(2027, 3, 2, 12, tzinfo=UTC)
WEEK_BEFORE = Telling("monthly", NOON, "before 604800")


def test_what_two_servers_want_to_tell_is_one_of_theirs(store: Store) -> None:
    one, other = Tellings.of(store), Tellings.of(store)

    assert one.claim([WEEK_BEFORE, Telling("monthly", NOON, "ended")], now=NOON) == {
        WEEK_BEFORE,
        Telling("monthly", NOON, "ended"),
    }
    assert other.claim([WEEK_BEFORE, Telling("other", NOON, "ended")], now=NOON) == {Telling("other", NOON, "ended")}
    assert one.claim([], now=NOON) == set()


def test_a_row_is_kept_for_longer_than_anything_is_announced_before(store: Store) -> None:
    tellings = Tellings.of(store)
    tellings.claim([WEEK_BEFORE], now=NOON)
    other = Telling("other", NOON, "ended")

    tellings.claim([other], now=NOON + timedelta(days=399))
    assert tellings.claim([WEEK_BEFORE], now=NOON) == set()
    tellings.claim([Telling("third", NOON, "ended")], now=NOON + timedelta(days=401))
    assert tellings.claim([WEEK_BEFORE], now=NOON) == {WEEK_BEFORE}


def test_what_was_not_held_is_found_until_it_is_told(store: Store) -> None:
    occurrences, tellings = Occurrences.of(store), Tellings.of(store)
    rule = Rule("0 12 * * *", "UTC")
    occurrences.sync({"daily": rule}, NOON - timedelta(days=3))
    days = [NOON - timedelta(days=2), NOON - timedelta(days=1), NOON]
    occurrences.settle(
        [
            New("a", "daily", days[0], days[0], "missed", "nobody was there"),
            New("b", "daily", days[1], days[1]),
            New("c", "daily", days[2], days[2]),
        ],
        who="one",
        now=NOON,
    )
    assert occurrences.begin("b", who="one", now=NOON, alone=True) is None
    assert occurrences.end("b", State.FAILED, who="one", now=NOON, said="it broke")
    assert occurrences.begin("c", who="one", now=NOON, alone=True) is None
    assert occurrences.end("c", State.PASSED, who="one", now=NOON)

    assert [each.id for each in tellings.bad_ends(NOON)] == ["a", "b"]
    assert tellings.bad_ends(NOON + timedelta(seconds=1)) == []
    tellings.claim([Telling("daily", days[0], "ended")], now=NOON)
    assert [each.id for each in tellings.bad_ends(NOON)] == ["b"]
