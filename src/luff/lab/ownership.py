"""Who owns which field: managedFields, and the conflicts of server-side apply."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from luff.lab.statuses import ApiError
from luff.model import Object

__all__ = [
    "Applied",
    "Fields",
    "Owner",
    "Owners",
    "applied_to",
    "leaves",
    "managed_fields",
    "owners_after",
    "owners_given",
    "refuse_conflicts",
]

Fields: TypeAlias = frozenset[tuple[str, ...]]
"""Paths of leaves. A list is one leaf, as it is in custom resources."""
Owner: TypeAlias = tuple[str, str, str, str]
"""A field manager, Update or Apply, the version it used, the subresource."""
Applied: TypeAlias = tuple[Owner, Fields]
Path: TypeAlias = tuple[str, ...]
Owners: TypeAlias = dict[Owner, Fields]

_SYSTEM = {
    "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp", "name",
    "namespace", "selfLink", "generateName",
}  # fmt: skip


def leaves(object_: Object) -> dict[tuple[str, ...], Any]:
    """Return every leaf of *object_* that somebody can own, by its path."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict) and (value or not path):
            for key, inner in value.items():
                if not path and key in {"apiVersion", "kind"}:
                    continue
                if path == ("metadata",) and key in _SYSTEM:
                    continue
                walk(inner, (*path, key))
        elif path != ("metadata",):
            found[path] = value

    walk(object_, ())
    return found


def fields_v1(paths: Fields) -> Object:
    """Return *paths* as the nested ``f:`` object of managedFields."""
    tree: Object = {}
    for path in sorted(paths):
        place = tree
        for step in path:
            place = place.setdefault(f"f:{step}", {})
    return tree


def owners_given(entries: object) -> Owners | None:
    """
    Return who owns what by managedFields that a client sent; ``None`` when the server's own are to stay.

    A list of one empty entry resets them, an empty list or one that makes no sense changes nothing.
    """
    if not isinstance(entries, list) or not entries:
        return None
    if entries == [{}]:
        return {}
    owners: Owners = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("operation") not in ("Update", "Apply"):
            return None
        fields = entry.get("fieldsV1")
        if not isinstance(fields, dict):
            return None
        who = (
            str(entry.get("manager", "")),
            str(entry["operation"]),
            str(entry.get("apiVersion", "")),
            str(entry.get("subresource", "")),
        )
        owners[who] = owners.get(who, frozenset()) | frozenset(_paths_in(fields, ()))
    return owners


def _paths_in(fields: Object, path: Path) -> Iterator[Path]:
    for key, inner in fields.items():
        if key.startswith("f:") and isinstance(inner, dict):
            below = (*path, key.removeprefix("f:"))
            if inner:
                yield from _paths_in(inner, below)
            else:
                yield below


def refuse_conflicts(old: Object, wanted: Mapping[Path, Any], mine: Owner, owners: Owners) -> None:
    """Raise the 409 of server-side apply when somebody else owns a leaf of *old* that is *wanted* otherwise."""
    live = leaves(old)
    found = [
        (
            _called(who),
            ["." + ".".join(path) for path in sorted(owned & wanted.keys()) if live.get(path) != wanted[path]],
        )
        for who, owned in sorted(owners.items())
        if who[0:2] != mine[0:2]
    ]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": field}
        for who, fields in found
        for field in fields
    ]
    if not causes:
        return
    if len(causes) == 1:
        said = f"1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        told = ["\n- ".join([f"conflicts with {who}:", *fields]) for who, fields in found if fields]
        said = f"{len(causes)} conflicts: " + "\n".join(told)
    raise ApiError(409, "Conflict", f"Apply failed with {said}", details={"causes": causes})


def _called(who: Owner) -> str:
    manager, operation, version, subresource = who
    called = f'"{manager}"' + (f' with subresource "{subresource}"' if subresource else "")
    return f"{called} using {version}" if operation == "Update" else called


def applied_to(old: Object, wanted: Mapping[Path, Any], mine: Owner, owners: Owners) -> Object:
    """Return *old* with every *wanted* leaf in place, and without those that only this applier wanted before."""
    new = copy.deepcopy(old)
    others = {path for who, owned in owners.items() if who != mine for path in owned}
    for path in owners.get(mine, frozenset()) - wanted.keys() - others:
        _take(new, path)
    for path, value in wanted.items():
        _put(new, path, copy.deepcopy(value))
    return new


def owners_after(old: Object | None, new: Object, known: Owners, me: Owner, applied: Fields | None) -> Owners:
    """Return who owns what once *me* has made *new* of *old*; *applied* is the whole configuration of an applier."""
    before = {} if old is None else leaves(old)
    after = leaves(new)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    gone = frozenset(before.keys() - after.keys())
    owners = {who: owned - gone - (changed if who != me else frozenset()) for who, owned in known.items()}
    if applied is not None:
        owners[me] = applied
    elif changed:
        owners[me] = owners.get(me, frozenset()) | changed
    return {who: owned for who, owned in owners.items() if owned}


def managed_fields(owners: Owners, before: Sequence[Object], now: str) -> list[Object]:
    """Return *owners* as metadata.managedFields; entries that stay as they were keep their time."""
    entries: list[Object] = []
    for (manager, operation, api_version, subresource), owned in owners.items():
        entry: Object = {
            "manager": manager,
            "operation": operation,
            "apiVersion": api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields_v1(owned),
            **({"subresource": subresource} if subresource else {}),
        }
        same = [known for known in before if {**known, "time": now} == entry]
        entries.append(same[0] if same else entry)
    return entries


def _put(object_: Object, path: Path, value: Any) -> None:
    place = object_
    for step in path[:-1]:
        inner = place.get(step)
        if not isinstance(inner, dict):
            inner = place[step] = {}
        place = inner
    if value != {} or not isinstance(place.get(path[-1]), dict):
        place[path[-1]] = value


def _take(object_: Object, path: Path) -> None:
    places: list[Object] = [object_]
    for step in path[:-1]:
        inner = places[-1].get(step)
        if not isinstance(inner, dict):
            return
        places.append(inner)
    places[-1].pop(path[-1], None)
    for place, step in zip(reversed(places[:-1]), reversed(path[:-1]), strict=True):
        if place[step] == {}:
            del place[step]
