"""
Durations, rates and shares as people write them, and back.

Conversion happens here and nowhere else: inside luff a duration is a float of
seconds (``_s``), a rate a float per second (``_hz``), a share a float between
0 and 1 (``_ratio``) or, where Istio wants it so, a percentage (``percent``).
Each parser raises `ValueError` with a sentence that says what would do.
"""

from __future__ import annotations

import re

__all__ = [
    "istio_duration",
    "parse_duration_s",
    "parse_percent",
    "parse_rate_hz",
    "show_count",
    "show_duration",
    "show_percent",
    "show_rate",
]

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/(s|m|h)")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%?")


def parse_duration_s(text: object) -> float:
    """Return the seconds in ``250ms``, ``3s``, ``1m30s``, ``2h``, ``7d``. A bare number has no unit and is refused."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text.strip()):
        example = f"{text}s" if isinstance(text, int | float) and not isinstance(text, bool) else "3s"
        raise ValueError(f"{text!r} is not a duration: write a number and a unit (ms, s, m, h, d), such as {example}")
    return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text.strip()))


def parse_percent(value: object) -> float:
    """Return the percentage, 0 to 100, in ``1%``, ``"1"``, ``1`` or ``0.5``."""
    match = _PERCENT.fullmatch(str(value).strip())
    if match is None or not 0 <= float(match[1]) <= 100:
        raise ValueError(f"{value!r} is not a percentage: write 0 to 100, such as 1%")
    return float(match[1])


def parse_rate_hz(text: object) -> float:
    """Return the requests per second in ``20/s``, ``600/m``, ``36000/h``; more than zero."""
    match = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or float(match[1]) <= 0:
        example = f"{text}/s" if isinstance(text, int | float) and not isinstance(text, bool) else "20/s"
        raise ValueError(f"{text!r} is not a rate: write requests per s, m or h, such as {example}")
    return float(match[1]) / _UNIT_S[match[2]]


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


def show_count(number: int) -> str:
    """Return *number* with thin groups: ``1 200``."""
    return f"{number:,}".replace(",", " ")
