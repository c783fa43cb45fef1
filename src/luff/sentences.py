"""
What a model has against a document, as sentences at the places where it is written.

The models know what a value must be (constraints, `Means`, the docstrings);
nothing of that is repeated here. `complaints` follows the path of each error
through the nodes to its place and through the model to its meaning.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from luff.model import Means, Written
from luff.units import parse_percent
from luff.yaml_nodes import Fields, Items, Node, Place, Problems, Scalar, did_you_mean

__all__ = ["bare_numbers", "complaints", "known_fields"]

_SHOWN_MOST = 60
_KINDS = {
    "string_type": "text", "int_type": "a whole number", "int_from_float": "a whole number", "int_parsing": "a whole number",
    "float_type": "a number", "bool_type": "true or false", "dict_type": "a mapping", "model_type": "a mapping",
    "model_attributes_type": "a mapping", "tuple_type": "a list", "list_type": "a list",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
}  # fmt: skip


def known_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields that people may write in *model*, by the names they write."""
    return {info.alias or name: info for name, info in model.model_fields.items() if not info.exclude}


def complaints(
    error: ValidationError, model: type[BaseModel], root: Node, problems: Problems
) -> list[tuple[str, ...]] | None:
    """Add what *error* says of *root*, read as *model*, to *problems*; returns the unknown fields if that was all."""
    unknown: list[tuple[str, ...]] = []
    others = False
    for each in error.errors(include_url=False):
        reading = _follow(root, each["loc"])
        if reading is None:
            continue
        node, path, parent = reading
        if each["type"] == "too_short" and isinstance(node, Items) and node.items:
            continue  # it counts only the items that are right
        if each["type"] == "extra_forbidden":
            unknown.append(tuple(str(step) for step in path))
        others = others or each["type"] != "extra_forbidden"
        _complain(_Complaint(each["type"], node, path, parent, each.get("ctx", {}), each["msg"]), model, problems)
    return None if others or not unknown else unknown


@dataclass(frozen=True, slots=True)
class _Complaint:
    """This is one error of a model: its *kind*, the node and its parent, the path there, and what the model adds."""

    kind: str
    node: Node
    path: tuple[str | int, ...]
    parent: Node
    context: dict[str, Any]
    message: str

    @property
    def name(self) -> str:
        names = [step for step in self.path if isinstance(step, str)]
        return names[-1] if names else "it"


def _follow(root: Node, loc: Sequence[int | str]) -> tuple[Node, tuple[str | int, ...], Node] | None:
    """Return the node, the path and the parent that *loc* leads to; ``None`` for a reading that was not meant."""
    node, parent, path = root, root, list[str | int]()
    for number, step in enumerate(loc):
        if node.refused:
            return None
        if isinstance(node, Fields) and isinstance(step, str) and step in node.fields:
            parent, node = node, node.fields[step]
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            parent, node = node, node.items[step]
        elif isinstance(step, str) and _is_reading(step, number, loc):
            if not _was_meant(node, step):
                return None
            continue
        path.append(step)
    return None if node.refused else (node, tuple(path), parent)


_TAGS = {"str", "int", "float", "bool"}


def _is_reading(step: str, number: int, loc: Sequence[int | str]) -> bool:
    """Return whether *step* is not a key but the name of one of the readings of a union."""
    return step in _TAGS or step[:1].isupper() or (number < len(loc) and "[" in step)


def _was_meant(node: Node, tag: str) -> bool:
    if tag in _TAGS:
        return not isinstance(node, Fields)
    if isinstance(node, Fields) and isinstance(kind := node.fields.get("kind"), Scalar):
        name = str(kind.value).lower()
        return tag.lower() in (f"{name}expectation", f"{name}tripwire")
    return isinstance(node, Fields)


def _complain(it: _Complaint, model: type[BaseModel], problems: Problems) -> None:
    place = it.node.place
    shown = _shown(it.node)
    if it.kind == "missing":
        problems.add(place, f"{_where(it.path[:-1])} needs {it.path[-1]!r}")
    elif it.kind == "extra_forbidden":
        owner = _models_at(model, it.path[:-1], it.parent)
        key = it.parent.key_place(str(it.path[-1])) if isinstance(it.parent, Fields) else place
        choices = [name for each in owner for name in known_fields(each)]
        problems.add(
            key,
            f"unknown field {str(it.path[-1])!r} in {_where(it.path[:-1])}",
            did_you_mean(str(it.path[-1]), choices),
        )
    elif it.kind == "value_error":
        problems.add(place, str(it.context.get("error", it.message)))
    elif it.kind in ("literal_error", "enum"):
        choices = _choices(model, it.path)
        problems.add(place, f"{it.name} cannot be {shown}", did_you_mean(_text(it.node), choices))
    elif it.kind in _KINDS:
        problems.add(place, f"{it.name} must be {_KINDS[it.kind]}, not {_described(it.node)}", _as_text(it))
    elif it.kind == "string_pattern_mismatch":
        means = next((each for each in _metadata(model, it.path) if isinstance(each, Means)), None)
        if means is None:
            problems.add(place, f"{it.name} cannot be {shown}", f"it must match {it.context.get('pattern')}")
        else:
            problems.add(place, f"{shown} is not {means.words}", f"such as {means.example}")
    elif it.kind in _BOUNDS:
        words, bound = _BOUNDS[it.kind]
        problems.add(place, f"{it.name} must be {words} {_written(it.context[bound], model, it.path)}, not {shown}")
    elif it.kind in ("too_short", "string_too_short"):
        problems.add(place, f"{it.name} must not be empty")
    elif it.kind == "too_long":
        problems.add(place, f"{it.name} must have at most {it.context['max_length']} entries")
    else:
        problems.add(place, f"{it.name}: {it.message[:1].lower()}{it.message[1:]}")


