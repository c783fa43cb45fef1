"""Which run is meant: never all of them by mistake."""

from __future__ import annotations

import click
import pytest

from luff.cli.restore import restore
from luff.cli.stop import stop
from luff.errors import UsageError


@pytest.mark.parametrize("command", [restore, stop])
@pytest.mark.parametrize("run", ["", " ", "0", "abc", "*", "0123456789ABCDEF", "0123456789abcdef0"])
def test_what_is_no_run_id_means_nobody(command: click.Command, run: str) -> None:
    with pytest.raises(UsageError, match="is no run id"):
        command.main([run, "--kubeconfig", "/nowhere"], standalone_mode=False)
