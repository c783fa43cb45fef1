"""
The objects of the lab's API server: versions, history, preconditions, ownership.

Knows nothing of HTTP. Objects are kept in their preferred version and never
changed in place, so whoever holds one may keep it; those handed out by
`Store.objects` and to subscribers are copies.
"""

from __future__ import annotations

import copy
import json
import logging
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from luff.lab.conversion import content, give_defaults, served, stored, without_times
from luff.lab.ownership import (
    Applied,
    Owners,
    applied_to,
    leaves,
    managed_fields,
    owners_after,
    owners_given,
    refuse_conflicts,
)
from luff.lab.resources import RESOURCES, Resource, timestamp
from luff.lab.statuses import ApiError, invalid
from luff.lab.wellformed import event_problems, metadata_problems, name_problems
from luff.lab.writes import Change, Preconditions, Write
from luff.model import Object

__all__ = ["Backup", "Store", "Subscriber"]

HISTORY = 1000
"""How many changes a watch can go back."""
MOST_BYTES = 3 * 512 * 1024
"""The largest object that etcd takes."""

Subscriber: TypeAlias = Callable[[str, Object], None]
Validate: TypeAlias = Callable[[Object], tuple[list[str], list[str]]]
Schema: TypeAlias = Callable[[Object], list[str]]
Key: TypeAlias = tuple[str, str]
Objects: TypeAlias = list[Object]
Changes: TypeAlias = list[Change]

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backup:
    """This is everything in a store at one revision."""

    revision: int
    objects: Mapping[tuple[str, str], Mapping[Key, Object]]
    owners: Mapping[str, Owners]


