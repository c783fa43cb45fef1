"""
What was tested, as the pods of the judged service say: their image with its digest, and their revision.

A revision is the first that a pod has of: the label ``app.kubernetes.io/version``,
the annotations ``org.opencontainers.image.revision`` and ``luff.dev/content`` (the
lab's), and the hash that a Deployment gives each way in which it was written. Pods
that differ, as while a rollout is under way, are all named: a run tests them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luff.words import Object

__all__ = ["CONTENT_ANNOTATION", "Build", "build_of"]

CONTENT_ANNOTATION = "luff.dev/content"
NAMED_MOST = 4
"""How many ways that differ are named; of the others it is said how many there are."""
_REVISIONS = (
    ("labels", "app.kubernetes.io/version"),
    ("annotations", "org.opencontainers.image.revision"),
    ("annotations", CONTENT_ANNOTATION),
    ("labels", "pod-template-hash"),
)
_USUAL_CONTAINER = "kubectl.kubernetes.io/default-container"
_SIDECAR = "istio-proxy"


@dataclass(frozen=True, slots=True)
class Build:
    """This is what a service is made of. *image* and *revision* are ``None`` where no pod says; *pods* is how many were looked at."""

    pods: int
    image: str | None = None
    revision: str | None = None


def build_of(pods: Iterable[Object], labels: Mapping[str, str]) -> Build:
    """Return what those of *pods* that run and have *labels* are made of."""
    running = [pod for pod in pods if _runs(pod) and labels.items() <= _texts(pod, "labels").items()]
    return Build(len(running), _named(map(_image, running)), _named(map(_revision, running)))


def _runs(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _texts(pod: Object, name: str) -> dict[str, str]:
    return pod["metadata"].get(name) or {}


def _named(found: Iterable[str | None]) -> str | None:
    names = sorted({each for each in found if each})
    more = f" and {len(names) - NAMED_MOST} more" if len(names) > NAMED_MOST else ""
    return ", ".join(names[:NAMED_MOST]) + more or None


def _revision(pod: Object) -> str | None:
    return next((found for place, name in _REVISIONS if (found := _texts(pod, place).get(name))), None)


def _image(pod: Object) -> str | None:
    """Return the image of the service's own container, with the digest of what really runs."""
    container = _own_container((pod.get("spec") or {}).get("containers") or [], _texts(pod, "annotations"))
    image = container.get("image")
    if not image or "@" in image:
        return image
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    running: Mapping[str, Any] = next((each for each in statuses if each.get("name") == container.get("name")), {})
    # Where there is no digest, the id is only this node's name for the image.
    _, at, digest = str(running.get("imageID") or "").partition("@")
    return f"{image}{at}{digest}"


def _own_container(containers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]) -> Mapping[str, Any]:
    usual = annotations.get(_USUAL_CONTAINER)
    own = [each for each in containers if each.get("name") != _SIDECAR]
    return next((each for each in own if each.get("name") == usual), own[0] if own else {})
