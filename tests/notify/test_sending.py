"""What is sent over a real socket, to a receiver that answers, refuses or hangs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from luff.model import Verdict
from luff.notify import Channel, Event, Limits, Notice, Notifier, Shape, Untold, of_outcome
from tests import factories
from tests.notify.conftest import Receiver, receiving

SECRET = "a secret of enough length"
QUICK = Limits(back_off_s=0.001, try_s=20.0)
IMPATIENT = replace(QUICK, try_s=1.0, tries_most=1)


def notice(number: int = 1, *, event: Event = Event.VERDICT, about: str = "cart") -> Notice:
    return Notice(f"id-{number}", event, datetime(2027, 1, 2, tzinfo=UTC), about, f"cart <b> failed, {number}")


def signed(url: str, name: str = "ops") -> Channel:
    return Channel(name, Shape.JSON, url, SECRET)


def told(
    *notices: Notice, channels: Callable[[Receiver], list[Channel]], limits: Limits = QUICK, **how: Any
) -> tuple[Receiver, list[Untold]]:
    """Tell *notices*, and return the receiver once everything has come to its end."""
    untold: list[Untold] = []

    async def whole() -> Receiver:
        async with receiving(**how) as receiver:
            notifier = Notifier(channels(receiver), untold=untold.append, limits=limits, link="https://luff.example")
            for each in notices:
                notifier.tell(each)
            await notifier.close(within_s=30)
            return receiver

    return asyncio.run(whole()), untold


def hmac_sha256(key: bytes, message: bytes) -> str:
    """Return RFC 2104's HMAC, written out, so that the one of luff is not checked with itself."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(each ^ 0x36 for each in padded) + message).digest()
    return hashlib.sha256(bytes(each ^ 0x5C for each in padded) + inner).hexdigest()


def test_a_webhook_is_signed_over_its_time_and_its_body() -> None:
    receiver, untold = told(notice(), channels=lambda it: [signed(it.url)])

    (got,) = receiver.got
    timestamp = got.headers["x-luff-timestamp"]
    expected = hmac_sha256(SECRET.encode(), timestamp.encode() + b"." + got.body)
    assert got.headers["x-luff-signature"] == f"v1={expected}"
    assert got.headers["x-luff-event"] == "verdict"
    assert got.headers["x-luff-delivery"] == "id-1"
    assert untold == []
    body = json.loads(got.body)
    assert (body["schema"], body["id"], body["text"]) == ("luff.dev/notice/v1", "id-1", "cart <b> failed, 1")


def test_a_slack_message_is_plain_text_and_carries_no_signature() -> None:
    receiver, _ = told(notice(), channels=lambda it: [Channel("slack", Shape.SLACK, it.url)])

    (got,) = receiver.got
    body = json.loads(got.body)
    assert body["text"] == "cart &lt;b&gt; failed, 1"
    assert body["blocks"][0]["text"] == {"type": "plain_text", "text": "cart <b> failed, 1", "emoji": False}
    assert "x-luff-signature" not in got.headers


def test_an_answer_of_500_is_tried_again_with_the_same_delivery() -> None:
    receiver, untold = told(notice(), answers=[500, 503], channels=lambda it: [signed(it.url)])

    assert [each.headers["x-luff-delivery"] for each in receiver.got] == ["id-1"] * 3
    assert untold == []


def test_tries_end_and_what_was_not_told_is_said_without_the_address() -> None:
    receiver, untold = told(
        notice(),
        answers=[500] * 100,
        limits=replace(QUICK, tries_most=3),
        channels=lambda it: [Channel("slack", Shape.SLACK, it.url)],
    )

    assert len(receiver.got) == 3
    (only,) = untold
    assert only.why == "it answered 500 (3 tries)"
    assert "t0ken" not in str(only) + repr(only)
    assert "slack (127.0.0.1)" in str(only)


@pytest.mark.parametrize("answer", [400, 403, 404, 410])
def test_a_refusal_is_not_tried_again(answer: int) -> None:
    receiver, untold = told(notice(), answers=[answer], channels=lambda it: [signed(it.url)])

    assert len(receiver.got) == 1
    assert untold[0].why == f"it answered {answer}"


def test_a_redirect_is_not_followed() -> None:
    async def whole() -> tuple[Receiver, list[Untold]]:
        untold: list[Untold] = []
        async with receiving() as elsewhere, receiving([307], headers=f"location: {elsewhere.url}\r\n") as receiver:
            notifier = Notifier([signed(receiver.url)], untold=untold.append, limits=QUICK)
            notifier.tell(notice())
            await notifier.close(within_s=30)
            return elsewhere, untold

    elsewhere, untold = asyncio.run(whole())

    assert elsewhere.got == []
    assert untold[0].why == "it answered 307, and redirects are not followed"


def test_who_hangs_is_given_up_and_keeps_nobody_else_waiting() -> None:
    async def whole() -> tuple[int, list[Untold]]:
        untold: list[Untold] = []
        async with receiving([0, 0]) as hangs, receiving() as answers:
            channels = [signed(hangs.url, "hangs"), signed(answers.url, "answers")]
            notifier = Notifier(channels, untold=untold.append, limits=IMPATIENT)
            notifier.tell(notice())
            await answers.heard.wait()
            await notifier.close(within_s=30)
            return len(answers.got), untold

    got, untold = asyncio.run(whole())

    assert got == 1
    assert [each.channel.name for each in untold] == ["hangs"]
    assert untold[0].why.startswith("no answer within")


