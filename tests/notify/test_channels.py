"""The operator's file of whom to tell, and everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from luff.errors import InvalidFile
from luff.notify import Event, Shape, parse_channels, read_channels

GOOD = """\
apiVersion: luff.dev/v1alpha1
kind: Notify
spec:
  link: https://luff.example/
  channels:
    ops: {shape: json, url: https://ops.example/luff, secret: {fromEnv: LUFF_SECRET_OPS}}
    slack-shop: {shape: slack, url: {fromEnv: LUFF_SECRET_SLACK}, events: [stranded], about: [cart-*]}
"""
ENVIRONMENT = {"LUFF_SECRET_OPS": "0123456789abcdef", "LUFF_SECRET_SLACK": "https://hooks.slack.com/services/T/B/xyz"}


def test_channels_are_read_with_their_secrets_from_the_environment() -> None:
    found = parse_channels("notify.yaml", GOOD, environment=ENVIRONMENT)

    assert found.link == "https://luff.example"
    ops, slack = found.by_name["ops"], found.by_name["slack-shop"]
    assert (ops.shape, ops.secret, ops.events) == (Shape.JSON, "0123456789abcdef", frozenset(Event))
    assert (slack.url, slack.events, slack.about) == (
        ENVIRONMENT["LUFF_SECRET_SLACK"], frozenset({Event.STRANDED}), ("cart-*",),
    )  # fmt: skip


def test_a_channel_shows_no_secret() -> None:
    found = parse_channels("notify.yaml", GOOD, environment=ENVIRONMENT)

    shown = repr(found) + "".join(each.shown for each in found.by_name.values())

    assert "0123456789abcdef" not in shown
    assert "xyz" not in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Notify\nspec: {channels: {}}", "2:18: there are 0 channels"),
        ("kind: Notify\nspec: {channels: {a: {shape: json, url: 'https://x/'}}}", "what is sent as json is signed"),
        ("kind: Notify\nspec: {channels: {a: {shape: fax, url: 'https://x/'}}}", "'fax' is not known here"),
        ("kind: Notify\nspec: {channels: {a: {shape: slack, url: 'http://hooks/T'}}}", "http would show it"),
        ("kind: Notify\nspec: {channels: {a: {shape: slack, url: 'ftp://x/T'}}}", "this is no address"),
        ("kind: Notify\nspec: {channels: {a: {shape: slack, url: 'https://me:pw@x/T'}}}", "a user in it"),
        ("kind: Notify\nspec: {channels: {A_b: {shape: slack, url: 'https://x/T'}}}", "'A_b' is no name"),
        ("kind: Notify\nspec: {channels: {a: {shape: slack, url: 'https://x/T', tell: all}}}", "no field 'tell'"),
        ("kind: Notify\nspec: {channels: {a: {shape: slack, url: {fromEnv: HOME}}}}", "'HOME' is no variable"),
        (
            "kind: Notify\nspec: {channels: {a: {shape: json, url: 'https://x', secret: {fromEnv: LUFF_SECRET_NONE}}}}",
            "LUFF_SECRET_NONE is not set",
        ),
        (
            "kind: Notify\nspec: {channels: {a: {shape: json, url: 'https://x', secret: {fromEnv: LUFF_SECRET_SHORT}}}}",
            "shorter than 16",
        ),
        ("kind: Experiment\nspec: {channels: {a: {shape: slack, url: 'https://x/T'}}}", "`kind: Notify`"),
        ("- 1", "a mapping belongs here"),
        ("", "there are 0 documents"),
        ("kind: Notify\nspec: {channels: [a]}", "a mapping"),
        ("kind: Notify\nspec: {link: 'javascript:1', channels: {a: {shape: slack, url: 'https://x/T'}}}", "no address"),
        ("kind: Notify\nspec: {channels: {a: {shape: slack, url: 'https://x/T', events: [all]}}}", "'all' is not known"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_channels("notify.yaml", text, environment={"LUFF_SECRET_SHORT": "short"})

    assert said in str(caught.value)
    assert str(caught.value).startswith("notify.yaml:")


def test_a_mistake_in_an_address_does_not_show_it() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_channels(
            "n.yaml",
            "kind: Notify\nspec: {channels: {a: {shape: slack, url: {fromEnv: LUFF_SECRET_S}}}}",
            environment={"LUFF_SECRET_S": "hooks.slack.com/services/T/B/xyz"},
        )

    assert "xyz" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="cannot be read: No such file"):
        read_channels(tmp_path / "nothing.yaml")
