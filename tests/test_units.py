"""Durations, rates and shares: written and read back, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff import units

LAW = settings(max_examples=300)

DURATIONS = [
    ("250ms", 0.25),
    ("3s", 3.0),
    ("2800ms", 2.8),
    ("2.8s", 2.8),
    ("0.1s", 0.1),
    ("1m30s", 90.0),
    ("5m", 300.0),
    ("1.5h", 5400.0),
    ("7d", 604800.0),
    ("1h1m1s1ms", 3661.001),
    ("0s", 0.0),
    (" 3s ", 3.0),
    ("3653d", 3653 * 86400.0),
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration_s(text) == seconds


NO_DURATIONS: list[tuple[Any, str]] = [
    (3, "such as 3s"),
    ("3", "such as 3s"),
    (2.5, "such as 2.5s"),
    (True, "such as 3s"),
    (None, "such as 3s"),
    (math.nan, "such as 3s"),
    (math.inf, "such as 3s"),
    (-3, "such as 3s"),
    ("", "is not a duration"),
    ("-3s", "is not a duration"),
    ("+3s", "is not a duration"),
    ("3 s", "is not a duration"),
    (".5s", "is not a duration"),
    ("3.s", "is not a duration"),
    ("1e3s", "is not a duration"),
    ("3S", "is not a duration"),
    ("3us", "is not a duration"),
    ("nans", "is not a duration"),
    ("٣s", "is not a duration"),
    ("3s\n4s", "is not a duration"),
    ("1" * 41 + "s", "…"),
    (["3s"], "is not a duration"),
    ("9999999h", "less than ten years"),
    ("1" * 38 + "d", "less than ten years"),
]


@pytest.mark.parametrize(("value", "says"), NO_DURATIONS)
def test_what_is_no_duration_is_refused_with_what_would_do(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is too long") as caught:
        units.parse_duration_s(value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 200


PERCENTS = [("1%", 1.0), ("1", 1.0), (1, 1.0), (0.5, 0.5), ("99.9 %", 99.9), ("0", 0.0), (100, 100.0), ("100%", 100.0)]


@pytest.mark.parametrize(("value", "percent"), PERCENTS)
def test_percentages(value: Any, percent: float) -> None:
    assert units.parse_percent(value) == percent


@pytest.mark.parametrize(
    "value",
    ["", "%", "101%", 101, -1, "-1%", "1e1", "1%%", math.nan, math.inf, -math.inf, True, None, [], "1 2", "0" * 41, 1e-50, -0.0],
)  # fmt: skip
def test_what_is_no_percentage_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a percentage: write 0 to 100, such as 1%"):
        units.parse_percent(value)


RATES = [("20/s", 20.0), ("600/m", 10.0), ("36000/h", 10.0), ("0.5/s", 0.5), ("1/h", 1 / 3600), ("50000/s", 5e4)]


@pytest.mark.parametrize(("text", "rate_hz"), RATES)
def test_rates(text: str, rate_hz: float) -> None:
    assert units.parse_rate_hz(text) == rate_hz


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (20, "such as 20/s"),
        ("50", "such as 50/s"),
        ("0/s", "is not a rate"),
        ("0.0/m", "is not a rate"),
        ("-1/s", "is not a rate"),
        ("20/d", "is not a rate"),
        ("20 /s", "is not a rate"),
        (None, "is not a rate"),
        (math.nan, "is not a rate"),
        ("50001/s", "at most 50000/s"),
        ("0.0001/h", "is too slow"),
    ],
)
def test_what_is_no_rate_is_refused(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"is not a rate|is too (fast|slow)") as caught:
        units.parse_rate_hz(value)
    assert says in str(caught.value)


_NUMBER = st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,12})?", fullmatch=True, alphabet="0123456789.")
_DURATION = st.lists(st.tuples(_NUMBER, st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1, max_size=3).map(
    lambda parts: "".join(number + unit for number, unit in parts)
)
_TINY = st.integers(1, 10**6).flatmap(
    lambda digits: st.integers(7, 30).map(lambda zeros: f"0.{'0' * (zeros - 6)}{digits}")
)


def _round_trip(parse: Callable[[object], float], write: Callable[[float], str], text: object, most: float) -> None:
    try:
        value = parse(text)
    except ValueError:
        return
    assert math.isfinite(value)
    assert 0 <= value <= most
    assert parse(write(value)) == value


@LAW
@given(text=_DURATION)
def test_durations_are_read_back_to_the_last_bit(text: str) -> None:
    _round_trip(units.parse_duration_s, units.write_duration, text, units.DURATION_MOST_S)


@LAW
@given(number=_TINY, unit=st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_so_are_the_shortest(number: str, unit: str) -> None:
    _round_trip(units.parse_duration_s, units.write_duration, number + unit, units.DURATION_MOST_S)


@LAW
@given(seconds=st.floats(1e-6, units.DURATION_MOST_S))
def test_any_sensible_number_of_seconds_can_be_written(seconds: float) -> None:
    assert units.parse_duration_s(units.write_duration(seconds)) == seconds


@LAW
@given(value=st.one_of(_NUMBER, _TINY, st.floats(0, 100), st.integers(0, 100)))
def test_percentages_are_read_back_to_the_last_bit(value: object) -> None:
    _round_trip(units.parse_percent, units.write_percent, value, 100.0)


@LAW
@given(number=st.one_of(_NUMBER, _TINY), unit=st.sampled_from("smh"))
def test_rates_are_read_back_to_the_last_bit(number: str, unit: str) -> None:
    _round_trip(units.parse_rate_hz, units.write_rate, f"{number}/{unit}", units.RATE_MOST_HZ)


@settings(max_examples=200)
@given(value=st.one_of(st.text(max_size=60), st.floats(), st.integers(), st.none(), st.lists(st.integers())))
def test_anything_else_is_a_sentence(value: object) -> None:
    for parse in (units.parse_duration_s, units.parse_percent, units.parse_rate_hz):
        try:
            said = str(parse(value))
        except ValueError as error:
            said = str(error)
        assert "write" in said or math.isfinite(float(said))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.0, "5s"), (2.8, "2800ms"), (0.25, "250ms"), (0.0125, "12.5ms"), (0.0000125, "0.0125ms"), (90.0, "90s"), (0.0, "0s"), (1.0005, "1.0005s")],
)  # fmt: skip
def test_durations_are_written(seconds: float, text: str) -> None:
    assert units.write_duration(seconds) == text


@pytest.mark.parametrize(
    ("rate_hz", "text"), [(20.0, "20/s"), (0.5, "30/m"), (1 / 60, "1/m"), (2.5, "2.5/s"), (1.0, "1/s")]
)
def test_rates_are_written(rate_hz: float, text: str) -> None:
    assert units.write_rate(rate_hz) == text


@pytest.mark.parametrize(("seconds", "text"), [(5.0, "5s"), (0.25, "0.250s"), (2.8, "2.800s"), (0.0, "0s")])
def test_istio_is_told_in_milliseconds(seconds: float, text: str) -> None:
    assert units.istio_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (3.0, "3 s"),
        (1.254, "1.25 s"),
        (33.33, "33.3 s"),
        (125.4, "2m05s"),
        (7325.0, "2h02m"),
        (-2.0, "-2 s"),
        (0.0, "0 ms"),
    ],
)
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert units.show_duration(seconds) == text


@pytest.mark.parametrize(
    ("rate_hz", "rounded_hz"), [(1234.0, 1200.0), (99.9, 99.0), (7.3, 7.0), (0.51, 0.5), (0.01, 0.0)]
)
def test_a_rate_is_rounded_down_to_what_people_write(rate_hz: float, rounded_hz: float) -> None:
    assert units.round_rate_down_hz(rate_hz) == rounded_hz


def test_other_numbers_are_shown() -> None:
    assert [units.show_percent(share) for share in (100.0, 99.8, 0.5, 33.3333)] == ["100 %", "99.8 %", "0.5 %", "33.33 %"]  # fmt: skip
    assert [units.show_rate(rate) for rate in (20.0, 0.5, 1.5)] == ["20/s", "30/m", "1.5/s"]
    assert [units.show_count(count) for count in (7, 1200, 1234567)] == ["7", "1 200", "1 234 567"]
