"""What the routes need of a request: the service, who asks, and that they may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from luff.store import Role
from luff.web.access import COOKIE, Person, check_csrf, check_role
from luff.web.problems import Problem
from luff.web.service import Service

__all__ = ["Admin", "Operator", "Serving", "SpecPrefix", "Viewer", "needs", "person_or_none"]

BEARER = HTTPBearer(auto_error=False, description="A token of `luff token create`.")


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Serving = Annotated[Service, Depends(_service)]


async def person_or_none(request: Request, service: Serving) -> Person | None:
    """Return who asks, or ``None``."""
    return await run_in_threadpool(service.door.who, request, request.cookies.get(COOKIE))


def needs(role: Role) -> Callable[..., Awaitable[Person]]:
    """Return the dependency that lets pass who has *role*, and for changes has sent no other site's form."""

    async def person(
        request: Request,
        found: Annotated[Person | None, Depends(person_or_none)],
        _: Annotated[object, Depends(BEARER)],
    ) -> Person:
        if found is None:
            raise Problem(
                "not_signed_in", "send `Authorization: Bearer …`", next_step="make a token with `luff token create`"
            )
        check_csrf(request, found, None)
        check_role(found, role)
        return found

    return person


Viewer = Annotated[Person, Depends(needs(Role.VIEWER))]
Operator = Annotated[Person, Depends(needs(Role.OPERATOR))]
Admin = Annotated[Person, Depends(needs(Role.ADMIN))]

SpecPrefix = Annotated[str | None, Query(pattern=r"^[0-9a-f]{4,64}$")]
"""The beginning of the hash of a spec, to ask for one way in which an experiment was written."""
