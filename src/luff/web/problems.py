"""
Problems as RFC 9457 says them: every error of the server has this shape and a stable code.

`CODES` is the one table of codes; programs may rely on them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from luff.errors import (
    InvalidFile,
    LuffError,
    MeshError,
    NotFound,
    OutcomeRefused,
    PlanRefused,
    RestoreNotVerified,
    RunAborted,
    StoreError,
    UsageError,
)

__all__ = ["CODES", "MEDIA_TYPE", "Problem", "ProblemDocument", "documented", "install", "response"]

MEDIA_TYPE = "application/problem+json"
ERRORS_SHOWN = 10
_log = logging.getLogger("luff.web")

CODES: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "bad_request": (400, "The request cannot be read"),
        "not_signed_in": (401, "A token is needed"),
        "wrong_token": (401, "The token is not good"),
        "role_too_weak": (403, "The role does not allow this"),
        "cross_site": (403, "The request comes from another site"),
        "csrf": (403, "The form's token is missing or old"),
        "host_not_allowed": (403, "The policy does not allow this traffic"),
        "not_an_approver": (403, "Only who the game day names may approve it"),
        "policy": (403, "The policy does not allow this run"),
        "not_found": (404, "There is no such thing"),
        "method_not_allowed": (405, "This cannot be done here"),
        "conflict": (409, "It is not as the request expects"),
        "body_too_large": (413, "The body is too large"),
        "wrong_content_type": (415, "The body is of another type"),
        "misdirected": (421, "This server does not go by that name"),
        "invalid": (422, "The request is not valid"),
        "key_reused": (422, "The Idempotency-Key was used for another request"),
        "plan_refused": (422, "luff does not make this plan"),
        "definitions_invalid": (422, "The definitions are not valid"),
        "queue_full": (429, "Too many runs wait already"),
        "internal": (500, "luff made a mistake"),
        "mesh": (502, "The mesh cannot be used"),
        "restore_not_verified": (502, "A fault may still be live"),
        "closing": (503, "The server is leaving"),
        "store": (503, "The store cannot be used"),
    }
)

_BY_STATUS = {
    400: "bad_request",
    401: "not_signed_in",
    403: "role_too_weak",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "wrong_content_type",
    422: "invalid",
}
_BY_ERROR: tuple[tuple[type[LuffError], str], ...] = (
    (InvalidFile, "definitions_invalid"),
    (UsageError, "invalid"),
    (PlanRefused, "plan_refused"),
    (NotFound, "not_found"),
    (RestoreNotVerified, "restore_not_verified"),
    (RunAborted, "conflict"),
    (OutcomeRefused, "conflict"),
    (StoreError, "store"),
    (MeshError, "mesh"),
    (LuffError, "mesh"),
)
"""The first class that an error is of says its code."""


class ProblemDocument(BaseModel):
    """This is an error: *code* is stable, *detail* says what is wrong with this request, *next_step* what to do."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    next_step: str | None = None
    errors: list[dict[str, Any]] | None = None


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI says that a route answers with *codes*, and with those that every route may."""
    found: dict[int | str, dict[str, Any]] = {}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    for code in (
        "bad_request",
        "not_signed_in",
        "role_too_weak",
        "misdirected",
        "invalid",
        "internal",
        "store",
        *codes,
    ):
        status, title = CODES[code]
        found[status] = {"model": ProblemDocument, "description": title, "content": content}
    return found


class Problem(Exception):
    """This is raised to answer with a problem. *code* is one of `CODES`."""

    def __init__(
        self, code: str, detail: str, *, next_step: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.next_step = next_step
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return CODES[self.code][0]

    @classmethod
    def of(cls, error: LuffError) -> Problem:
        """Return what *error* means to who asked."""
        code = next(code for kind, code in _BY_ERROR if isinstance(error, kind))
        detail = error.message if not isinstance(error, PlanRefused) else f"{error.message} ({error.rule})"
        return cls(code, detail, next_step=error.next_step)


def response(problem: Problem, *, errors: list[dict[str, Any]] | None = None) -> Response:
    """Return the answer that says *problem*."""
    status, title = CODES[problem.code]
    document = {
        "type": f"https://luff.dev/problems/{problem.code.replace('_', '-')}",
        "title": title,
        "status": status,
        "code": problem.code,
        "detail": problem.detail,
    }
    if problem.next_step is not None:
        document["next_step"] = problem.next_step
    if errors:
        document["errors"] = errors
    headers = dict(problem.headers)
    if status == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("www-authenticate", 'Bearer realm="luff"')
    return JSONResponse(document, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI, *, page: Any) -> None:
    """Let every error of *app* be a problem; *page* makes the page of one for who reads HTML, or returns ``None``."""

    async def shown(request: Request, problem: Problem, errors: list[dict[str, Any]] | None = None) -> Response:
        made: Response | None = await page(request, problem)
        return made or response(problem, errors=errors)

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return await shown(request, error)

    @app.exception_handler(LuffError)
    async def _luff(request: Request, error: LuffError) -> Response:
        return await shown(request, Problem.of(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"at": ".".join(str(part) for part in each["loc"]), "message": str(each["msg"])}
            for each in error.errors()[:ERRORS_SHOWN]
        ]
        said = "; ".join(f"{each['at']}: {each['message']}" for each in errors)
        return await shown(request, Problem("invalid", said), errors)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = _BY_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return await shown(request, Problem(code, detail, headers=error.headers))

    @app.exception_handler(Exception)
    async def _mistake(request: Request, error: Exception) -> Response:
        # The outermost edge: the traceback is for the log, a sentence for who asked.
        _log.error("%s %s", request.method, request.url.path, exc_info=error)
        return await shown(request, Problem("internal", "see the server's log", next_step="report it"))