def _as_text(it: _Complaint) -> str | None:
    if it.kind == "string_type" and isinstance(it.node, Scalar) and it.node.value is not None:
        return f'write it in quotes: "{it.node.text}"'
    if it.kind == "string_type" and isinstance(it.node, Fields) and "fromEnv" in it.node.fields:
        return "a secret can stand in headers and body only"
    if it.kind == "bool_type" and isinstance(it.node, Scalar) and it.node.text.lower() in ("yes", "no", "on", "off"):
        return f"write {'true' if it.node.text.lower() in ('yes', 'on') else 'false'}"
    if isinstance(it.node, Scalar) and it.node.value is None:
        return "leave it out, or give it a value"
    return None


def _where(path: Sequence[str | int]) -> str:
    """Return *path* in words. Numbers of items are left out: the place says which one, and a person counts from 1."""
    names = [each for each in path if isinstance(each, str)]
    if path and isinstance(path[-1], int):
        return f"an item of {names[-1]}"
    return ".".join(names) or "the document"


def _shown(node: Node) -> str:
    return _described(node) if not isinstance(node, Scalar) or node.value is None else repr(_text(node)[:_SHOWN_MOST])


def _text(node: Node) -> str:
    return (node.text or str(node.value)) if isinstance(node, Scalar) else _described(node)


def _described(node: Node) -> str:
    if isinstance(node, Fields):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"the truth value {node.text}"
    return f"the number {node.text}" if isinstance(node.value, int | float) else repr(node.value[:_SHOWN_MOST])


def _written(bound: Any, model: type[BaseModel], path: Sequence[str | int]) -> str:
    for each in _metadata(model, path):
        if isinstance(each, Written):
            return each.write(float(bound))
    return f"{bound:g}" if isinstance(bound, int | float) else str(bound)


# --- the way through a model -------------------------------------------------------------------------------------


def _readings(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each type that *annotation* allows, with what is said of it."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        yield from _readings(inner, (*metadata, *more))
    elif get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _readings(inner, metadata)
    else:
        yield annotation, metadata


def _at(
    annotation: Any, path: Sequence[str | int], metadata: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each type that *path* may lead to in *annotation*, with what is said of it."""
    for reading, said in _readings(annotation, metadata):
        if not path:
            yield reading, said
        elif isinstance(reading, type) and issubclass(reading, BaseModel):
            info = known_fields(reading).get(str(path[0]))
            if info is not None:
                yield from _at(info.annotation, path[1:], tuple(info.metadata))
        elif get_origin(reading) in (tuple, dict):
            yield from _at(get_args(reading)[0 if get_origin(reading) is tuple else 1], path[1:])


def _metadata(model: type[BaseModel], path: Sequence[str | int]) -> list[Any]:
    return [each for _, said in _at(model, path) for each in said]


def _models_at(model: type[BaseModel], path: Sequence[str | int], node: Node) -> list[type[BaseModel]]:
    found = [each for each, _ in _at(model, path) if isinstance(each, type) and issubclass(each, BaseModel)]
    return [each for each in found if _was_meant(node, each.__name__)] or found


def _choices(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    found: list[str] = []
    for each, _ in _at(model, path):
        if get_origin(each) is Literal:
            found += [str(choice) for choice in get_args(each)]
        elif isinstance(each, type) and issubclass(each, Enum):
            found += [str(choice.value) for choice in each]
    return found


def bare_numbers(model: type[BaseModel], node: Node, problems: Problems) -> None:
    """Add a problem for each number with a fraction that stands where a unit is needed: a model takes it for seconds."""
    _bare(model, (), node, problems)


def _bare(annotation: Any, metadata: tuple[Any, ...], node: Node, problems: Problems) -> None:
    for reading, said in _readings(annotation, metadata):
        if isinstance(node, Scalar):
            written = next((each for each in said if isinstance(each, Written)), None)
            if (
                written is not None
                and written.parse is not parse_percent
                and isinstance(node.value, float)
                and not node.refused
            ):
                _refuse(written, node, node.place, problems)
        elif isinstance(node, Items) and get_origin(reading) is tuple:
            for item in node.items:
                _bare(get_args(reading)[0], (), item, problems)
        elif isinstance(node, Fields) and isinstance(reading, type) and issubclass(reading, BaseModel):
            for name, info in known_fields(reading).items():
                if name in node.fields and _was_meant(node, reading.__name__):
                    _bare(info.annotation, tuple(info.metadata), node.fields[name], problems)


def _refuse(written: Written, node: Scalar, place: Place, problems: Problems) -> None:
    try:
        written.parse(node.value)
    except ValueError as error:
        problems.add(place, str(error))
        node.refused = True
