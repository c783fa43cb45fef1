"""`luff serve`: game days, the HTTP API and the web UI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli.notify import channels_of, notify_option
from luff.cli.options import MeshOptions, Voice, by_hand, mesh_options, option, store_option, voice_options
from luff.errors import RunAborted, UsageError

if TYPE_CHECKING:
    import httpx

    from luff.cli.mesh_choice import Chosen
    from luff.gameday_files import GameDays
    from luff.model import PolicySpec
    from luff.notify import Channels
    from luff.store import Store
    from luff.web import Service
    from luff.web.listening import Listener

__all__ = ["serve"]

NAMESPACE = "default"
PROMETHEUS = "LUFF_PROMETHEUS_URL"
GRACE_S = 5
"""How long open connections are waited for once every run has ended."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """This is what the command line said of the server; *address* is the host and the port to listen on."""

    folder: Path
    address: tuple[str, int]
    namespace: str
    channels: Channels
    accept_inert_leftover: bool
    quiet: bool

    @property
    def on_loopback(self) -> bool:
        """Return whether only this machine can reach it."""
        return _is_loopback(self.address[0])

    def tell(self, text: str) -> None:
        """Say *text* unless it is to be quiet."""
        if not self.quiet:
            click.echo(text, err=True)


@click.command()
@option(
    "--definitions",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder of experiments that may be run, and of game days; it is watched.",
)
@option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@by_hand("--yes", is_flag=True, help="Use the kubeconfig's current context.")
@by_hand(
    "--accept-inert-leftover",
    is_flag=True,
    help="In a container without a reaper: run all the same, though a twin that hits nobody may stay behind.",
)
@notify_option
@mesh_options
@store_option
@voice_options
def serve(
    definitions: Path,
    listen: str,
    store: str | None,
    yes: bool,
    accept_inert_leftover: bool,
    notify: Path | None,
    mesh: MeshOptions,
    voice: Voice,
) -> int:
    """
    Hold game days when they are due, and serve the HTTP API and the web UI, until told to end.

    Then every run is stopped and every route put back. Requests can only name
    experiments that are in DEFINITIONS; the game days there are held without a
    request. Without a token (`luff token create`) it listens on loopback only.
    """
    try:
        import fastapi  # noqa: F401  # only whether it is there
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", next_step="run `pip install 'luff[server]'`") from error
    from luff.cli.files import read_policy
    from luff.cli.mesh_choice import chosen_mesh
    from luff.notify import Channels
    from luff.store import Store
    from luff.traffic import loop

    asked = _Asked(
        folder=definitions,
        address=_address(listen),
        namespace=mesh.namespace or NAMESPACE,
        channels=Channels() if notify is None else channels_of(notify, [definitions]),
        accept_inert_leftover=accept_inert_leftover,
        quiet=voice.level < 0,
    )
    with Store.open(store) as opened:
        if not asked.on_loopback and not opened.access.any_tokens():
            raise UsageError(
                f"without a token luff does not listen on {asked.address[0]}, where others can reach it",
                next_step="make one with `luff token create NAME --role operator`, or --listen 127.0.0.1:8080",
            )
        game_days = _game_days(asked, opened, read_policy(mesh.policy))
        for warning in game_days.warnings:
            asked.tell(f"warning: {warning}")
        with chosen_mesh(mesh, game_days.documents) as chosen:
            return loop.run(_serve(asked, game_days, chosen, opened))


async def _serve(asked: _Asked, game_days: GameDays, chosen: Chosen, store: Store) -> int:
    import httpx

    from luff.cli.places import needs_reaper
    from luff.cli.restore import who_am_i
    from luff.cli.world import open_world
    from luff.web import Definitions, Rails, Service, create_app, warm_up
    from luff.web.listening import Listener, bound_socket

    socket = bound_socket(*asked.address)
    try:
        # The limit on the whole of an answer is the scheduler's.
        async with open_world(chosen, store) as world, httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113
            rails = Rails(chosen.policy, asked.namespace)
            service = Service(
                world,
                store,
                Definitions(game_days),
                rails,
                local_user=who_am_i(),
                open_=asked.on_loopback,
                needs_reaper=needs_reaper(in_lab=world.in_lab, accepted=asked.accept_inert_leftover),
                metric=_metric(client),
                channels=asked.channels,
            )
            left = await service.start()
            if left:
                click.echo(f"restored what {left} earlier run(s) had left", err=True)
            try:
                app = create_app(service)
                await warm_up(app)
                server = Listener(app, socket, grace_s=GRACE_S)
                ended_by = _leave_when_told(server, service)
                host, port = socket.getsockname()[:2]
                asked.tell(_begun(service, asked.folder, f"http://{_shown(host)}:{port}"))
                await server.serve()
            finally:
                in_time = await service.close(RunAborted("operator", "the server ended"))
            if not in_time:
                raise service.not_ended()
    finally:
        socket.close()
    return 128 + ended_by[0] if ended_by else 5


def _leave_when_told(server: Listener, service: Service) -> list[int]:
    """Let SIGINT and SIGTERM end *server*; returns the list in which those that came stand."""
    import signal

    ended_by: list[int] = []

    def leave(number: int) -> None:
        ended_by.append(number)
        service.begin_closing(RunAborted("operator", f"stopped by {signal.Signals(number).name} to the server"))
        server.leave()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave, number)
    return ended_by


def _begun(service: Service, folder: Path, address: str) -> str:
    """Return what is said once the server answers."""
    experiments, game_days = len(service.experiments()), len(service.calendar.game_days.all)
    due = service.calendar.scheduler.next_due
    coming = "" if due is None else f", the next at {due:%Y-%m-%d %H:%M} UTC"
    days = f"{game_days} game day{'' if game_days == 1 else 's'}{coming}"
    return f"serving {experiments} experiments of {folder} at {address}\n{days}"


def _game_days(asked: _Asked, store: Store, policy: PolicySpec | None) -> GameDays:
    """Return the game days in the folder that was *asked* for; raises `InvalidFile` when anything in it is wrong."""
    import os
    from datetime import UTC, datetime

    from luff.cli.files import read_documents
    from luff.gameday_files import GameDays
    from luff.policy import parse_hours
    from luff.schedule import read_definitions
    from luff.store.occurrences import Occurrences

    hours = None if policy is None or policy.hours is None else parse_hours(policy.hours)
    metric = bool(os.environ.get(PROMETHEUS))
    folder, known = asked.folder, asked.channels.by_name
    made = GameDays([folder], lambda: read_documents([folder]), hours=hours, metric=metric, channels=known)
    read_definitions(made, Occurrences.of(store), datetime.now(UTC))
    return made


def _metric(client: httpx.AsyncClient) -> Callable[[str], Awaitable[float | None]] | None:
    """Return what asks the Prometheus of the environment, ``None`` when there is none."""
    import os

    from luff.surroundings import prometheus

    url = os.environ.get(PROMETHEUS)
    return prometheus(url, client) if url else None


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
