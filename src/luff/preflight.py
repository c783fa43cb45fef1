"""
Everything that is looked at before anything is touched.

Reads, and one server-side dry run of the very patch that would be sent: what a
webhook, a quota or a missing role would refuse is refused now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from luff.builds import Build, build_of
from luff.errors import MeshDenied, MeshError, NotFound, PlanRefused, Rejected
from luff.lever import check_lever
from luff.mesh import Kind, Mesh, Ref
from luff.model import Experiment, Object
from luff.names import ours
from luff.plan import Plan
from luff.targeting import MeshView

__all__ = ["check_foreign", "namespace_of", "preflight", "read_build", "read_view"]


def namespace_of(experiment: Experiment, default: str | None) -> str:
    """Return the namespace that an experiment breaks something in."""
    return experiment.spec.target.namespace or experiment.metadata.namespace or default or "default"


async def read_view(mesh: Mesh, namespace: str, *, everywhere: bool = True) -> MeshView:
    """
    Read what a plan needs: the VirtualServices and the Services of *namespace*.

    With *everywhere* those of other namespaces as well, since one of them may
    claim the same host, and the DestinationRules. A role that may not read those,
    Services or Namespaces is no obstacle: plan then knows less. Raises `MeshError` when the
    VirtualServices of *namespace* cannot be read.
    """

    there, found, services, others, (rules, every_rule) = await asyncio.gather(
        _exists(mesh, namespace),
        mesh.list(Kind.VIRTUAL_SERVICE, namespace),
        _listed(mesh, Kind.SERVICE, (namespace,)),
        _listed(mesh, Kind.VIRTUAL_SERVICE, (None,) if everywhere else ()),
        _listed(mesh, Kind.DESTINATION_RULE, (None, namespace) if everywhere else ()),
    )
    return MeshView(
        mesh.kind,
        namespace,
        tuple(found),
        services.found or (),
        namespace_exists=there,
        elsewhere=tuple(each for each in others.found or () if each["metadata"].get("namespace") != namespace),
        everywhere=others.found is not None,
        destination_rules=rules,
        every_rule=every_rule,
    )


class _Listed(NamedTuple):
    """This is what was *found*, ``None`` where nothing may be read, and whether it is *all* of the mesh."""

    found: tuple[Object, ...] | None
    all: bool


async def _listed(mesh: Mesh, kind: Kind, places: Sequence[str | None]) -> _Listed:
    """Return the objects of the first of *places*, namespaces or ``None`` for all, where they may be listed."""
    for place in places:
        try:
            return _Listed(tuple(await mesh.list(kind, place)), place is None)
        except MeshError:
            continue
    return _Listed(None, all=False)


async def _exists(mesh: Mesh, namespace: str) -> bool:
    try:
        await mesh.read(Ref(Kind.NAMESPACE, "", namespace))
    except NotFound:
        return False
    except MeshError:
        return True
    return True


async def read_build(mesh: Mesh, plan: Plan) -> tuple[Build, str | None]:
    """Return what the pods of the subject are made of, and why that is not known where it is not."""
    where = plan.pods.namespace
    unknown = f"which image and revision of {plan.subject} is tested is not known: "
    try:
        found = build_of(await mesh.list(Kind.POD, where), plan.pods.labels)
    except MeshDenied:
        return Build(0), f"{unknown}pods in {where} may not be listed (the rule is in deploy/runs.yaml)"
    except MeshError as error:
        return Build(0), f"{unknown}the pods in {where} could not be listed: {error.message}"
    labels = ",".join(f"{name}={value}" for name, value in sorted(plan.pods.labels.items()))
    return found, None if found.pods else f"{unknown}no running pod in {where} has the labels {labels}"


def check_foreign(plan: Plan) -> None:
    """Refuse an object that already carries routes of ours, of another run: nothing may be built on a leftover."""
    routes = plan.virtual_service["spec"].get("http") or []
    left = [str(route.get("name")) for route in routes if ours(route)]
    name = f"{plan.injection.namespace}/{plan.injection.virtual_service}"
    if left:
        raise PlanRefused(
            "already_injected",
            f"VirtualService {name} already carries {', '.join(left)}",
            next_step=f"`luff restore -n {plan.injection.namespace}` takes out what was left behind; `luff status` shows whether "
            "a run is live, which is waited for or ended with `luff stop RUN`",
        )


async def preflight(mesh: Mesh, plan: Plan) -> None:
    """Check the lever and let the server try the patch without keeping it; raises what would have gone wrong."""
    check_foreign(plan)
    await check_lever(mesh, plan.injection.namespace)
    ref = Ref(Kind.VIRTUAL_SERVICE, plan.injection.namespace, plan.injection.virtual_service)
    try:
        tried = await mesh.patch(ref, plan.injection.operations, dry_run=True)
    except Rejected as error:
        raise PlanRefused(
            "refused_by_server",
            f"the API server would refuse the twins: {error.message}",
            next_step="`luff plan` shows them",
        ) from error
    if lost := plan.injection.missing_in(tried):
        raise PlanRefused(
            "renamed_by_server",
            f"{ref} would not show {', '.join(lost)}: a webhook takes away or changes the names of routes, and by their"
            " names they are taken out again",
            next_step="let the webhook leave routes alone whose name begins with `luff.`",
        )
