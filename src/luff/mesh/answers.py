"""
What an answer of the API server means for a write: applied, not applied, or unknown.

Only what proves that nothing was applied may say so: 401, 403, 404, 409, and
the refusals among 4xx. Everything else, also what nobody has heard of yet, is
an unknown outcome, since whoever believes "refused" lets go of the routes. That
an object is gone, and what we put into it with it, is believed only of a 404
that an API server has worded itself.
"""

from __future__ import annotations

import json

from luff.errors import Conflict, MeshBusy, MeshDenied, MeshError, MeshUnreachable, NotFound, Rejected
from luff.mesh import Kind, Ref

__all__ = ["BODY_SHOWN", "NotAccepted", "error_of"]

BODY_SHOWN = 300
"""Characters of an unexpected answer that an error message repeats."""
_UNDECIDED_4XX = frozenset({408, 425, 499})
"""These say that somebody gave up waiting, not that the request was refused."""


class NotAccepted(MeshDenied):
    """This is 401: the credentials are not, or no longer, accepted."""


def error_of(ref: Ref, status: int, text: str, retry_after: str | None) -> MeshError:
    """Return the error that an answer with this *status* stands for; 0 is an answer that never came whole."""
    said = _message_in(text)
    # A webhook or a policy may choose any code for its "no", also one that elsewhere means a role or a conflict;
    # that it is one stands in the text, which the API server writes.
    if status >= 400 and _is_refusal(text):
        return Rejected(f"{ref}: the API server refused ({status}): {said}")
    if status == 404 and not _is_worded(text):
        # Of a path that is not served, or by somebody who is no API server: of the object it says nothing.
        step = _UNKNOWN.get(ref.kind)
        why = f"the API server does not know what a {ref.kind} is" if step else "nobody there knows this path"
        return Rejected(f"{ref}: {why} (404): {said}", next_step=step)
    if status == 404:
        return NotFound(f"{ref} is not there: {said}", next_step=f"check with `kubectl get {str(ref.kind).lower()} -A`")
    if status in (401, 403):
        what = "does not accept the credentials" if status == 401 else "does not allow it"
        step = "log in again, or renew the token in the kubeconfig" if status == 401 else "ask for the role in deploy/"
        if status == 403 and ref.kind == Kind.VIRTUAL_SERVICE and not ref.namespace:
            step = "name a namespace that you may read with -n, or ask for the role in deploy/"
        denied = NotAccepted if status == 401 else MeshDenied
        return denied(f"{ref}: the API server {what} ({status}): {said}", next_step=step)
    if status == 409 or (status == 422 and _is_failed_test(text)):
        return Conflict(
            f"{ref} was changed by somebody else meanwhile ({status}): {said}",
            next_step=f"see who writes it with `kubectl get {str(ref.kind).lower()} {ref.name} -n {ref.namespace} -o yaml "
            "--show-managed-fields`, and run again once they are done",
        )
    if 400 <= status < 500 and status != 429 and status not in _UNDECIDED_4XX:
        return Rejected(f"{ref}: the API server refused ({status}): {said}")
    if status == 429 or status >= 500:
        wait_s = float(retry_after) if retry_after and retry_after.isdigit() else None
        return MeshBusy(f"{ref}: the API server is not able to answer now ({status}): {said}", retry_after_s=wait_s)
    return MeshUnreachable(f"{ref}: no usable answer from the API server ({status or 'it broke off'}): {said}")


_UNKNOWN = dict.fromkeys(
    (Kind.VIRTUAL_SERVICE, Kind.DESTINATION_RULE),
    "choose a cluster with Istio 1.22 or newer: `kubectl get --raw /apis/networking.istio.io/v1` shows whether this is one",
)
"""What to do where a kind is not there at all."""


def _is_worded(text: str) -> bool:
    """Return whether a 404 is an API server's own about an object, and not about the path that it was asked by."""
    try:
        status = json.loads(text)
    except ValueError:
        return False
    return isinstance(status, dict) and status.get("reason") == "NotFound"


def _message_in(text: str) -> str:
    try:
        status = json.loads(text)
    except ValueError:
        return text[:BODY_SHOWN].strip() or "no reason given"
    message = status.get("message") if isinstance(status, dict) else None
    return str(message or text)[:BODY_SHOWN]


def _is_failed_test(text: str) -> bool:
    # A schema refusal names fields in details.causes; a JSON Patch that does not apply names none.
    try:
        status = json.loads(text)
    except ValueError:
        return True
    details = status.get("details") if isinstance(status, dict) else None
    return not (isinstance(details, dict) and details.get("causes"))


def _is_refusal(text: str) -> bool:
    by_webhook = "admission webhook" in text and "denied the request" in text
    return by_webhook or ("ValidatingAdmissionPolicy" in text and "denied request" in text)
