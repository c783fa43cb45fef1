"""What Prometheus is told of runs that ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from luff.exit_codes import is_unrestored
from luff.metrics import Metrics
from luff.outcome import Outcome
from tests.factories import EVERY_VERDICT, stale


@pytest.mark.parametrize("made", [*EVERY_VERDICT, stale])
def test_a_restore_that_ends_a_command_with_7_is_counted_as_failed(made: Callable[..., Outcome]) -> None:
    metrics = Metrics()

    metrics.ended(made())

    assert f"luff_restore_failures_total {float(is_unrestored(made()))}" in metrics.text().decode()
