"""`/api/v1`: gates for pipelines, and the webhooks of Flagger."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from luff.units import parse_duration_s
from luff.web.api import CHANGES, KEY_MOST
from luff.web.asking import Operator
from luff.web.gates import Evaluation, Gates
from luff.web.problems import Problem, documented
from luff.web.shapes import NAME

__all__ = ["router"]

MAX_AGE = "15m"
MAX_AGE_S = 366 * 86400.0
NOT_GO = 412

router = APIRouter(prefix="/api/v1", responses=documented())
Answer: dict[int | str, dict[str, Any]] = {NOT_GO: {"model": Evaluation, "description": "Anything but go"}}


def _gates(request: Request) -> Gates:
    found = request.app.state.gates
    assert isinstance(found, Gates)
    return found


Asked = Annotated[Gates, Depends(_gates)]


@router.post("/gates/{suite}:evaluate", responses={**documented("not_found", "closing", *CHANGES), **Answer})
async def evaluate_gate(
    gates: Asked,
    person: Operator,
    response: Response,
    suite: Annotated[str, Path(pattern=NAME)],
    strict: bool = False,
    max_age: Annotated[str, Query(alias="maxAge", max_length=20, description="How old a result may be.")] = MAX_AGE,
    idempotency_key: Annotated[str | None, Header(max_length=KEY_MOST)] = None,
) -> Evaluation:
    """
    Say go, stop or wait for a suite, and start its runs if they are needed. Ask again while it is wait.

    With an Idempotency-Key the runs that it has started count, and no others;
    without one the newest of each experiment that is at most `maxAge` old.
    With `strict=1` anything but go is answered with 412.
    """
    max_age_s = _seconds(max_age, "query.maxAge")
    found = await gates.evaluate(suite, person, key=idempotency_key, max_age_s=max_age_s)
    return _answer(found, response, strict=strict)


class FlaggerMetadata(BaseModel):
    """This is what the Canary's webhook says in its *metadata*: which suite, for which kind of hook."""

    model_config = ConfigDict(extra="ignore")

    suite: Annotated[str, Field(pattern=NAME)]
    hook: Literal["confirm", "rollout"] = "confirm"
    maxAge: Annotated[str, Field(max_length=20)] = MAX_AGE  # noqa: N815  # as it is written in a Canary


class FlaggerHook(BaseModel):
    """This is what Flagger sends. *checksum* changes with each revision of the canary."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(max_length=253)]
    namespace: Annotated[str, Field(max_length=63)]
    checksum: Annotated[str, Field(max_length=100)] = ""
    metadata: FlaggerMetadata


@router.post("/hooks/flagger", responses={**documented("not_found", "closing", *CHANGES), **Answer})
async def flagger_hook(gates: Asked, person: Operator, response: Response, body: FlaggerHook) -> Evaluation:
    """
    Answer a webhook of Flagger: 200 for go, 412 for wait and stop.

    A `confirm` hook runs the suite once for each revision of the canary; a
    `rollout` hook starts nothing and answers by the newest results, at most
    `maxAge` old. Flagger shows the token that stands in the URL,
    `http://luff:TOKEN@HOST/…`.
    """
    said = body.metadata
    max_age_s = _seconds(said.maxAge, "body.metadata.maxAge")
    if said.hook == "rollout":
        return _answer(await gates.newest(said.suite, person, max_age_s=max_age_s), response, strict=True)
    key = f"flagger/{body.namespace}/{body.name}/{body.checksum}" if body.checksum else None
    return _answer(await gates.evaluate(said.suite, person, key=key, max_age_s=max_age_s), response, strict=True)


def _answer(found: Evaluation, response: Response, *, strict: bool) -> Evaluation:
    if strict and found.decision != "go":
        response.status_code = NOT_GO
    return found


def _seconds(text: str, where: str) -> float:
    try:
        found = parse_duration_s(text)
    except ValueError:
        found = 0.0
    if not 1.0 <= found <= MAX_AGE_S:
        raise Problem("invalid", f"{where}: {text[:20]!r} is no duration from 1s to 366 days", next_step="such as 15m")
    return found
