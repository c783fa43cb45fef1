"""What is said while an API server says nothing: nobody should look at an empty screen while a fault may be live."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

import click

from luff.mesh.kubernetes import Connection, kubectl

__all__ = ["tell_silence"]


def tell_silence(
    connection: Connection, *, patience_s: float | None, restoring_s: float | None = None
) -> Callable[[str], None]:
    """
    Return what `KubernetesMesh.connect` calls about a server that does not answer.

    It says on stderr for how long the server is asked, *patience_s* (``None``:
    for ever), with *restoring_s* also how long where routes are to be put back,
    and the way without luff. Who reads it may have left.
    """
    command = kubectl(connection)

    def tell(server: str) -> None:
        until = "asking until it answers" if patience_s is None else f"asking until {_at(patience_s)} at the latest"
        restoring = "" if restoring_s is None else f", and for a restore until {_at(restoring_s)}"
        with contextlib.suppress(OSError, ValueError):
            click.echo(
                f"luff: no answer from the API server {server}; {until}{restoring}\n"
                f"  to see whether it answers at all: {command} get --raw /readyz\n"
                f"  to put routes back without luff:  {command} edit virtualservices -n NAMESPACE\n"
                "                                    and delete each route whose name begins with luff.1. (docs/restoring.md)",
                err=True,
            )

    return tell


def _at(in_s: float) -> str:
    return f"{datetime.now().astimezone() + timedelta(seconds=in_s):%H:%M:%S}"