def test_nobody_listening_is_said() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        _, untold = told(
            notice(), limits=replace(QUICK, tries_most=2), channels=lambda _: [signed(f"http://127.0.0.1:{port}/x")]
        )

    assert untold[0].why == "it cannot be reached (ConnectError) (2 tries)"


def test_who_asks_to_wait_longer_than_there_is_time_is_given_up() -> None:
    receiver, untold = told(
        notice(), answers=[429], headers="retry-after: 3600\r\n", channels=lambda it: [signed(it.url)]
    )

    assert len(receiver.got) == 1
    assert untold[0].why == "it answered 429"


def test_the_queue_has_an_end_and_keeps_what_is_urgent() -> None:
    async def whole() -> tuple[list[str], list[str]]:
        untold: list[Untold] = []
        async with receiving() as receiver:
            notifier = Notifier([signed(receiver.url)], untold=untold.append, limits=replace(QUICK, waiting_most=2))
            notifier.tell(notice(1))
            notifier.tell(notice(2))
            notifier.tell(notice(3))
            notifier.tell(notice(4, event=Event.STRANDED))
            await notifier.close(within_s=30)
            return [each.headers["x-luff-delivery"] for each in receiver.got], [each.notice.id for each in untold]

    got, untold = asyncio.run(whole())

    assert got == ["id-1", "id-4"]
    assert untold == ["id-3", "id-2"]


def test_what_cannot_be_told_before_the_end_is_said() -> None:
    async def whole() -> list[str]:
        untold: list[Untold] = []
        async with receiving([0]) as receiver:
            notifier = Notifier([signed(receiver.url)], untold=untold.append, limits=QUICK)
            notifier.tell(notice(1))
            notifier.tell(notice(2))
            await receiver.heard.wait()
            await notifier.close(within_s=0)
            notifier.tell(notice(3))
            return [f"{each.notice.id}: {each.why}" for each in untold]

    assert asyncio.run(whole()) == [
        "id-1: luff ended before it could be",
        "id-2: luff ended before it could be",
        "id-3: luff was ending",
    ]


def test_a_notice_after_the_queue_was_empty_is_told_as_well() -> None:
    async def whole() -> int:
        async with receiving() as receiver:
            notifier = Notifier([signed(receiver.url)], untold=lambda _: None, limits=QUICK)
            for number in range(3):
                receiver.heard.clear()
                notifier.tell(notice(number))
                await receiver.heard.wait()
            await notifier.close(within_s=30)
            return len(receiver.got)

    assert asyncio.run(whole()) == 3


def test_a_channel_hears_what_it_asked_for_and_what_is_announced_to_it() -> None:
    deaf = Channel("deaf", Shape.JSON, "http://127.0.0.1/", SECRET, frozenset({Event.STRANDED}), ("shop-*",))

    assert not deaf.wants(notice(about="shop-cart"))
    assert not deaf.wants(notice(event=Event.STRANDED, about="cart"))
    assert deaf.wants(notice(event=Event.STRANDED, about="shop-cart"))

    async def whole() -> list[str]:
        async with receiving() as receiver:
            channels = [replace(deaf, url=receiver.url), signed(receiver.url, "others")]
            notifier = Notifier(channels, untold=lambda _: None, limits=QUICK)
            notifier.tell(notice(), to=["deaf"])
            await notifier.close(within_s=30)
            return [each.headers["x-luff-event"] for each in receiver.got]

    assert asyncio.run(whole()) == ["verdict"]


AT = datetime(2027, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("made", "before", "events"),
    [
        (factories.passed, None, []),
        (factories.passed, Verdict.PASSED, []),
        (factories.passed, Verdict.FAILED, [Event.VERDICT]),
        (factories.failed, None, [Event.VERDICT]),
        (factories.failed, Verdict.PASSED, [Event.VERDICT]),
        (factories.failed, Verdict.FAILED, []),
        (factories.inconclusive, Verdict.PASSED, [Event.VERDICT]),
    ],
)
def test_only_a_change_of_state_is_news(made: Callable[[], Any], before: Verdict | None, events: list[Event]) -> None:
    assert [each.event for each in of_outcome(made(), before, at=AT)] == events


def test_a_route_that_may_still_be_broken_is_news_every_time() -> None:
    outcome = factories.stranded()

    found = of_outcome(outcome, outcome.verdict, at=AT)

    assert [each.event for each in found] == [Event.STRANDED]
    assert f"luff restore {outcome.run} -n bookinfo --context prod" in found[0].text


def test_proxies_that_still_run_a_fault_are_news_every_time() -> None:
    outcome = factories.stale()

    found = of_outcome(outcome, outcome.verdict, at=AT)

    assert [each.event for each in found] == [Event.STRANDED]
    assert "istioctl proxy-status" in found[0].text
    assert "luff restore" not in found[0].text, "in the object there is nothing left to restore"


def test_a_notice_is_one_line_whatever_a_service_said() -> None:
    outcome = factories.failed(explanation="it said\n\x1b[31mred\r\n" + "x" * 5000)

    (found,) = of_outcome(outcome, Verdict.PASSED, at=AT)

    assert "\n" not in found.text
    assert "\x1b" not in found.text
    assert len(found.text) <= 2000
