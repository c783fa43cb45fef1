"""
The short forms, written out on the nodes, so that every value keeps its place.

`spell` turns what may be written shortly into the long form that people may
write too; ``--set`` works on that. `shape` then turns the lists whose items
are named by their kind (``expect``, ``abortOn``) into what the models take.
What is refused here is marked, so that the models do not complain again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from luff.units import parse_duration_s, write_duration
from luff.yaml_nodes import Fields, Items, Node, Place, Problems, Scalar, did_you_mean, mapping

__all__ = ["BESIDE_VIA", "EXPECTATION_PARTS", "QUANTILES", "TRIPWIRE_PARTS", "shape", "spell"]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_ANSWER = ("status", "body", "json", "header")
EXPECTATION_PARTS: Mapping[str, tuple[str, ...]] = {
    "latency": tuple(QUANTILES),
    "errors": ("atMost", "status"),
    "answer": (*_ANSWER, "atLeast"),
    "fallback": (*_ANSWER, "atLeast"),
    "attempts": ("of", "atMost", "atLeast"),
    "noWorseThan": ("arm", "by"),
    "recovery": ("within",),
}
"""The kinds of expectation, and what may be written in each."""
TRIPWIRE_PARTS: Mapping[str, tuple[str, ...]] = {
    "control": ("errors",),
    "prometheus": ("query", "above", "for"),
    "http": ("url", "status"),
}
BESIDE_VIA = ("connect", "tls", "protocol")
"""What may be written in ``traffic`` beside ``via`` as well as in it."""
_BESIDE = ("id", "arm")
_REQUEST = re.compile(r"(?:([A-Za-z]+)\s+)?(\S+)", re.ASCII)


def spell(kind: str, spec: Fields, problems: Problems) -> None:
    """Write out every short form in *spec*, the ``spec`` of a document of *kind*. Doing it again changes nothing."""
    if kind == "Experiment":
        _spell_experiment(spec, problems)
    elif kind == "LabWorkload":
        _wrap(spec, "ready", "path")
    elif kind == "Suite":
        for entry in _replace_items(spec.fields.get("experiments"), "ref"):
            _spell_matrix(entry)
    elif kind == "GameDay":
        skip = spec.fields.get("skipWhen")
        for index, item in enumerate(skip.items if isinstance(skip, Items) else []):
            if isinstance(item, Scalar) and item.value == "canaryProgressing" and isinstance(skip, Items):
                skip.items[index] = mapping(item.place, {"canaryProgressing": Scalar(item.place, True, quoted=True)})


def shape(kind: str, spec: Fields, problems: Problems) -> None:
    """Turn the items of ``expect`` and ``abortOn`` into what the models take; call it once, after `spell`."""
    if kind != "Experiment":
        return
    expect = spec.fields.get("expect")
    if isinstance(expect, Items):
        if not expect.items:
            problems.add(expect.place, "expect is empty", "leave it out to get the defaults, or write an expectation")
        expect.items = [_shaped_expectation(item, problems) for item in expect.items]
        _name_expectations(expect.items, problems)
    abort_on = spec.fields.get("abortOn")
    if isinstance(abort_on, Items):
        abort_on.items = [_shaped_tripwire(item, problems) for item in abort_on.items]
        _always_watch_control(abort_on, problems)
    _sum_stages(spec.fields.get("traffic"))


def _sum_stages(traffic: Node | None) -> None:
    """Let the duration be what the stages add up to, where it is not written."""
    stages = traffic.fields.get("stages") if isinstance(traffic, Fields) else None
    if (
        not isinstance(traffic, Fields)
        or not isinstance(stages, Items)
        or not stages.items
        or "duration" in traffic.fields
    ):
        return
    lengths = [item.fields.get("for") for item in stages.items if isinstance(item, Fields)]
    try:
        seconds = sum(parse_duration_s(each.value if isinstance(each, Scalar) else None) for each in lengths)
    except ValueError:  # the stage itself is complained of
        return
    traffic.fields["duration"] = Scalar(stages.place, write_duration(seconds), quoted=True)


# --- short to long -----------------------------------------------------------------------------------------------


def _spell_experiment(spec: Fields, problems: Problems) -> None:
    _wrap(spec, "target", "host")
    _wrap(spec, "scope", "carrier")
    _spell_fault(spec.fields.get("fault"))
    traffic = spec.fields.get("traffic")
    if isinstance(traffic, Scalar) and isinstance(traffic.value, str):
        traffic = spec.fields["traffic"] = mapping(traffic.place, {"requests": Items(traffic.place, [traffic])})
    if not isinstance(traffic, Fields):
        return
    requests = traffic.fields.get("requests")
    if isinstance(requests, Items):
        requests.items = [_spelled_request(item, problems) for item in requests.items]
    _wrap(traffic, "via", "mode")
    _put_into_via(traffic, problems)


def _put_into_via(traffic: Fields, problems: Problems) -> None:
    """Let ``connect``, ``tls`` and ``protocol`` stand beside ``via: direct`` as well as in it."""
    for name in BESIDE_VIA:
        if name not in traffic.fields:
            continue
        key, value = traffic.keys.pop(name, None), traffic.fields.pop(name)
        via = traffic.fields.setdefault("via", Fields(value.place, {}))
        if not isinstance(via, Fields):
            continue  # what it is instead is said of `via` itself
        if name in via.fields:
            place = value.place if key is None else key.place
            problems.add(place, f"{name} is beside via and in it", "remove one")
            continue
        via.fields[name] = value
        if key is not None:
            via.keys[name] = key


def _wrap(parent: Node | None, name: str, inner: str) -> None:
    """Let ``name: value`` be ``name: {inner: value}``."""
    child = parent.fields.get(name) if isinstance(parent, Fields) else None
    if isinstance(parent, Fields) and isinstance(child, Scalar) and child.value is not None:
        parent.fields[name] = mapping(child.place, {inner: child})


def _replace_items(items: Node | None, inner: str) -> list[Node]:
    """Let each item that is a single value be ``{inner: value}``, and return the items."""
    if not isinstance(items, Items):
        return []
    items.items = [
        mapping(item.place, {inner: item}) if isinstance(item, Scalar) and item.value is not None else item
        for item in items.items
    ]
    return items.items


def _spell_fault(fault: Node | None) -> None:
    _wrap(fault, "delay", "duration")
    _wrap(fault, "abort", "http")


def _spell_matrix(entry: Node) -> None:
    matrix = entry.fields.get("matrix") if isinstance(entry, Fields) else None
    faults = matrix.fields.get("fault") if isinstance(matrix, Fields) else None
    for fault in faults.items if isinstance(faults, Items) else []:
        _spell_fault(fault)


def _spelled_request(item: Node, problems: Problems) -> Node:
    if not isinstance(item, Scalar) or not isinstance(item.value, str):
        return item
    found = _REQUEST.fullmatch(item.value.strip())
    if found is None:
        problems.add(
            item.place, f"{item.value[:80]!r} is not a request", "write METHOD URL, such as GET http://checkout/cart/42"
        )
        return Fields(item.place, {}, refused=True)
    fields: dict[str, Node] = {"url": Scalar(item.place, found[2], quoted=True)}
    if found[1]:
        fields["method"] = Scalar(item.place, found[1], quoted=True)
    return mapping(item.place, fields)


# --- items named by their kind -----------------------------------------------------------------------------------


def _refused(place: Place) -> Fields:
    return Fields(place, {}, refused=True)


def _kind_of(item: Node, kinds: Iterable[str], beside: tuple[str, ...], problems: Problems, what: str) -> str | None:
    """Return the one key of *item* that is a kind; ``None`` when there is a problem, which is added."""
    kinds = list(kinds)
    if isinstance(item, Fields):
        named = [name for name in item.fields if name in kinds]
        others = [name for name in item.fields if name not in kinds and name not in beside]
        for name in others:
            choices = beside if named else kinds
            problems.add(
                item.key_place(name), f"unknown {'field' if named else what} {name!r}", did_you_mean(name, choices)
            )
        if len(named) > 1:
            message = f"each {what} has one kind, this one has {len(named)}: {', '.join(named)}"
            problems.add(item.key_place(named[1]), message, "write them as items of their own")
        elif not named and not others:
            problems.add(item.place, f"this {what} has no kind", f"the kinds are: {', '.join(kinds)}")
        if len(named) == 1 and not others:
            return named[0]
        return None
    problems.add(
        item.place, f"each {what} must be a mapping", f"such as {kinds[0]}: {{…}}; the kinds are: {', '.join(kinds)}"
    )
    return None


def _body(item: Fields, kind: str, parts: tuple[str, ...], problems: Problems) -> Fields | None:
    """Return what is written under *kind*, or ``None`` when it is no mapping of *parts*."""
    body = item.fields[kind]
    if not isinstance(body, Fields):
        problems.add(body.place, f"{kind} must be a mapping", f"what can stand in it: {', '.join(parts)}")
        return None
    unknown = [name for name in body.fields if name not in parts]
    for name in unknown:
        problems.add(body.key_place(name), f"unknown field {name!r} in {kind}", did_you_mean(name, parts))
    return None if unknown else body


def _shaped_expectation(item: Node, problems: Problems) -> Node:
    kind = _kind_of(item, EXPECTATION_PARTS, _BESIDE, problems, "expectation")
    if kind is None or not isinstance(item, Fields):
        return _refused(item.place)
    body = _body(item, kind, EXPECTATION_PARTS[kind], problems)
    if body is None:
        return _refused(item.place)
    made = Fields(item.place, {}, {name: item.keys[name] for name in _BESIDE if name in item.keys})
    made.fields = {name: item.fields[name] for name in _BESIDE if name in item.fields}
    made.fields["kind"] = Scalar(item.place, kind, quoted=True)
    if kind == "latency":
        return made if _put_latency(made, body, problems) else _refused(item.place)
    if kind in ("answer", "fallback"):
        answer = Fields(body.place, {name: body.fields[name] for name in _ANSWER if name in body.fields}, body.keys)
        if not answer.fields:
            problems.add(body.place, f"{kind} claims nothing", f"give one or several of: {', '.join(_ANSWER)}")
            return _refused(item.place)
        _list_status(answer)
        made.fields["answer"] = answer
        body = Fields(
            body.place, {name: value for name, value in body.fields.items() if name not in _ANSWER}, body.keys
        )
    renamed = {"arm": "than"} if kind == "noWorseThan" else {}
    for name, value in body.fields.items():
        made.fields[renamed.get(name, name)] = value
        if name in body.keys:
            made.keys[renamed.get(name, name)] = body.keys[name]
    _list_status(made)
    return made


def _put_latency(made: Fields, body: Fields, problems: Problems) -> bool:
    if len(body.fields) != 1:
        said = (
            "latency has no quantile" if not body.fields else f"latency has {len(body.fields)} quantiles, and takes one"
        )
        problems.add(body.place, said, "write one expectation for each, such as latency: {p99: 1s}")
        return False
    name, limit = next(iter(body.fields.items()))
    made.fields |= {"quantile": Scalar(body.key_place(name), QUANTILES[name], quoted=True), "limit": limit}
    made.keys |= {"limit": body.keys.get(name, Scalar(body.place, name))}
    return True


def _list_status(parent: Fields) -> None:
    """Let ``status: 503`` be ``status: ["503"]``, and numbers in the list be text."""
    status = parent.fields.get("status")
    if isinstance(status, Scalar) and status.value is not None:
        status = parent.fields["status"] = Items(status.place, [status])
    for item in status.items if isinstance(status, Items) else []:
        if isinstance(item, Scalar) and isinstance(item.value, int) and not isinstance(item.value, bool):
            item.value = str(item.value)


def _name_expectations(items: list[Node], problems: Problems) -> None:
    """Give each expectation without an id one: its kind and quantile, then with ``-2``; refuse ids that are there twice."""
    taken: dict[str, Place] = {}
    for item in items:
        given = item.fields.get("id") if isinstance(item, Fields) else None
        if isinstance(given, Scalar) and isinstance(given.value, str):
            if given.value in taken:
                first = taken[given.value]
                problems.add(
                    given.place, f"the id {given.value!r} is here twice: first in line {first.line}", "give it another"
                )
            taken.setdefault(given.value, given.place)
    for item in items:
        if not isinstance(item, Fields) or item.refused or "id" in item.fields:
            continue
        stem = _stem(item)
        number, name = 1, stem
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken[name] = item.place
        item.fields["id"] = Scalar(item.place, name, quoted=True)


def _stem(item: Fields) -> str:
    kind, quantile = item.fields["kind"], item.fields.get("quantile")
    stem = str(kind.value) if isinstance(kind, Scalar) else ""
    if isinstance(quantile, Scalar):
        stem += "-" + next(name for name, value in QUANTILES.items() if value == quantile.value)
    return stem


def _shaped_tripwire(item: Node, problems: Problems) -> Node:
    kind = _kind_of(item, TRIPWIRE_PARTS, (), problems, "tripwire")
    if kind is None or not isinstance(item, Fields):
        return _refused(item.place)
    body = _body(item, kind, TRIPWIRE_PARTS[kind], problems)
    if body is not None and kind == "control" and "errors" in body.fields:
        body = _body(body, "errors", ("above",), problems)
    if body is None:
        return _refused(item.place)
    made = Fields(item.place, {"kind": Scalar(item.place, kind, quoted=True), **body.fields}, dict(body.keys))
    _list_status(made)
    return made


def _always_watch_control(abort_on: Items, problems: Problems) -> None:
    controls = [
        item
        for item in abort_on.items
        if isinstance(item, Fields) and isinstance(kind := item.fields.get("kind"), Scalar) and kind.value == "control"
    ]
    for other in controls[1:]:
        problems.add(
            other.place, f"there is a control tripwire already, in line {controls[0].place.line}", "keep one of them"
        )
    if not controls:
        place = abort_on.place
        abort_on.items.insert(0, mapping(place, {"kind": Scalar(place, "control", quoted=True)}))
