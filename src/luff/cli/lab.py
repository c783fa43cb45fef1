"""`luff lab`."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli.options import Voice, option, voice_options
from luff.errors import LabError

if TYPE_CHECKING:
    from luff.lab.state import LabState, WorkloadState

__all__ = ["lab"]

LOG_LINES = 20
LOOK_EVERY_S = 0.5


@click.group()
def lab() -> None:
    """Run a local mesh: an emulated Kubernetes API, the real Envoy, your services as local processes."""


@lab.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@option("--detach", is_flag=True, help="Return once everything answers, and leave the lab running.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where it keeps its files.")
@option("--port", type=click.IntRange(1, 65535), help="The port of its API; by default a free one.")
@voice_options
def up(files: tuple[Path, ...], detach: bool, directory: Path | None, port: int | None, voice: Voice) -> int:
    """Bring up the services in FILES (LabWorkloads and Istio manifests), or the shipped bookinfo."""
    import os

    from luff.cli.files import read_documents
    from luff.cli.mesh_choice import bookinfo
    from luff.lab import lifetimes as labs

    documents = read_documents(files) if files else bookinfo()
    if detach:
        _show(labs.start(documents, directory=directory, port=port, detach=True), voice=voice)
        return 0
    reader, writer = os.pipe()
    state = labs.start(documents, directory=directory, port=port, lifeline_fd=reader)
    os.close(reader)
    _show(state, voice=voice)
    if voice.level >= 0:
        click.echo("the lab runs until Ctrl-C", err=True)
    try:
        while labs.is_alive(Path(state.directory)):
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        click.echo("taking the lab down", err=True)
        labs.stop(state)
        return 130
    finally:
        os.close(writer)
    raise LabError("the lab ended by itself", next_step=f"read {state.directory}/supervisor.log")


@lab.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Which lab; by default the newest.")
@voice_options
def down(directory: Path | None, voice: Voice) -> None:
    """Take a lab down, with everything that it started, also one that does not answer any more."""
    from luff.lab import lifetimes as labs

    state = labs.running(directory)
    if state is None:
        raise _no_lab(directory)
    labs.stop(state)
    if voice.level >= 0:
        click.echo(f"lab {state.name} is down", err=True)


@lab.command()
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Which lab; by default the newest that answers."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
def status(directory: Path | None, output: str) -> int:
    """
    Show what runs in a lab, and which objects its proxies did not take.

    Exits 0 when all is well, 1 when something died or was not taken, 5 when there is no lab.
    """
    import json

    from luff.lab import lifetimes as labs

    state = _found(directory)
    rows, troubles = labs.status(state), labs.troubles(state)
    if output == "json":
        click.echo(
            json.dumps(
                {
                    "lab": state.name,
                    "directory": state.directory,
                    "workloads": [row.as_dict() for row in rows],
                    "troubles": troubles,
                },
                indent=2,
            )
        )
    else:
        click.echo(f"lab {state.name} in {state.directory}, API {state.api}, ingress {state.ingress}")
        for row in rows:
            click.echo(f"  {row.name:<24} {row.state:<8} admin {row.admin or '-':<22} log {row.output or '-'}")
        for text in troubles:
            click.echo(f"  {text}")
    return 0 if not troubles and all(row.state == "running" for row in rows) else 1


@lab.command()
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Which lab; by default the newest that answers."
)
def env(directory: Path | None) -> None:
    """
    Print a lab as shell exports: `eval "$(luff lab env)"`, then kubectl and curl find it.

    The admin addresses of its Envoys are LUFF_LAB_ADMIN_WORKLOAD, in upper case with _ for what is no letter or digit,
    and LUFF_LAB_ADMIN_WORKLOAD_REPLICA (from 0) for a workload with several replicas.
    """
    state = _found(directory)
    for name, value in _exports(state).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@lab.command()
@click.argument("workload", required=False)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Which lab; by default the newest that answers."
)
@click.option("--access", is_flag=True, help="The access log of its sidecar instead of its own output.")
@option("--tail", type=click.IntRange(1, 100_000), default=LOG_LINES, show_default=True, help="How many lines.")
def logs(workload: str | None, directory: Path | None, access: bool, tail: int) -> None:
    """Print the end of the logs of WORKLOAD, or of all."""
    state = _found(directory)
    ending = ".access.jsonl" if access else ".log"
    found = sorted(Path(state.logs).glob(f"{workload or ''}*{ending}"))
    if not found:
        known = ", ".join(sorted({each.name for each in state.workloads}))
        raise LabError(f"there is no log of {workload}", next_step=f"the workloads are: {known}")
    for path in found:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-tail:]
        click.echo(f"==> {path.name} <==", err=True)
        click.echo("".join(f"{line}\n" for line in lines), nl=False)


def _found(directory: Path | None) -> LabState:
    from luff.lab import lifetimes as labs

    state = labs.find(directory)
    if state is None:
        raise _no_lab(directory)
    return state


def _no_lab(directory: Path | None) -> LabError:
    where = f" in {directory}" if directory else ""
    return LabError(f"no lab is running{where}", next_step="start one with `luff lab up --detach`")


def _exports(state: LabState) -> dict[str, str]:
    return {
        "KUBECONFIG": state.kubeconfig,
        "LUFF_LAB_DIR": state.directory,
        "LUFF_LAB_INGRESS": f"http://{state.ingress}",
        "LUFF_LAB_SIDECAR": f"http://{state.sidecar}",
        **{_admin_variable(state, each): f"http://{each.admin}" for each in state.workloads},
    }


def _admin_variable(state: LabState, workload: WorkloadState) -> str:
    """Return the variable of the admin address of *workload*; its replica's number is in it where there are several."""
    several = [each.name for each in state.workloads].count(workload.name) > 1
    name = workload.full_name if several else workload.name
    return "LUFF_LAB_ADMIN_" + re.sub("[^A-Z0-9]", "_", name.upper())


def _show(state: LabState, *, voice: Voice) -> None:
    click.echo(f"kubeconfig {state.kubeconfig}")
    click.echo(f"ingress    http://{state.ingress}")
    click.echo(
        f"sidecar    http://{state.sidecar}   (curl --proxy http://{state.sidecar} http://SERVICE.NAMESPACE:PORT/)"
    )
    if voice.level >= 0:
        for workload in state.workloads:
            click.echo(f"admin      http://{workload.admin}   {workload.name}-{workload.replica}")
