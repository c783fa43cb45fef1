"""
The resolved experiment of an outcome, for people and for plots.

An outcome holds it as the document that `luff run` takes. Outcomes of before
that (without ``apiVersion``) hold numbers without their units; they are read too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any

from luff.outcome import Outcome
from luff.report.words import experiment_spec
from luff.units import parse_duration_s, write_duration, write_percent, write_rate
from luff.written import as_yaml

__all__ = ["latency_limits_ms", "spec_yaml"]

_WITH_UNIT: Mapping[str, Callable[[float], str]] = {
    **dict.fromkeys(("duration", "timeout", "warmup", "limit", "within", "for", "ttl"), write_duration),
    **dict.fromkeys(("percent", "confidence", "atLeast", "atMost", "by"), write_percent),
    "rate": write_rate,
}


def spec_yaml(outcome: Outcome) -> str:
    """Return the resolved experiment as YAML; empty when the outcome holds none."""
    if not outcome.spec:
        return ""
    document = outcome.spec if "apiVersion" in outcome.spec else _with_units(outcome.spec, "")
    return as_yaml(document)


def _with_units(value: Any, key: str) -> Any:
    """Return *value*, found under *key* in an older outcome, with its unit; parts that say nothing are left out."""
    if isinstance(value, dict):
        return {name: _with_units(part, name) for name, part in value.items() if part not in ({}, [])}
    if isinstance(value, list):
        return [_with_units(part, key) for part in value]
    spoken = isinstance(value, float) and isfinite(value) and key in _WITH_UNIT
    return _WITH_UNIT[key](value) if spoken else value


def latency_limits_ms(outcome: Outcome) -> dict[str, float]:
    """Return the limit of each latency expectation in milliseconds, by its id."""
    expectations = experiment_spec(outcome).get("expect")
    return {
        str(each["id"]): limit_s * 1000
        for each in (expectations if isinstance(expectations, list) else [])
        if isinstance(each, dict) and "id" in each
        for limit_s in _limits_s(each)
    }


def _limits_s(expectation: Mapping[str, Any]) -> Iterator[float]:
    if isinstance(older := expectation.get("limit"), int | float):
        yield older
    elif isinstance(claim := expectation.get("latency"), dict):
        for written in claim.values():
            try:
                yield parse_duration_s(written)
            except ValueError:
                continue
