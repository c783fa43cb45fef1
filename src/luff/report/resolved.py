"""
The resolved experiment as YAML for people: every default written out, every number with its unit.
"""

from __future__ import annotations

from typing import Any

import yaml

from luff.outcome import Outcome
from luff.units import show_rate

__all__ = ["latency_limits_ms", "spec_yaml"]

_DURATIONS = frozenset({"duration", "timeout", "warmup", "limit", "within", "for", "ttl"})
_PERCENTAGES = frozenset({"percent", "confidence", "atLeast", "atMost", "by"})
_WIDTH = 110


def spec_yaml(outcome: Outcome) -> str:
    """Return the resolved experiment as YAML; empty when the outcome holds none."""
    if not outcome.spec:
        return ""
    text = yaml.safe_dump(_spoken(outcome.spec, ""), sort_keys=False, allow_unicode=True, width=_WIDTH)
    return str(text)


def _spoken(value: Any, key: str) -> Any:
    """Return *value*, found under *key*, with its unit; parts that say nothing are left out."""
    if isinstance(value, dict):
        return {name: _spoken(part, name) for name, part in value.items() if part not in ({}, [])}
    if isinstance(value, list):
        return [_spoken(part, key) for part in value]
    if not isinstance(value, float):
        return value
    if key in _DURATIONS:
        return f"{value * 1000:.6g}ms" if 0 < value < 1 else f"{value:.6g}s"
    if key in _PERCENTAGES:
        return f"{value:.6g}%"
    return show_rate(value) if key == "rate" else float(f"{value:.12g}")


def latency_limits_ms(outcome: Outcome) -> dict[str, float]:
    """Return the limit of each latency expectation in milliseconds, by its id."""
    spec = outcome.spec.get("spec", outcome.spec)
    expectations = spec.get("expect") if isinstance(spec, dict) else None
    return {
        str(each["id"]): each["limit"] * 1000
        for each in (expectations if isinstance(expectations, list) else [])
        if isinstance(each, dict) and "id" in each and isinstance(each.get("limit"), int | float)
    }
