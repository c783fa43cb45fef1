"""
From the text of files to documents, with every problem at its place.

One step after the other, each on the nodes that know where they are written:

1. read YAML (`luff.yaml_nodes`);
2. write out the short forms (`luff.short_forms`) and apply ``--set``;
3. refuse what no model can say, build the models, and say what they object to (`luff.sentences`);
4. refuse what does not fit together (`luff.refusals`).

Laws:

1. Whatever the text, the end is `Documents` or `InvalidFile`.
2. A short form and the long form that it stands for give the same document.
3. A problem in one document hides none in another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from luff.default_claims import default_expectations
from luff.errors import InvalidFile
from luff.model import API_VERSION, Experiment, GameDay, LabWorkload, Object, Policy, Suite
from luff.refusals import (
    refuse_before,
    refuse_experiment,
    refuse_game_day,
    refuse_lab_workload,
    refuse_policy,
    refuse_suite,
)
from luff.sentences import bare_numbers, complaints
from luff.short_forms import shape, spell
from luff.yaml_nodes import (
    Fields,
    Items,
    Node,
    Place,
    Problems,
    Scalar,
    assign,
    did_you_mean,
    plain,
    read_nodes,
    read_value,
    surprise,
    walk,
)

__all__ = ["Documents", "Manifest", "parse_documents"]

SET = "--set"
"""What stands for the file where a problem is in an override; its line is the number of the override."""

_MODELS: Mapping[str, type[BaseModel]] = {
    "Experiment": Experiment,
    "LabWorkload": LabWorkload,
    "Suite": Suite,
    "GameDay": GameDay,
    "Policy": Policy,
}
_GROUP = API_VERSION.partition("/")[0]
_TOP = ("apiVersion", "kind", "metadata", "spec")
_TEXTS = frozenset({"labels", "annotations", "headers", "env", "from", "matchLabels", "sourceLabels"})
"""Under these names every value is text, also in manifests."""
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Manifest:
    """This is a document of another API, such as a VirtualService, as it was written. *line* counts from 1."""

    file: str
    line: int
    object: Object


@dataclass(frozen=True, slots=True)
class Documents:
    """This is everything that some files hold, each kind in the order of the files."""

    experiments: tuple[Experiment, ...] = ()
    workloads: tuple[LabWorkload, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    suites: tuple[Suite, ...] = ()
    game_days: tuple[GameDay, ...] = ()
    policies: tuple[Policy, ...] = ()


def parse_documents(sources: Sequence[tuple[str, str]], *, overrides: Mapping[str, str] = _NONE) -> Documents:
    """
    Return the documents in *sources*, pairs of a file's name and its text.

    *overrides* are dotted paths (``spec.traffic.rate``, ``spec.expect.0.latency.p99``)
    with values as YAML; they apply to every experiment. Raises `InvalidFile`
    with every problem of every file.
    """
    problems = Problems()
    roots = [root for file, text in sources for root in read_nodes(file, text, problems)]
    values = list(_override_values(overrides, problems))
    parsed: list[BaseModel | Manifest] = []
    for root in roots:
        kind = _kind_of(root, problems)
        if kind is None or not isinstance(root, Fields):
            continue
        document = _manifest(root, problems) if kind == "" else _document(kind, root, values, problems)
        if document is not None:
            parsed.append(document)
    _names_once(roots, problems)
    if problems:
        raise InvalidFile(list(problems))
    return Documents(
        experiments=tuple(each for each in parsed if isinstance(each, Experiment)),
        workloads=tuple(each for each in parsed if isinstance(each, LabWorkload)),
        manifests=tuple(each for each in parsed if isinstance(each, Manifest)),
        suites=tuple(each for each in parsed if isinstance(each, Suite)),
        game_days=tuple(each for each in parsed if isinstance(each, GameDay)),
        policies=tuple(each for each in parsed if isinstance(each, Policy)),
    )


def _override_values(overrides: Mapping[str, str], problems: Problems) -> Iterator[tuple[str, str, Place]]:
    """Yield the overrides that can be read, each with its place."""
    for number, (path, text) in enumerate(overrides.items(), start=1):
        place = Place(SET, number, 1)
        if read_value(text, place, problems) is not None:
            yield path, text, place


# --- what kind of document ---------------------------------------------------------------------------------------


def _kind_of(root: Node, problems: Problems) -> str | None:
    """Return the kind of a document of ours, ``""`` for a manifest, or ``None`` when there is a problem, which is added."""
    if not isinstance(root, Fields):
        what = "a list" if isinstance(root, Items) else "a single value"
        problems.add(root.place, f"a document must be a mapping, not {what}", "begin it with apiVersion and kind")
        return None
    version, kind = _text(root, "apiVersion", problems), _text(root, "kind", problems)
    if version is None or kind is None:
        return None
    place = root.fields["apiVersion"].place
    group = version.partition("/")[0]
    if group != _GROUP:
        near = did_you_mean(group, [_GROUP]).startswith("did you mean")
        if near or (kind in _MODELS and kind != "Policy"):
            problems.add(place, f"there is no {kind[:60]} in {version[:60]!r}", f"write apiVersion: {API_VERSION}")
            return None
        return ""
    if version != API_VERSION:
        problems.add(
            place, f"{version[:60]!r} is not supported by this version of luff", f"write apiVersion: {API_VERSION}"
        )
        return None
    if kind not in _MODELS:
        problems.add(
            root.fields["kind"].place, f"there is no kind {kind[:60]!r} in {API_VERSION}", did_you_mean(kind, _MODELS)
        )
        return None
    return kind


def _text(root: Fields, name: str, problems: Problems) -> str | None:
    node = root.fields.get(name)
    if node is None:
        example = f"{name}: {API_VERSION}" if name == "apiVersion" else "kind: Experiment"
        problems.add(root.place, f"{name} is missing", f"such as {example}")
        return None
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
        return node.value
    problems.add(node.place, f"{name} must be text")
    return None


def _manifest(root: Fields, problems: Problems) -> Manifest:
    _surprises(walk(root), problems, everywhere=False)
    metadata = root.fields.get("metadata")
    for name in ("labels", "annotations"):
        texts = metadata.fields.get(name) if isinstance(metadata, Fields) else None
        for key, value in (texts.fields if isinstance(texts, Fields) else {}).items():
            if not isinstance(value, Scalar) or not isinstance(value.value, str):
                written = f' "{value.text}"' if isinstance(value, Scalar) else ""
                problems.add(value.place, f"metadata.{name}: {key[:60]} must be text", f"write it in quotes:{written}")
    return Manifest(root.place.file, root.place.line, plain(root))


# --- documents of ours -------------------------------------------------------------------------------------------


def _document(
    kind: str, root: Fields, values: Sequence[tuple[str, str, Place]], problems: Problems
) -> BaseModel | None:
    found = Problems()
    if kind == "Experiment" and values:
        _override(root, values, found)
    for name in root.fields:
        if name not in _TOP:
            found.add(root.key_place(name), f"unknown field {name!r} in the document", did_you_mean(name, _TOP))
    spec = root.fields.get("spec")
    places: dict[str, Place] = {}
    if isinstance(spec, Fields):
        spell(kind, spec, found)
        places = dict(_places(spec, ("spec",), root.place.file))
    written = list(walk(root))
    if isinstance(spec, Fields):
        shape(kind, spec, found)
        refuse_before(kind, spec, found)
        _without_refused(spec)
    document = _built(kind, root, places, found)
    _surprises(written, found)
    problems.take(found)
    return document


def _override(root: Fields, values: Sequence[tuple[str, str, Place]], problems: Problems) -> None:
    """Apply the overrides to the long form, so that a path means the same however the file is written."""
    for path, text, place in values:
        spec = root.fields.get("spec")
        if isinstance(spec, Fields):
            spell("Experiment", spec, problems)
        value = read_value(text, place, problems)
        if value is not None:
            assign(root, path, value, problems)


def _without_refused(node: Node) -> None:
    """Leave out what is refused already, so that the rest can be judged. The document is not returned anyway."""
    if isinstance(node, Items):
        kept = [item for item in node.items if not item.refused]
        node.refused = node.refused or (not kept and bool(node.items))
        node.items = kept
    elif isinstance(node, Fields):
        node.fields = {name: inner for name, inner in node.fields.items() if not inner.refused}
    for inner in node.items if isinstance(node, Items) else node.fields.values() if isinstance(node, Fields) else ():
        _without_refused(inner)


def _built(kind: str, root: Fields, places: Mapping[str, Place], problems: Problems) -> BaseModel | None:
    """Return the document, or ``None``; a document with unknown fields is judged without them, to find what else is wrong."""
    model = _MODELS[kind]
    shaped = Fields(
        root.place, {name: root.fields[name] for name in ("metadata", "spec") if name in root.fields}, root.keys
    )
    bare_numbers(model, shaped, problems)
    data = plain(shaped)
    try:
        document = _validated(model, data)
    except ValidationError as error:
        unknown = complaints(error, model, shaped, problems)
        if unknown is None:
            return None
        for path in unknown:
            _remove(data, path)
        try:
            document = _validated(model, data)
        except ValidationError:
            return None
    spec = shaped.fields["spec"]
    assert isinstance(spec, Fields)
    document = _finished(document, root, places)
    check = _CHECKS.get(kind)
    if check is not None:
        check(document, spec, problems)
    return document


_CHECKS: Mapping[str, Callable[[Any, Fields, Problems], None]] = {
    "Experiment": refuse_experiment,
    "Suite": refuse_suite,
    "GameDay": refuse_game_day,
    "LabWorkload": refuse_lab_workload,
    "Policy": refuse_policy,
}


def _validated(model: type[BaseModel], data: Any) -> BaseModel:
    # Strict, because YAML has said already what is a number; from JSON, because there lists and names of enums pass.
    return model.model_validate_json(json.dumps(data), strict=True, by_alias=True, by_name=False)


def _remove(data: Any, path: Sequence[str]) -> None:
    *way, last = path
    for step in way:
        data = data[int(step)] if isinstance(data, list) else data[step]
    data.pop(last, None)


def _finished(document: BaseModel, root: Fields, places: Mapping[str, Place]) -> BaseModel:
    """Return *document* with what only the nodes know: its file, its lines, and whether it expects anything itself."""
    file = root.place.file
    if not isinstance(document, Experiment):
        return document.model_copy(update={"file": file})
    spec = root.fields["spec"]
    expect = spec.fields.get("expect") if isinstance(spec, Fields) else None
    by_id = {
        str(name.value): item.place.line
        for item in (expect.items if isinstance(expect, Items) else [])
        if isinstance(item, Fields) and item.place.file == file and isinstance(name := item.fields.get("id"), Scalar)
    }
    if isinstance(metadata := root.fields.get("metadata"), Fields) and metadata.key_place("name").file == file:
        places = {"metadata.name": metadata.key_place("name"), **places}
    lines = {path: place.line for path, place in places.items()}
    columns = {path: place.column for path, place in places.items()}
    changes: dict[str, Any] = {"file": file, "lines": {**lines, **by_id}, "columns": columns}
    if expect is None:
        changes["defaults"] = True
        changes["spec"] = document.spec.model_copy(update={"expect": default_expectations(document.spec)})
    return document.model_copy(update=changes)


def _places(node: Node, path: tuple[str, ...], file: str) -> Iterator[tuple[str, Place]]:
    if isinstance(node, Fields):
        for name, inner in node.fields.items():
            place = node.key_place(name)
            if place.file == file:
                yield ".".join((*path, name)), place
            yield from _places(inner, (*path, name), file)


def _surprises(
    written: Iterable[tuple[tuple[str, ...], Scalar]], problems: Problems, *, everywhere: bool = True
) -> None:
    """Ask for quotes where YAML 1.1 reads something else than YAML 1.2; in manifests only where all is text."""
    for path, scalar in written:
        text = not _TEXTS.isdisjoint(path)
        if not text and not everywhere:
            continue
        what = surprise(scalar, dates=text)
        if what is not None and not problems.has(scalar.place):
            number = f"{scalar.value}, or " if isinstance(scalar.value, int) else ""
            problems.add(
                scalar.place,
                f"{scalar.text} is {what} to YAML 1.1, but not to YAML 1.2",
                f'write {number}"{scalar.text}"',
            )


def _names_once(roots: Iterable[Node], problems: Problems) -> None:
    """Refuse experiments with the same name: history knows them by it."""
    first: dict[str, Place] = {}
    for root in roots:
        kind = root.fields.get("kind") if isinstance(root, Fields) else None
        metadata = root.fields.get("metadata") if isinstance(root, Fields) else None
        name = metadata.fields.get("name") if isinstance(metadata, Fields) else None
        if not isinstance(kind, Scalar) or kind.value != "Experiment" or not isinstance(name, Scalar):
            continue
        if not isinstance(name.value, str):
            continue
        if name.value in first:
            other = first[name.value]
            at = f"{other.file}:{other.line}:{other.column}"
            problems.add(
                name.place, f"there is an experiment named {name.value[:63]!r} already: {at}", "give it another name"
            )
        first.setdefault(name.value, name.place)
