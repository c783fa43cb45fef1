"""`luff serve`: the HTTP API and the web UI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from luff.cli.options import MeshOptions, Voice, consent, mesh_options, option, store_option, voice_options
from luff.errors import RestoreNotVerified, RunAborted, UsageError

if TYPE_CHECKING:
    from luff.cli.mesh_choice import Chosen
    from luff.model import Experiment
    from luff.store import Store
    from luff.web import Definitions

__all__ = ["serve"]

NAMESPACE = "default"
GRACE_S = 5
"""How long open connections are waited for once every run has ended."""


@click.command()
@option(
    "--definitions",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder of experiments that may be run; it is watched.",
)
@option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@consent("--yes", is_flag=True, help="Use the kubeconfig's current context.")
@consent(
    "--accept-inert-leftover",
    is_flag=True,
    help="In a container without a reaper: run all the same, though a twin that hits nobody may stay behind.",
)
@mesh_options
@store_option
@voice_options
def serve(
    definitions: Path,
    listen: str,
    store: str | None,
    yes: bool,
    accept_inert_leftover: bool,
    mesh: MeshOptions,
    voice: Voice,
) -> int:
    """
    Serve the HTTP API and the web UI until told to end; then every run is stopped and every route put back.

    Requests can only name experiments that are in DEFINITIONS. Without a token
    (`luff token create`) it listens on loopback only.
    """
    try:
        import fastapi  # noqa: F401  # only whether it is there
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", next_step="run `pip install 'luff[server]'`") from error
    from luff.cli.files import read_documents
    from luff.cli.mesh_choice import chosen_mesh
    from luff.store import Store

    host, port = _address(listen)
    documents = read_documents([definitions])
    with Store.open(store) as opened:
        if not _is_loopback(host) and not opened.access.any_tokens():
            raise UsageError(
                f"without a token luff does not listen on {host}, where others can reach it",
                next_step="make one with `luff token create NAME --role operator`, or --listen 127.0.0.1:8080",
            )
        with chosen_mesh(mesh, documents) as chosen:
            return _event_loop(
                _serve(definitions, chosen, opened, host, port, mesh, voice, accepted=accept_inert_leftover)
            )


def _event_loop(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _serve(
    folder: Path,
    chosen: Chosen,
    store: Store,
    host: str,
    port: int,
    mesh: MeshOptions,
    voice: Voice,
    *,
    accepted: bool,
) -> int:
    import signal

    from luff.cli.places import needs_reaper
    from luff.cli.restore import who_am_i
    from luff.cli.world import open_world
    from luff.web import Rails, Service, create_app
    from luff.web.listening import Listener, bound_socket

    socket = bound_socket(host, port)
    ended_by: list[int] = []
    try:
        async with open_world(chosen, store) as world:
            rails = Rails(chosen.policy, world.mesh.kind, mesh.namespace or NAMESPACE)
            service = Service(
                world,
                store,
                _watched(folder),
                rails,
                local_user=who_am_i(),
                open_=_is_loopback(host),
                needs_reaper=needs_reaper(world.identity.kind, accepted=accepted),
            )
            service.definitions.load()
            left = await service.start()
            if left:
                click.echo(f"restored what {left} earlier run(s) had left", err=True)
            server = Listener(create_app(service), socket, grace_s=GRACE_S)

            def leave(number: int) -> None:
                ended_by.append(number)
                service.begin_closing(RunAborted("operator", f"stopped by {signal.Signals(number).name} to the server"))
                server.leave()

            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, leave, number)
            shown, real_port = socket.getsockname()[:2]
            if voice.level >= 0:
                count = len(service.experiments())
                click.echo(f"serving {count} experiments of {folder} at http://{_shown(shown)}:{real_port}", err=True)
            try:
                await server.serve()
            finally:
                in_time = await service.close(RunAborted("operator", "the server ended"))
            if not in_time:
                raise RestoreNotVerified(
                    "a run did not end in time; its guard restores it", next_step="look with `luff status`"
                )
    finally:
        socket.close()
    return 128 + ended_by[0] if ended_by else 5


def _watched(folder: Path) -> Definitions:
    """Return the experiments in *folder*, and those that its suites make of them."""
    from luff.cli.files import ENDINGS, expanded, read_documents
    from luff.web import Definitions

    def stamp() -> object:
        files = sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS)
        found = []
        for path in files:
            with contextlib.suppress(OSError):
                seen = path.stat()
                found.append((str(path), seen.st_mtime_ns, seen.st_size))
        return found

    def read() -> list[Experiment]:
        documents = read_documents([folder])
        by_name = {each.name: each for each in (*documents.experiments, *expanded(documents))}
        return list(by_name.values())

    return Definitions(stamp, read)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _address(listen: str) -> tuple[str, int]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise UsageError(f"--listen {listen!r} is no address", next_step="write HOST:PORT, such as 127.0.0.1:8080")
    return host, port


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
