"""The refusals of a Kubernetes API server, worded and numbered as the real one does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from luff.model import Object

__all__ = ["ApiError", "invalid"]


class ApiError(Exception):
    """This is a request that the server refuses; *status* is the Status object that it answers, or *text* in its place."""

    def __init__(self, code: int, reason: str, message: str, *, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.text: str | None = None
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            **({"reason": reason} if reason else {}),
            **({"details": details} if details is not None else {}),
            "code": code,
        }

    @classmethod
    def not_found(cls, group: str, plural: str, name: str) -> ApiError:
        """Return the 404 for an object that is not there."""
        return cls(404, "NotFound", f'{_qualified(group, plural)} "{name}" not found', details=_of(group, plural, name))

    @classmethod
    def no_such_path(cls, *, known_group: bool = False) -> ApiError:
        """Return the 404 for a path that means nothing: plain text, but for one in a group of the server's own."""
        found = cls(404, "NotFound", "the server could not find the requested resource", details={})
        found.text = None if known_group else "404 page not found\n"
        return found

    @classmethod
    def already_exists(cls, group: str, plural: str, name: str) -> ApiError:
        """Return the 409 for a create that came second."""
        message = f'{_qualified(group, plural)} "{name}" already exists'
        return cls(409, "AlreadyExists", message, details=_of(group, plural, name))

    @classmethod
    def conflict(cls, group: str, plural: str, name: str, why: str) -> ApiError:
        """Return the 409 for a write that was based on something stale."""
        message = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
        return cls(409, "Conflict", message, details=_of(group, plural, name))

    @classmethod
    def bad_request(cls, message: str) -> ApiError:
        """Return the 400 for a request that cannot be read."""
        return cls(400, "BadRequest", message)

    @classmethod
    def forbidden(cls, user: str, verb: str, place: tuple[str, str, str], name: str) -> ApiError:
        """Return the 403 for what *user* may not do; *place* is group, plural and namespace, empty for all of them."""
        group, plural, namespace = place
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        message = (
            f'{_qualified(group, plural)} {json.dumps(name) + " " if name else ""}is forbidden: User "{user}" '
            f'cannot {verb} resource "{plural}" in API group "{group}" {where}'
        )
        return cls(403, "Forbidden", message, details=_of(group, plural, name))

    @classmethod
    def terminating(cls, group: str, plural: str, name: str, namespace: str) -> ApiError:
        """Return the 403 for something new in a namespace that is being deleted."""
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
        details = {**_of(group, plural, name), "causes": [{**cause, "field": "metadata.namespace"}]}
        return cls(403, "Forbidden", f'{_qualified(group, plural)} "{name}" is forbidden: {why}', details=details)

    @classmethod
    def does_not_apply(cls) -> ApiError:
        """Return the 422 for a JSON Patch with an operation that failed; like the real one it does not say which."""
        message = "the server rejected our request due to an error in our request"
        return cls(422, "Invalid", message, details={})

    @classmethod
    def too_large(cls, why: str) -> ApiError:
        """Return the 413 for a request that is too long."""
        return cls(413, "RequestEntityTooLarge", f"Request entity too large: {why}")

    @classmethod
    def unsupported_type(cls, supported: Sequence[str]) -> ApiError:
        """Return the 415 for a body in a format that this path does not take."""
        message = "the body of the request was in an unknown format - accepted media types include: "
        return cls(415, "UnsupportedMediaType", message + ", ".join(supported))

    @classmethod
    def expired(cls, message: str) -> ApiError:
        """Return the 410 for a resourceVersion that history no longer reaches."""
        return cls(410, "Expired", message)

    @classmethod
    def method_not_allowed(cls) -> ApiError:
        """Return the 405 for a verb that the resource does not have."""
        message = "the server does not allow this method on the requested resource"
        return cls(405, "MethodNotAllowed", message, details={})


_CAUSES = {
    "Required value": "FieldValueRequired",
    "Too long": "FieldValueTooLong",
    "Unsupported value": "FieldValueNotSupported",
}


def invalid(group: str, kind: str, name: str, problems: Sequence[tuple[str, str]]) -> ApiError:
    """Return the 422 for an object whose fields are wrong. Each problem is a field and what is wrong with it."""
    causes = [
        {"reason": _CAUSES.get(message.partition(":")[0], "FieldValueInvalid"), "message": message, "field": where}
        for where, message in dict(problems).items()
    ]
    said = [f"{where}: {message}" for where, message in problems]
    told = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    return ApiError(
        422,
        "Invalid",
        f'{_qualified(group, kind)} "{name}" is invalid: {told}',
        details={**_of(group, kind, name), "causes": causes},
    )


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def _of(group: str, plural: str, name: str) -> dict[str, Any]:
    return {"name": name, **({"group": group} if group else {}), "kind": plural}
