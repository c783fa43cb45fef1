"""
Durations, rates and shares as people write them, and back.

Conversion happens here and nowhere else: inside luff a duration is a float of
seconds (``_s``), a rate a float per second (``_hz``), a share a float between
0 and 1 (``_ratio``) or, where Istio wants it so, a percentage (``percent``).
Each parser raises `ValueError` with a sentence that says what would do. Laws:

1. ``parse_duration_s(write_duration(x)) == x`` for every duration that can be
   parsed, to the last bit; the same for percentages and rates.
2. What comes out of a parser is finite and within its named bounds.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

__all__ = [
    "DURATION_MOST_S",
    "RATE_MOST_HZ",
    "TTL_MOST_S",
    "istio_duration",
    "parse_duration_s",
    "parse_percent",
    "parse_rate_hz",
    "round_rate_down_hz",
    "show_count",
    "show_duration",
    "show_percent",
    "show_rate",
    "write_duration",
    "write_percent",
    "write_rate",
]

DURATION_MOST_S = 10 * 366 * 86400.0
"""Longer than anything here can last."""
TTL_MOST_S = 3600.0
"""The most that a twin may live. A reaper takes out what is older, whatever its name says, so nobody may ask for more."""
RATE_MOST_HZ = 50_000.0
"""More than one machine sends; whether this one sends as much as is asked is found out before a run."""
RATE_LEAST_HZ = 1e-6
"""One in eleven days: with fewer there is nothing to measure."""

# Exact, so that 2800ms and 2.8s are the same number.
_UNIT_S = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
_DIGITS_MOST = 40
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/(s|m|h)")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%?")


def parse_duration_s(text: object) -> float:
    """Return the seconds in ``250ms``, ``3s``, ``1m30s``, ``2h``, ``7d``. A bare number has no unit and is refused."""
    short = text.strip() if isinstance(text, str) and len(text) <= _DIGITS_MOST else ""
    if not _DURATION.fullmatch(short):
        raise ValueError(
            f"{_quoted(text)} is not a duration: write a number and a unit (ms, s, m, h, d), such as {_example(text, 's', '3s')}"
        )
    seconds = float(sum(Fraction(number) * _UNIT_S[unit] for number, unit in _PART.findall(short)))
    if seconds > DURATION_MOST_S:
        raise ValueError(f"{_quoted(text)} is too long: write less than ten years")
    return seconds


def parse_percent(value: object) -> float:
    """Return the percentage, 0 to 100, in ``1%``, ``"1"``, ``1`` or ``0.5``."""
    written = _exact(value) if isinstance(value, float) else str(value)
    match = _PERCENT.fullmatch(written.strip())
    if match is None or len(match[1]) > _DIGITS_MOST or not 0 <= float(match[1]) <= 100:
        raise ValueError(f"{_quoted(value)} is not a percentage: write 0 to 100, such as 1%")
    return float(match[1])


def parse_rate_hz(text: object) -> float:
    """Return the requests per second in ``20/s``, ``600/m``, ``36000/h``; more than zero."""
    short = text.strip() if isinstance(text, str) and len(text) <= _DIGITS_MOST else ""
    match = _RATE.fullmatch(short)
    if match is None or float(match[1]) <= 0:
        raise ValueError(
            f"{_quoted(text)} is not a rate: write requests per s, m or h, such as {_example(text, '/s', '20/s')}"
        )
    rate_hz = float(Fraction(match[1]) / _UNIT_S[match[2]])
    if rate_hz < RATE_LEAST_HZ:
        raise ValueError(f"{_quoted(text)} is too slow: write more, such as 1/h")
    if rate_hz > RATE_MOST_HZ:
        raise ValueError(f"{_quoted(text)} is too fast: write at most {RATE_MOST_HZ:.0f}/s")
    return rate_hz


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _DIGITS_MOST + 2 else f"{text[:_DIGITS_MOST]}…"


def _example(value: object, unit: str, otherwise: str) -> str:
    """Return what the writer of *value* probably meant, when that was a bare positive number."""
    bare = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < DURATION_MOST_S
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        bare = True
    return f"{value}{unit}" if bare else otherwise


def write_duration(seconds: float) -> str:
    """Return *seconds* as `parse_duration_s` reads them, exactly: ``5s``, ``2800ms``, ``0.0125ms``."""
    if seconds == int(seconds):
        return f"{int(seconds)}s"
    milliseconds = Decimal(repr(seconds)) * 1000
    # What is not whole is shorter in milliseconds below a second, and in seconds above.
    if milliseconds == int(milliseconds):
        return f"{int(milliseconds)}ms"
    return f"{milliseconds.normalize():f}ms" if seconds < 1 else f"{_exact(seconds)}s"


def write_percent(percent: float) -> str:
    """Return *percent* as `parse_percent` reads it, exactly: ``99%``, ``0.5%``."""
    return f"{_exact(percent)}%"


def write_rate(rate_hz: float) -> str:
    """Return *rate_hz* as `parse_rate_hz` reads it, exactly: ``20/s``, ``30/m`` below one a second."""
    by_minute = Fraction(_exact(rate_hz)) * 60
    if rate_hz < 1 and float(Fraction(_exact(float(by_minute))) / 60) == rate_hz and len(_exact(float(by_minute))) < 8:
        return f"{_exact(float(by_minute))}/m"
    return f"{_exact(rate_hz)}/s"


def _exact(number: float) -> str:
    """Return the shortest decimal that reads back as *number*, without an exponent."""
    text = f"{Decimal(repr(number)):f}"
    return text.removesuffix(".0")


def istio_duration(seconds: float) -> str:
    """Return *seconds* as Istio writes them, in whole milliseconds: ``5s``, ``0.250s``."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds / 1000:.3f}s"


def show_duration(seconds: float) -> str:
    """Return *seconds* as a person would write them: ``250 ms``, ``3 s``, ``1.25 s``, ``2m05s``."""
    if seconds < 0:
        return "-" + show_duration(-seconds)
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{round(seconds, 2 if seconds < 10 else 1):g} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def show_percent(percent: float) -> str:
    """Return *percent* (0 to 100) with no more digits than it needs: ``99.8 %``, ``100 %``."""
    return f"{round(percent, 2):g} %"


def show_rate(rate_hz: float) -> str:
    """Return *rate_hz* as it would be written in an experiment: ``20/s``, or ``30/m`` below one a second."""
    return f"{round(rate_hz, 2):g}/s" if rate_hz >= 1 else f"{round(rate_hz * 60, 2):g}/m"


def round_rate_down_hz(rate_hz: float) -> float:
    """Return *rate_hz*, never more than it is, as people write one: two digits, whole from 1/s on, else whole per minute."""
    if rate_hz < 1:
        return math.floor(rate_hz * 60) / 60
    step_hz = 10.0 ** max(0, math.floor(math.log10(rate_hz)) - 1)
    return math.floor(rate_hz / step_hz) * step_hz


def show_count(number: int) -> str:
    """Return *number* with thin groups: ``1 200``."""
    return f"{number:,}".replace(",", " ")
