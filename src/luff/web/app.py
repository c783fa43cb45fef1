"""The application: the API, the pages and what stands around both."""

from __future__ import annotations

from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from luff import __version__
from luff.metrics import CONTENT_TYPE
from luff.web import api, calendar_api, calendar_pages, gates_api, problems
from luff.web.asking import Serving, Viewer
from luff.web.gates import Gates
from luff.web.pages import prepare, problem_page
from luff.web.pages import router as pages_router
from luff.web.problems import Problem
from luff.web.security import LOOPBACK_NAMES, Protection
from luff.web.service import Service

__all__ = ["create_app", "warm_up"]

health = APIRouter(responses=problems.documented())


@health.get("/healthz")
async def healthz() -> dict[str, str]:
    """Return that the process lives."""
    return {"status": "ok"}


@health.get("/readyz", responses=problems.documented("closing"))
async def readyz(service: Serving) -> dict[str, str]:
    """Return that runs can be started: the store answers, and the mesh and the calendar were looked at lately."""
    why = await service.unready()
    if why is not None:
        raise Problem("closing", why)
    return {"status": "ready"}


@health.get(
    "/metrics",
    response_class=Response,
    responses={**problems.documented("store"), 200: {"content": {"text/plain": {}}}},
)
async def metrics(service: Serving, _: Viewer) -> Response:
    """Return metrics for Prometheus."""
    calendar = service.calendar
    service.metrics.calendar(
        calendar.scheduler.last_tick, await run_in_threadpool(calendar.counts), calendar.game_days.all
    )
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def warm_up(app: FastAPI) -> None:
    """Ask *app* once, so that the first who looks does not hold up a run with what is made at the first request."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/healthz", "/"):
            await client.get(path, headers={"accept": "text/html"})


def create_app(service: Service) -> FastAPI:
    """Return the application over *service*, which somebody else starts and closes."""
    app = FastAPI(
        title="luff",
        version=__version__,
        description="Chaos experiments for Istio meshes.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.gates = Gates(service)
    prepare()
    problems.install(app, page=problem_page)
    app.include_router(api.router)
    app.include_router(calendar_api.router)
    app.include_router(gates_api.router)
    app.include_router(health)
    app.include_router(pages_router)
    app.include_router(calendar_pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

    async def named(host: str) -> bool:
        # A name that somebody else points at this machine must not reach a server that asks for no token.
        return host in LOOPBACK_NAMES or not await run_in_threadpool(service.door.is_open)

    app.add_middleware(Protection, named=named)
    return app
