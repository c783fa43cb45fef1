"""Times on the command line are written as everywhere else."""

from __future__ import annotations

import click
import pytest

from luff.cli.options import Duration

SOME = Duration(between=("500ms", "5m"))


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5s", 5.0), ("1m30s", 90.0), ("5m", 300.0)])
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert SOME.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5", "'5' is not a duration: write a number and a unit"),
        ("0s", "0s is not between 500ms and 5m"),
        ("499ms", "499ms is not between 500ms and 5m"),
        ("301s", "301s is not between 500ms and 5m"),
    ],
)
def test_what_is_none_or_out_of_bounds_is_said(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        SOME.convert(text, None, None)


def test_without_bounds_any_time_but_none_will_do() -> None:
    assert Duration().convert("1ms", None, None) == 0.001
    with pytest.raises(click.BadParameter, match="0s is no time at all"):
        Duration().convert("0s", None, None)