class Store:
    """This is every object of one lab. Thread safe; every method is atomic."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] | None = None,
        validate: Validate | None = None,
        schema: Schema | None = None,
    ) -> None:
        self._now = now or (lambda: datetime.now(UTC))
        self._validate = validate
        self._schema = schema
        self._lock = threading.RLock()
        self._objects: dict[tuple[str, str], dict[Key, Object]] = {}
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._revision = 1
        self._subscribers: list[Subscriber] = []
        self._owners: dict[str, Owners] = {}
        self.epoch = 0
        """How often it was restored; what was read in an earlier one may never have been."""
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    @property
    def revision(self) -> int:
        """The resourceVersion of the newest change."""
        with self._lock:
            return self._revision

    def subscribe(self, callback: Subscriber) -> None:
        """Call *callback* with (ADDED, MODIFIED or DELETED; object) after each change, in order, in the writer's thread."""
        with self._lock:
            self._subscribers.append(callback)

    def unsubscribe(self, callback: Subscriber) -> None:
        """Stop calling *callback*."""
        with self._lock:
            self._subscribers = [kept for kept in self._subscribers if kept != callback]

    def objects(self, plural: str, namespace: str | None = None) -> Objects:
        """Return copies of all objects of that plural, by namespace and name."""
        with self._lock:
            found = [
                object_
                for kept_in, objects in self._objects.items()
                if kept_in[1] == plural
                for key, object_ in objects.items()
                if namespace in {None, key[0]}
            ]
        found.sort(key=lambda object_: (object_["metadata"].get("namespace", ""), object_["metadata"]["name"]))
        return copy.deepcopy(found)

    def put(self, object_: Object, *, manager: str = "luff-lab") -> Object:
        """Create *object_*, or replace what is there by that name whatever its version. For the lab's own use."""
        group, _, version = str(object_["apiVersion"]).rpartition("/")
        for resource in RESOURCES:
            if (resource.group, resource.kind) == (group, object_["kind"]) and version in resource.versions:
                break
        else:
            raise ApiError.no_such_path()
        metadata = dict(object_["metadata"])
        namespace = (metadata.get("namespace") or "default") if resource.namespaced else ""
        write = Write(manager=manager, version=version)
        with self._lock:
            old = self._kept(resource).get((namespace, metadata.get("name", "")))
            if old is None:
                return self.create(resource, namespace, object_, write)
            metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
            return self.replace(resource, namespace, metadata["name"], {**object_, "metadata": metadata}, write)

    def get(self, resource: Resource, namespace: str, name: str, *, revision: int | None = None) -> Object:
        """Return one object, if asked as it was at *revision*."""
        objects = self._kept(resource) if revision is None else self._at(resource, revision)
        object_ = objects.get((namespace, name))
        if object_ is None:
            raise ApiError.not_found(resource.group, resource.plural, name)
        return object_

    def list(
        self, resource: Resource, namespace: str | None = None, *, revision: int | None = None
    ) -> tuple[Objects, int]:
        """Return all objects in *namespace*, or everywhere, and the revision at which that was so."""
        with self._lock:
            objects = self._kept(resource) if revision is None else self._at(resource, revision)
            found = sorted(
                (key, id(object_), object_) for key, object_ in objects.items() if namespace in {None, key[0]}
            )
            return [object_ for _, _, object_ in found], self._revision if revision is None else revision

    def changes(self, resource: Resource, since: int) -> tuple[Changes, int]:
        """Return the changes after revision *since* and the newest revision; 410 when history does not reach back."""
        with self._lock:
            self._reach(since)
            kept_in = resource.stored_as
            found = [change for change in self._history if change.revision > since and change.kept_in == kept_in]
            return found, self._revision

    def create(
        self, resource: Resource, namespace: str, object_: Object, write: Write, *, applied: Applied | None = None
    ) -> Object:
        """Create *object_* and return it as it is now."""
        with self._lock:
            new = stored(resource, object_)
            metadata = dict(new.get("metadata") or {})
            if metadata.get("resourceVersion"):
                raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
            self._in_its_place(resource, namespace, metadata)
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"][:58] + "".join(random.choices(_LETTERS, k=5))
            name = metadata.get("name") or ""
            problems = name_problems(resource, name, metadata.get("generateName"))
            problems += metadata_problems(metadata)
            problems += event_problems(new, resource.group, namespace) if resource.plural == "events" else []
            if problems:
                # Events are one kind, whichever group they come by.
                raise invalid("" if resource.plural == "events" else resource.group, resource.kind, name, problems)
            if resource.namespaced:
                self._refuse_without_namespace(resource, namespace, name)
            if (namespace, name) in self._kept(resource):
                raise ApiError.already_exists(resource.group, resource.plural, name)
            for system in (
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "selfLink",
                "generation",
                "managedFields",
            ):
                metadata.pop(system, None)
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(self._now())}
            if resource.generation:
                metadata["generation"] = 1
            new["metadata"] = metadata
            if resource.status:
                new.pop("status", None)
            give_defaults(resource, new)
            new = self._admitted(resource, new, write)
            owners = self._owners_of(resource, None, new, write, applied)
            made = self._commit(resource, namespace, name, None, new, write, owners)
            write.created = True
            return made

    def replace(self, resource: Resource, namespace: str, name: str, object_: Object, write: Write) -> Object:
        """Put *object_* in place of what is there."""
        with self._lock:
            new = stored(resource, object_)
            metadata = new.get("metadata") or {}
            if metadata.get("name") not in {None, "", name}:
                said = f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})"
                raise ApiError.bad_request(said)
            if not metadata.get("name"):
                raise ApiError.bad_request("name must be provided")
            old = self._kept(resource).get((namespace, name))
            if old is None:
                if resource.upsert:
                    # A resourceVersion that it has still from before it was deleted is no hindrance.
                    unversioned = {key: value for key, value in metadata.items() if key != "resourceVersion"}
                    return self.create(resource, namespace, {**object_, "metadata": unversioned}, write)
                raise ApiError.not_found(resource.group, resource.plural, name)
            if not metadata.get("resourceVersion") and not resource.unconditional:
                problem = ("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
                raise invalid(resource.group, resource.plural, name, [problem])
            uid, known = metadata.get("uid"), old["metadata"]["uid"]
            if uid not in {None, "", known}:
                raise ApiError.conflict(
                    resource.group, resource.plural, name, _other_uid(resource, namespace, name, uid, known)
                )
            return self._update(resource, namespace, name, old, new, write)

    def patch(
        self, resource: Resource, namespace: str, name: str, change: Callable[[Object], Object], write: Write
    ) -> Object:
        """Apply *change* to what is there now."""
        with self._lock:
            old = self.get(resource, namespace, name)
            new = stored(resource, change(served(resource, old, write.version)))
            return self._update(resource, namespace, name, old, new, write)

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Object, write: Write, *, force: bool = False
    ) -> Object:
        """Apply *config* as its field manager wants it (server-side apply): 409 when another one owns a field of it."""
        with self._lock:
            config = stored(resource, config)
            given = config.get("metadata") or {}
            if given.get("name", name) != name or given.get("namespace", namespace) != namespace:
                raise ApiError.bad_request("the name or namespace of the object does not match that on the URL")
            old = self._kept(resource).get((namespace, name))
            wanted = leaves(config)
            mine = (write.manager, "Apply", resource.api_version(write.version), write.subresource or "")
            if old is None:
                base = applied_to(dict(config, metadata={"name": name}), wanted, mine, {})
                return self.create(resource, namespace, base, write, applied=(mine, frozenset(wanted)))
            owners = self._owners.get(old["metadata"]["uid"], {})
            if not force:
                refuse_conflicts(old, wanted, mine, owners)
            base = applied_to(old, wanted, mine, owners)
            base["metadata"]["resourceVersion"] = given.get("resourceVersion", "")
            return self._update(resource, namespace, name, old, base, write, applied=(mine, frozenset(wanted)))

    def delete(
        self, resource: Resource, namespace: str, name: str, write: Write, preconditions: Preconditions | None = None
    ) -> tuple[Object, bool]:
        """Delete one object; return it and whether it is gone (else its finalizers hold it)."""
        with self._lock:
            old = self.get(resource, namespace, name)
            metadata = old["metadata"]
            asked = preconditions or Preconditions()
            if asked.uid is not None and asked.uid != metadata["uid"]:
                why = (
                    f"the UID in the precondition ({asked.uid}) does not match the UID in record ({metadata['uid']}). "
                    "The object might have been deleted and then recreated"
                )
                raise ApiError.conflict(resource.group, resource.kind, name, why)
            if asked.resource_version is not None and asked.resource_version != metadata["resourceVersion"]:
                why = (
                    f"the ResourceVersion in the precondition ({asked.resource_version}) does not match the "
                    f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have been modified"
                )
                raise ApiError.conflict(resource.group, resource.kind, name, why)
            write.admission.validate(old)
            if metadata.get("finalizers"):
                if metadata.get("deletionTimestamp"):
                    return old, False
                new = {
                    **old,
                    "metadata": {
                        **metadata,
                        "deletionTimestamp": timestamp(self._now()),
                        "deletionGracePeriodSeconds": 0,
                    },
                }
                if resource.plural == "namespaces":
                    new["status"] = {"phase": "Terminating"}
                if resource.generation:
                    new["metadata"]["generation"] = metadata.get("generation", 1) + 1
                owners = self._owners.get(metadata["uid"], {})
                return self._commit(resource, namespace, name, old, new, write, owners), False
            if write.dry_run:
                return old, True
            if resource.plural == "namespaces":
                self._empty(name, write)
            return self._remove(resource, (namespace, name), old), True

    def _update(
        self, resource: Resource, namespace: str, name: str, old: Object, new: Object, write: Write, *,
        applied: Applied | None = None,
    ) -> Object:  # fmt: skip
        before = old["metadata"]
        metadata = dict(new.get("metadata") or {})
        # Who sends managedFields may change them; an applier and the status may not.
        given = None if applied is not None or write.subresource else owners_given(metadata.get("managedFields"))
        version = metadata.get("resourceVersion")
        if version not in {None, "", before["resourceVersion"]}:
            raise ApiError.conflict(resource.group, resource.plural, name, _MODIFIED)
        if metadata.get("name") != name:
            said = f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})"
            raise ApiError.bad_request(said)
        if metadata.get("uid") not in {None, "", before["uid"]}:
            problem = ("metadata.uid", f'Invalid value: "{metadata["uid"]}": field is immutable')
            raise invalid(resource.group, resource.kind, name, [problem])
        self._in_its_place(resource, namespace, metadata)
        if write.subresource == "status":
            status = new.get("status")
            new = {**old, **({} if status is None else {"status": status})}
            metadata = dict(before)
        elif resource.status:
            new = {key: value for key, value in new.items() if key != "status"}
            if "status" in old:
                new["status"] = old["status"]
        for system in (
            "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields",
            "resourceVersion", "selfLink",
        ):  # fmt: skip
            metadata.pop(system, None)
            if system in before:
                metadata[system] = before[system]
        for empty in ("labels", "annotations", "finalizers", "ownerReferences"):
            if not metadata.get(empty):
                metadata.pop(empty, None)
        problems = metadata_problems(metadata)
        if problems:
            raise invalid(resource.group, resource.kind, name, problems)
        new = {**new, "metadata": metadata}
        new = self._admitted(resource, new, write)
        metadata = new["metadata"]
        if resource.generation and content(old) != content(new):
            metadata["generation"] = before.get("generation", 1) + 1
        owners = self._owners_of(resource, old, new, write, applied, given)
        if without_times(old) == without_times(new):
            return old
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and not write.dry_run:
            return self._remove(resource, (namespace, name), new)
        return self._commit(resource, namespace, name, old, new, write, owners)

    def _commit(
        self, resource: Resource, namespace: str, name: str, old: Object | None, new: Object, write: Write,
        owners: Owners,
    ) -> Object:  # fmt: skip
        size = len(json.dumps(new, separators=(",", ":"), ensure_ascii=False).encode())
        if size > MOST_BYTES:
            raise ApiError(500, "", "etcdserver: request is too large")
        if write.dry_run:
            return new
        self._revision += 1
        new["metadata"]["resourceVersion"] = str(self._revision)
        self._kept(resource)[namespace, name] = new
        self._owners[new["metadata"]["uid"]] = owners
        self._tell(
            Change(self._revision, "MODIFIED" if old else "ADDED", resource.stored_as, (namespace, name), old, new)
        )
        return new

    def _remove(self, resource: Resource, key: Key, old: Object) -> Object:
        stored = self._kept(resource).pop(key)
        self._revision += 1
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self._revision)}}
        self._owners.pop(gone["metadata"]["uid"], None)
        self._tell(Change(self._revision, "DELETED", resource.stored_as, key, stored, gone))
        return gone

    def _refuse_without_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self._objects.get(("", "namespaces"), {}).get(("", namespace))
        if found is None:
            raise ApiError.not_found("", "namespaces", namespace)
        if found["metadata"].get("deletionTimestamp"):
            raise ApiError.terminating(resource.group, resource.plural, name, namespace)

    def _empty(self, namespace: str, write: Write) -> None:
        for resource in RESOURCES:
            for key, object_ in list(self._kept(resource).items()):
                if resource.namespaced and key[0] == namespace:
                    self._remove(resource, key, object_)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        self._announce(change.type, change.new)

    def _announce(self, type_: str, object_: Object) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(type_, copy.deepcopy(object_))
            except Exception:
                _log.exception("a subscriber failed on %s %s", type_, object_["metadata"].get("name"))

    def _kept(self, resource: Resource) -> dict[Key, Object]:
        return self._objects.setdefault(resource.stored_as, {})

    def _reach(self, revision: int) -> None:
        oldest = self._history[0].revision - 1 if self._history else self._revision
        if revision < oldest:
            raise ApiError.expired(f"too old resource version: {revision} ({oldest})")

    def _at(self, resource: Resource, revision: int) -> dict[Key, Object]:
        with self._lock:
            self._reach(revision)
            objects = dict(self._kept(resource))
            for change in reversed(self._history):
                if change.revision <= revision:
                    break
                if change.kept_in != resource.stored_as:
                    continue
                if change.old is None:
                    objects.pop(change.key, None)
                else:
                    objects[change.key] = change.old
            return objects

    def revision_before(self, changes: int) -> int:
        """Return the revision as it was *changes* changes ago, or the oldest that is known."""
        with self._lock:
            if not self._history:
                return self._revision
            return max(self._revision - changes, self._history[0].revision - 1)

    def backup(self) -> Backup:
        """Return everything as it is now, for `restore`."""
        with self._lock:
            return Backup(
                self._revision, {kind: dict(kept) for kind, kept in self._objects.items()}, dict(self._owners)
            )

    def restore(self, backup: Backup) -> None:
        """
        Be as *backup* was, as an etcd restored from it: resourceVersions go back, and are given out a second time.

        Nothing is in the history, and watches end, as they do when the API server
        is started again. Subscribers hear of everything that is different.
        """
        with self._lock:
            before = self._objects
            self._objects = {kind: dict(kept) for kind, kept in backup.objects.items()}
            self._owners = dict(backup.owners)
            self._revision = backup.revision
            self._history.clear()
            self.epoch += 1
            for kind in before.keys() | self._objects.keys():
                then, now = before.get(kind, {}), self._objects.get(kind, {})
                for key in then.keys() | now.keys():
                    if then.get(key) is not now.get(key):
                        type_ = "DELETED" if key not in now else "MODIFIED" if key in then else "ADDED"
                        self._announce(type_, now.get(key) or then[key])

    def _in_its_place(self, resource: Resource, namespace: str, metadata: Object) -> None:
        if not resource.namespaced:
            metadata.pop("namespace", None)
        elif metadata.get("namespace") not in {None, "", namespace}:
            raise ApiError.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        else:
            metadata["namespace"] = namespace

    def _admitted(self, resource: Resource, new: Object, write: Write) -> Object:
        """Return *new* as webhooks change it; `ApiError` when one refuses it, istiod's among them."""
        if write.subresource:
            return new
        new = write.admission.mutated(new)
        ours = resource.group == "networking.istio.io"
        if ours and self._schema is not None:
            self._refuse_misshapen(resource, served(resource, new, write.version), self._schema)
        write.admission.validate(new)
        if self._validate is None or not ours:
            return new
        problems, warnings = self._validate(copy.deepcopy(served(resource, new, write.version)))
        write.warnings += [warning for warning in warnings if warning not in write.warnings]
        if problems:
            said = "; ".join(problems)
            # istiod gives no reason beside its message.
            raise ApiError(
                400,
                "",
                f'admission webhook "rev.validation.istio.io" denied the request: configuration is invalid: {said}',
            )
        return new

    def _refuse_misshapen(self, resource: Resource, new: Object, schema: Schema) -> None:
        problems = []
        for text in schema(copy.deepcopy(new)):
            where, _, said = text.partition(": ")
            problems.append((where, said if said == "Required value" else f"Invalid value: {said}"))
        if problems:
            raise invalid(resource.group, resource.kind, new["metadata"]["name"], problems)

    def _owners_of(
        self, resource: Resource, old: Object | None, new: Object, write: Write, applied: Applied | None,
        given: Owners | None = None,
    ) -> Owners:  # fmt: skip
        known = self._owners.get(new["metadata"]["uid"], {})
        me = (write.manager, "Update", resource.api_version(write.version), write.subresource or "")
        fields = None
        if applied is not None:
            me, fields = applied
        owners = owners_after(old, new, known if given is None else given, me, fields)
        if owners != known or old is None:
            before = (old or {}).get("metadata", {}).get("managedFields", [])
            new["metadata"]["managedFields"] = managed_fields(owners, before, timestamp(self._now()))
        return owners


def _other_uid(resource: Resource, namespace: str, name: str, wanted: str, known: str) -> str:
    """Return what storage says to who puts an object of another uid in place of one."""
    key = "/".join(filter(None, ("/registry", resource.group, resource.plural, namespace, name)))
    return (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: "
        f"UID in precondition: {wanted}, UID in object meta: {known}"
    )
