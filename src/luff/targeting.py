"""
From a target and what was read to the object whose routes are copied, and to those that lead there.

A host is looked up as a sidecar does. What is found may delegate: then the
leaf is what gets the twins, wherever it is, and the routes that delegate to it
are what decides whether a proxy ever sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luff.claims import coverage, hosts_of, key_of, on_mesh, ports_of
from luff.delegates import merged_route, root_routes
from luff.errors import PlanRefused
from luff.hosts import DOMAIN, MESH, matches, meanings
from luff.model import Object, Target
from luff.selection import Selection, called, check_gateways, select

__all__ = ["Found", "MeshView", "find"]


@dataclass(frozen=True, slots=True)
class MeshView:
    """
    This is what plan needs to have read: the objects of the target's namespace, raw.

    *elsewhere* are the VirtualServices of other namespaces, as far as they may
    be read: one of those may be the one that proxies use. *everywhere* says that
    they are all of them. *destination_rules* are those that could be read,
    ``None`` where none could; *every_rule* says that they are all of the mesh's.
    """

    kind: Literal["lab", "cluster"]
    namespace: str
    virtual_services: tuple[Object, ...]
    services: tuple[Object, ...] = ()
    namespace_exists: bool = True
    elsewhere: tuple[Object, ...] = ()
    everywhere: bool = False
    destination_rules: tuple[Object, ...] | None = None
    every_rule: bool = False

    def beside(self, earlier: MeshView) -> MeshView:
        """Return this with what an *earlier* look found beside the objects of the namespace."""
        return replace(
            self,
            elsewhere=earlier.elsewhere,
            everywhere=earlier.everywhere,
            destination_rules=earlier.destination_rules,
            every_rule=earlier.every_rule,
        )

    @property
    def all_virtual_services(self) -> tuple[Object, ...]:
        """Return all that could be read, those of the target's namespace first."""
        return (*self.virtual_services, *self.elsewhere)


@dataclass(frozen=True, slots=True)
class Found:
    """
    This is where a target is in *view*.

    *root* is what proxies look up by host, *leaf* what gets the twins: the same
    object unless *root* delegates. *also* are the names of other objects that
    delegate to *leaf*.
    """

    view: MeshView
    root: Object
    selection: Selection
    also: tuple[str, ...] = ()

    @property
    def leaf(self) -> Object:
        """Return the object that gets the twins."""
        return self.selection.object_

    @property
    def target(self) -> Target:
        """Return what was looked for; in a leaf that was followed to, without the names of the root's routes."""
        return self.selection.target

    @property
    def for_sidecars(self) -> bool:
        """Return whether sidecars are meant, and not gateways alone."""
        return on_mesh(self.root) and (not self.target.gateways or MESH in self.target.gateways)

    @property
    def hosts(self) -> list[str]:
        """Return the full names of the hosts that callers call: the target's, else all that the root claims."""
        claimed = hosts_of(self.root)
        if self.target.host is None:
            return claimed
        meant = meanings(self.target.host, self.target.namespace or key_of(self.root)[0])
        return [host for host in meant if any(matches(own, host) for own in claimed)] or claimed

    @property
    def called_ports(self) -> set[int]:
        """Return the ports on which the target is called, empty when they are not known."""
        port = self.target.port
        return {port} if port is not None else ports_of(self.hosts, self.view.services)

    @property
    def merged(self) -> list[tuple[str, Object]]:
        """Return the selected routes as proxies are given them, each below each of its roots, with what to call it."""
        made: list[tuple[str, Object]] = []
        for index in self.selection.indices:
            route = self.leaf["spec"]["http"][index]
            roots = self.selection.roots
            below = [merged_route(root, self.leaf, route) for root in roots] if roots else [route]
            made += [(called(route, index), each) for each in below if each is not None]
        return made


def find(target: Target, view: MeshView) -> Found:
    """
    Return where *target* is in *view*.

    Raises `PlanRefused` where it is not there, or is not one object.
    """
    named = _named(target, view)
    if named["spec"].get("hosts"):
        return _follow(named, target, view)
    return _leaf_by_name(named, target, view)


def _leaf_by_name(leaf: Object, target: Target, view: MeshView) -> Found:
    """Return a delegate that was named itself, with every route that leads to it."""
    roots = root_routes(leaf, view.all_virtual_services)
    objects = {key_of(each.root): each.root for each in roots}
    for root in objects.values():
        check_gateways(root, target, view.namespace)
    root = next(iter(objects.values())) if len(objects) == 1 else leaf
    return Found(view, root, select(leaf, target, namespace=view.namespace, roots=roots))


def _named(target: Target, view: MeshView) -> Object:
    if not view.namespace_exists:
        raise PlanRefused(
            "unknown_namespace",
            f"there is no namespace {view.namespace}",
            next_step="name the right one in target.namespace, metadata.namespace or with -n",
        )
    if target.virtual_service is None:
        assert target.host is not None, "parse sees to it that a target has a host or a VirtualService"
        return _for_host(target.host, target, view)
    for candidate in view.virtual_services:
        if candidate["metadata"]["name"] == target.virtual_service:
            return candidate
    known = ", ".join(sorted(c["metadata"]["name"] for c in view.virtual_services)) or "none"
    others = sorted(ns for ns, name in map(key_of, view.elsewhere) if name == target.virtual_service)
    raise PlanRefused(
        "unknown_virtual_service",
        f"there is no VirtualService {target.virtual_service} in the namespace {view.namespace}; there are: {known}",
        next_step=_set_namespace(others) if others else "correct target.virtualService, or name the host instead",
    )


