"""What Prometheus is asked by everybody here, and the one number of its answer. Pure: who asks brings the wire."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["highest", "query_url", "without_credentials"]


def query_url(url: str) -> str:
    """Return where the Prometheus at *url* is asked; the query is the parameter ``query``."""
    return f"{url.rstrip('/')}/api/v1/query"


def without_credentials(url: str) -> str:
    """Return *url* as it may be shown: neither who asks, nor what may be a token in its query."""
    # By hand: a password with a slash in it makes it no URL, and is one all the same.
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else url.rpartition("@")[2]


def highest(answer: Any) -> float | None:
    """
    Return the highest value in an *answer* as JSON, ``None`` when the query selects nothing.

    Raises `ValueError`, `LookupError` or `TypeError` for what is no answer of Prometheus.
    """
    data = answer["data"]
    rows = [data["result"]] if data["resultType"] == "scalar" else [row["value"] for row in data["result"]]
    values = [float(row[1]) for row in rows]
    return max((value for value in values if not math.isnan(value)), default=None)
