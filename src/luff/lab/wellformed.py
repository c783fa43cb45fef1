"""What the API server asks of every object's metadata (names, labels, annotations), and of an Event."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from luff.lab.resources import Resource
from luff.model import Object

__all__ = ["event_problems", "metadata_problems", "name_problems"]

MOST_ANNOTATION_BYTES = 262_144
MOST_EVENT_BYTES = {"message": 1024, "reason": 128, "action": 128, "reportingInstance": 128}

Problem: TypeAlias = tuple[str, str]
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SUBDOMAIN_SAID = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_SAID = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_KEY_SAID = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_SAID = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def name_problems(resource: Resource, name: Any, generate_name: Any) -> list[Problem]:
    """Return what is wrong with an object's *name*, and with the *generate_name* that it was made of."""
    if not name or not isinstance(name, str):
        return [("metadata.name", "Required value: name or generateName is required")]
    problems: list[Problem] = []
    if generate_name:
        # A hyphen at its end, and whatever stands before that, are taken for well spelt.
        spelt = re.sub("(?s).-$", "a", str(generate_name))
        problems += _spelling_problems(resource, "metadata.generateName", str(generate_name), spelt)
    return problems + _spelling_problems(resource, "metadata.name", name, name)


def _spelling_problems(resource: Resource, where: str, name: str, spelt: str) -> list[Problem]:
    short = resource.plural in {"namespaces", "services"}
    if len(spelt) > (63 if short else 253):
        return [(where, f'Invalid value: "{name}": must be no more than {63 if short else 253} characters')]
    if not (_LABEL if short else _SUBDOMAIN).fullmatch(spelt):
        return [(where, f'Invalid value: "{name}": {_LABEL_SAID if short else _SUBDOMAIN_SAID}')]
    return []


def metadata_problems(metadata: Object) -> list[Problem]:
    """Return what is wrong with an object's labels and annotations."""
    problems: list[Problem] = []
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    for where, entries in (("metadata.labels", labels), ("metadata.annotations", annotations)):
        if not isinstance(entries, dict):
            return [(where, "Invalid value: must be of type object")]
        for key, value in entries.items():
            if not isinstance(value, str):
                problems.append((where, f"Invalid value: {key}: must be of type string"))
            elif not _is_key(key.lower() if where.endswith("annotations") else key):
                problems.append((where, f'Invalid value: "{key}": {_KEY_SAID}'))
            elif where.endswith("labels") and len(value) > 63:
                problems.append((where, f'Invalid value: "{value}": must be no more than 63 characters'))
            elif where.endswith("labels") and not _VALUE.fullmatch(value):
                problems.append((where, f'Invalid value: "{value}": {_VALUE_SAID}'))
    if not problems and sum(len(key.encode()) + len(annotations[key].encode()) for key in annotations) > (
        MOST_ANNOTATION_BYTES
    ):
        problems.append(("metadata.annotations", f"Too long: may not be more than {MOST_ANNOTATION_BYTES} bytes"))
    return problems


def event_problems(event: Object, group: str, namespace: str) -> list[Problem]:
    """Return what is wrong with a new *event*, given as it is kept, that was sent to *group* in *namespace*."""
    problems: list[Problem] = []
    about = str((event.get("involvedObject") or {}).get("namespace") or "")
    # Of what has no namespace it is in the default one.
    if not group and namespace != (about or "default"):
        problems.append(("involvedObject.namespace", f'Invalid value: "{about}": does not match event.namespace'))
    if not event.get("eventTime"):
        # Whoever sends one of the old kind to the old group need not say more.
        return [("eventTime", "Required value")] if group else problems
    if group and event.get("type") not in {"Normal", "Warning"}:
        problems.append(("type", 'Invalid value: "": has invalid value: ' + str(event.get("type") or "")))
    for field, called in (
        ("reportingComponent", "reportingController" if group else "reportingComponent"),
        ("reportingInstance", "reportingInstance"),
        ("action", "action"),
        ("reason", "reason"),
    ):
        if not event.get(field):
            problems.append((called, "Required value"))
        elif called.startswith("reporting") and called != "reportingInstance" and not _is_key(str(event[field])):
            problems.append((called, f'Invalid value: "{event[field]}": {_KEY_SAID}'))
    for field, most in MOST_EVENT_BYTES.items():
        if len(str(event.get(field) or "").encode(errors="replace")) > most:
            problems.append((field, f'Invalid value: "": can have at most {most} characters'))
    return problems


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None