def _set_namespace(namespaces: Sequence[str]) -> str:
    first, *rest = namespaces
    return f"set metadata.namespace: {first}" + (f" (or {', '.join(rest)})" if rest else "")


def _for_host(host: str, target: Target, view: MeshView) -> Object:
    # The likeliest meaning that some object claims by its very name wins, then any that a wildcard takes.
    wanted = meanings(host, view.namespace)
    found = _claims(wanted, target, view, exact=True) or _claims(wanted, target, view, exact=False)
    if len(found) > 1:
        names = ", ".join(sorted(c["metadata"]["name"] for c in found))
        raise PlanRefused(
            "several_virtual_services",
            f"{names} all claim the host {wanted[0]}; sidecars do not merge them and use only the oldest",
            next_step="keep one VirtualService per host, or name the one that counts in target.virtualService",
        )
    if found:
        return found[0]
    elsewhere = _namespaces_with(host, view)
    services = {service["metadata"]["name"] for service in view.services}
    short = wanted[0].removesuffix(f".{view.namespace}.{DOMAIN}")
    if view.services and short not in services:
        known = ", ".join(sorted(services)) or "none"
        raise PlanRefused(
            "unknown_host",
            f"there is no service {short} in the namespace {view.namespace}; there are: {known}",
            next_step=_set_namespace(elsewhere) if elsewhere else "correct target.host",
        )
    if elsewhere:
        raise PlanRefused(
            "no_virtual_service",
            f"the host {short} has no VirtualService in the namespace {view.namespace}, and one in {', '.join(elsewhere)}",
            next_step=_set_namespace(elsewhere),
        )
    raise PlanRefused(
        "no_virtual_service",
        f"the host {wanted[0]} has no VirtualService in the namespace {view.namespace}, so there is no route to copy",
        next_step=f"commit this one and run again:\n{_plain(short, view.namespace)}",
    )


def _namespaces_with(host: str, view: MeshView) -> list[str]:
    """Return the other namespaces that have a VirtualService for what *host* means there, or for its very name."""
    found = set()
    for candidate in view.elsewhere:
        namespace = key_of(candidate)[0]
        if on_mesh(candidate) and set(meanings(host, namespace)) & set(hosts_of(candidate)):
            found.add(namespace)
    return sorted(found)


def _claims(wanted: Sequence[str], target: Target, view: MeshView, *, exact: bool) -> list[Object]:
    """Return the objects for sidecars that claim the first of *wanted* that any claims, those with the closest host."""
    for host in wanted:
        closest: dict[int, list[Object]] = {}
        for candidate in filter(on_mesh, view.virtual_services):
            fits = [own for own in hosts_of(candidate) if matches(own, host) and not (exact and own.startswith("*"))]
            if fits:
                closest.setdefault(max(map(len, fits)), []).append(candidate)
        if closest:
            found = closest[max(closest)]
            if not exact:
                return found
            ports = {target.port} if target.port is not None else ports_of({host}, view.services)
            # One without a route for these callers is passed over by their sidecars, unless there is no other.
            counted = [each for each in found if coverage(each, ports=ports, labels=target.from_) != "nobody"]
            return counted or found
    return []


def _plain(host: str, namespace: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\n"
        "kind: VirtualService\n"
        f"metadata: {{name: {host.split('.')[0]}, namespace: {namespace}}}\n"
        "spec:\n"
        f"  hosts: [{host}]\n"
        "  http:\n"
        f"    - route: [{{destination: {{host: {host}}}}}]"
    )


def _follow(root: Object, target: Target, view: MeshView) -> Found:
    """Return *root*, or the one leaf that it delegates to."""
    selection = select(root, target, namespace=view.namespace)
    if not selection.delegates:
        return Found(view, root, selection)
    if selection.indices or len(set(selection.delegates)) > 1:
        raise PlanRefused(
            "several_objects",
            f"VirtualService {root['metadata']['name']} routes to the target itself and through delegates; one run patches one object",
            next_step="name the object that you mean in target.virtualService, or the routes in target.routes",
        )
    leaf = _delegate(root, selection.delegates[0], view)
    every = root_routes(leaf, view.all_virtual_services)
    mine = tuple(
        each
        for each in every
        if key_of(each.root) == key_of(root) and (not target.routes or each.route.get("name") in target.routes)
    )
    also = sorted({"/".join(key_of(each.root)) for each in every if each not in mine})
    # The names are of the root's routes; in the leaf they mean all that is there.
    inner = target.model_copy(update={"routes": ()})
    return Found(view, root, select(leaf, inner, namespace=view.namespace, roots=mine), tuple(also))


def _delegate(root: Object, wanted: tuple[str, str], view: MeshView) -> Object:
    name, namespace = "/".join(wanted), wanted[0]
    found = next((each for each in view.all_virtual_services if key_of(each) == wanted), None)
    if found is not None and not (found.get("spec") or {}).get("hosts"):
        return found
    where = f"VirtualService {root['metadata']['name']} delegates to {name}"
    if found is not None:
        raise PlanRefused(
            "delegate_missing",
            f"{where}, which has hosts and so is no delegate: Istio ignores that route",
            next_step=f"take the hosts out of {name}, or target it by a host of its own",
        )
    if namespace != view.namespace and not view.everywhere:
        raise PlanRefused(
            "delegate_unread",
            f"{where}, and the VirtualServices of {namespace} could not be read",
            next_step=f"let luff read them: `get` and `list` on virtualservices in {namespace}",
        )
    raise PlanRefused(
        "delegate_missing",
        f"{where}, which is not there: Istio ignores that route",
        next_step=f"create {name}, or take the delegate out",
    )
