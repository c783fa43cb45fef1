"""Webhooks of other people: they change what is written, refuse what would result, or cannot be called."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from luff.lab.misbehaviour import Rule
from luff.lab.patching import merge_patch
from luff.lab.statuses import ApiError
from luff.model import Object

__all__ = ["Admission"]

DENIED_CODE = 403
VALIDATING = "validating.policy.test"
_DOWN = (
    'failed calling webhook "rev.validation.istio.io": failed to call webhook: '
    'Post "https://istiod.istio-system.svc:443/validate?timeout=10s": dial tcp 10.96.0.7:443: connect: connection refused'
)


class Admission:
    """This is what the webhooks in *rules* do to one write."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = rules

    def mutated(self, object_: Object) -> Object:
        """Return *object_* as the mutating ones would have it."""
        for rule in self._rules:
            spec = object_.get("spec")
            if rule.action == "mutate" and isinstance(spec, dict) and isinstance(spec.get("http"), list):
                object_ = copy.deepcopy(object_)
                object_["spec"]["http"] = [_changed(route, rule) for route in spec["http"]]
        return object_

    def validate(self, object_: Object) -> None:
        """Raise `ApiError` when one of the validating ones refuses *object_*."""
        for rule in self._rules:
            if rule.action != "mutate" and (rule.action == "webhook_down" or _holds(rule, object_)):
                raise _refusal(rule)


def _refusal(rule: Rule) -> ApiError:
    if rule.action == "webhook_down":
        return ApiError(500, "InternalError", f"Internal error occurred: {_DOWN}")
    code = rule.code or DENIED_CODE
    reason = {400: "BadRequest", 403: "Forbidden", 422: "Invalid"}.get(code, "")
    return ApiError(code, reason, f'admission webhook "{VALIDATING}" denied the request: {rule.message}')


def _named(route: Any, prefix: str) -> bool:
    return isinstance(route, dict) and str(route.get("name") or "").startswith(prefix)


def _changed(route: Any, rule: Rule) -> Any:
    if not _named(route, rule.routes):
        return route
    change = dict(rule.change)
    if isinstance(change.get("name"), str):
        change["name"] = change["name"].replace("{name}", str(route.get("name") or ""))
    return merge_patch(change)(route)


def _holds(rule: Rule, object_: Object) -> bool:
    spec = object_.get("spec")
    routes = spec.get("http") if isinstance(spec, dict) else None
    routes = routes if isinstance(routes, list) else []
    present = any(_named(route, rule.routes) for route in routes)
    return {"always": True, "present": present, "absent": not present, "empty": not routes}[rule.when]
