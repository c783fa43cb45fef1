"""
JSON Schemas for editors and for readers of outcomes, made from the models.

What people may write is wider than the models: `luff.short_forms` turns the
short forms into long ones. Here the same is said in the language of JSON
Schema. Law: a document that `luff.parse` takes is valid; what is not valid is
refused there too, and says more. Draft 7, because editors read nothing newer
without being asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from luff import model
from luff.model import API_VERSION, Written
from luff.outcome import Outcome, Report
from luff.sentences import known_fields
from luff.short_forms import BESIDE_VIA, EXPECTATION_PARTS, QUANTILES, TRIPWIRE_PARTS
from luff.units import write_duration
from luff.words import GRPC_CODES

__all__ = ["KINDS", "schema_for"]

Schema = dict[str, Any]

_DRAFT = "http://json-schema.org/draft-07/schema#"
_DOCUMENTS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "Experiment": model.Experiment,
        "LabWorkload": model.LabWorkload,
        "Suite": model.Suite,
        "GameDay": model.GameDay,
        "Policy": model.Policy,
    }
)
_OUTPUTS: Mapping[str, type[BaseModel]] = MappingProxyType({"outcome": Outcome, "report": Report})
KINDS = (*_DOCUMENTS, *_OUTPUTS)
"""What there is a schema for: the documents that people write, and what luff writes."""

_OF_EXPECTATION: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "latency": model.LatencyExpectation,
        "errors": model.ErrorsExpectation,
        "answer": model.AnswerExpectation,
        "fallback": model.FallbackExpectation,
        "attempts": model.AttemptsExpectation,
        "noWorseThan": model.NoWorseThanExpectation,
        "recovery": model.RecoveryExpectation,
    }
)
_OF_TRIPWIRE: Mapping[str, type[BaseModel]] = MappingProxyType(
    {"control": model.ControlTripwire, "prometheus": model.PrometheusTripwire, "http": model.HttpTripwire}
)
_REQUEST: Schema = {"type": "string", "pattern": r"^\s*([A-Za-z]+\s+)?[A-Za-z]+://\S+\s*$"}


def schema_for(kind: str) -> Schema:
    """Return the JSON Schema, draft 7, of *kind*, one of `KINDS`; KeyError for anything else."""
    if kind in _OUTPUTS:
        schema = _made(_OUTPUTS[kind], mode="serialization")
        _say_what_a_spec_is(schema if kind == "outcome" else schema["definitions"]["Outcome"], schema["definitions"])
        return {"$schema": _DRAFT, **schema}
    schema = _made(_DOCUMENTS[kind], mode="validation")
    definitions: dict[str, Schema] = schema.setdefault("definitions", {})
    for name in list(definitions):
        _say_as_written(name, definitions[name])
    if kind == "Experiment":
        via = definitions["Via"]["properties"]
        definitions["Traffic"]["properties"] |= {name: via[name] for name in BESIDE_VIA}
    for name, change in _SHORT.items():
        if name in definitions:
            definitions[name] = change(definitions[name])
    if kind == "Experiment":
        _name_items_by_kind(definitions)
    long = schema["properties"]
    top = {
        "$schema": _DRAFT,
        "title": kind,
        "description": schema.get("description", ""),
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": long["metadata"],
            "spec": long["spec"],
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
    }
    return {**top, "definitions": _reachable(top, definitions)}


def _say_what_a_spec_is(outcome: Schema, definitions: dict[str, Schema]) -> None:
    """Let the spec of *outcome* be an experiment as `luff run` takes it; before that was so it had no ``apiVersion``."""
    experiment = schema_for("Experiment")
    del experiment["$schema"]
    definitions |= {**experiment.pop("definitions"), "Experiment": experiment}
    outcome["properties"]["spec"] = {
        "description": "The resolved experiment, as `luff run` takes it. What has no apiVersion is an older luff's own form.",
        "anyOf": [{"$ref": "#/definitions/Experiment"}, {"type": "object", "not": {"required": ["apiVersion"]}}],
    }


def _made(cls: type[BaseModel], *, mode: Any) -> Schema:
    made = cls.model_json_schema(by_alias=True, mode=mode, ref_template="#/definitions/{model}")
    if "$defs" in made:
        made["definitions"] = made.pop("$defs")
    tidied = _tidy(made)
    assert isinstance(tidied, dict)
    return tidied


def _tidy(schema: Any) -> Any:
    """Return *schema* without the titles that repeat a name, and without defaults that are no values to write."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "definitions") and isinstance(value, dict):
            made[key] = {name: _without_title(_tidy(each), key) for name, each in value.items()}
        elif key != "default" or (value is not None and "{" not in str(value)):
            made[key] = _tidy(value)
    return made


def _without_title(schema: Any, key: str) -> Any:
    return {name: each for name, each in schema.items() if name != "title"} if key == "properties" else schema


def _say_as_written(name: str, schema: Schema) -> None:
    """Let defaults have their unit, and descriptions the names of fields as they are written."""
    cls = getattr(model, name, None)
    if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
        return
    for alias, info in known_fields(cls).items():
        written = next((each for each in info.metadata if isinstance(each, Written)), None)
        if written is not None and isinstance(info.default, float):
            schema["properties"][alias]["default"] = written.write(info.default)
    aliases = {field: info.alias or field for field, info in cls.model_fields.items()}
    schema["description"] = re.sub(
        r"\*([a-z_]+)\*", lambda found: f"`{aliases.get(found[1], found[1])}`", schema.get("description", "")
    ).replace("``", "`")


def _reachable(top: Schema, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return those of *definitions* that *top* leads to."""
    found: dict[str, Schema] = {}
    waiting = list(_references(top))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = definitions[name]
            waiting += _references(definitions[name])
    return dict(sorted(found.items()))


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.rpartition("/")[2]
            else:
                yield from _references(value)


# --- the short forms ---------------------------------------------------------------------------------------------


def _or_short(short: Callable[[Schema], Schema], **more: Any) -> Callable[[Schema], Schema]:
    """Return the change that allows ``short(long)`` beside the long form, which *more* is added to."""

    def change(long: Schema) -> Schema:
        long = {**long, **more}
        head: Schema = {key: long.pop(key) for key in ("title", "description") if key in long}
        return {**head, "anyOf": [short(long), long]}

    return change


def _or_property(name: str, **more: Any) -> Callable[[Schema], Schema]:
    """Return the change that lets the value of the field *name* stand for the whole."""
    return _or_short(lambda long: _not_null(long["properties"][name]), **more)


def _not_null(schema: Schema) -> Schema:
    kinds = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else {key: value for key, value in schema.items() if key != "default"}


def _either(*names: str) -> list[Schema]:
    return [{"required": [name]} for name in names]


def _status(items: Schema) -> Schema:
    one = {"anyOf": [items, {"type": "integer", "minimum": 100, "maximum": 599}]}
    return {"anyOf": [*one["anyOf"], {"type": "array", "items": one, "minItems": 1}]}


def _with_status(schema: Schema) -> Schema:
    status = schema["properties"]["status"]
    array = status if "items" in status else next(each for each in status["anyOf"] if "items" in each)
    # A definition may be changed already when it is used for two kinds.
    if "anyOf" in array["items"]:
        return schema
    changed = _status(array["items"])
    if "items" not in status:
        changed["anyOf"].append({"type": "null"})
    return {**schema, "properties": {**schema["properties"], "status": changed}}


def _abort(schema: Schema) -> Schema:
    grpc = {"anyOf": [{"enum": list(GRPC_CODES)}, {"type": "null"}]}
    long = {**schema, "properties": {**schema["properties"], "grpc": grpc}, "anyOf": _either("http", "grpc")}
    return _or_property("http")(long)


_SHORT: Mapping[str, Callable[[Schema], Schema]] = MappingProxyType(
    {
        "Target": _or_property("host", anyOf=_either("host", "virtualService")),
        "ScopeSpec": _or_property("carrier"),
        "Delay": _or_property("duration"),
        "Abort": _abort,
        "Fault": lambda schema: {**schema, "minProperties": 1},
        "Traffic": _or_short(lambda _: _REQUEST),
        "Request": _or_short(lambda _: _REQUEST),
        "Via": _or_property("mode"),
        "Answer": _with_status,
        "Ready": _or_property("path"),
        "LabWorkloadSpec": lambda schema: {**schema, "anyOf": _either("run", "address")},
        "SuiteEntry": _or_property("ref"),
        "SkipWhen": _or_short(lambda _: {"const": "canaryProgressing"}, minProperties=1, maxProperties=1),
    }
)


def _name_items_by_kind(definitions: dict[str, Schema]) -> None:
    """Put definitions of ``Expectation`` and ``Tripwire`` as people write them in place of one for each model."""
    spec = definitions["ExperimentSpec"]["properties"]
    spec["expect"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/Expectation"}}
    spec["abortOn"] = {"type": "array", "items": {"$ref": "#/definitions/Tripwire"}}
    beside = {name: definitions["LatencyExpectation"]["properties"][name] for name in ("id", "arm")}
    definitions["Expectation"] = _item(
        "This is one claim. Exactly one kind; `id` and `arm` may stand beside it.",
        {kind: _expectation(kind, definitions) for kind in EXPECTATION_PARTS},
        beside,
    )
    definitions["Tripwire"] = _item(
        "This stops a run when it trips. Exactly one kind; one on the control arm is always there.",
        {kind: _tripwire(kind, definitions) for kind in TRIPWIRE_PARTS},
        {},
    )


def _item(description: str, kinds: Mapping[str, Schema], beside: Mapping[str, Schema]) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": {**beside, **kinds},
        "oneOf": _either(*kinds),
        "additionalProperties": False,
    }


def _mapping(description: str, properties: Mapping[str, Schema], **more: Any) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        **more,
    }


def _expectation(kind: str, definitions: Mapping[str, Schema]) -> Schema:
    long = definitions[_OF_EXPECTATION[kind].__name__]
    description, fields = long.get("description", ""), dict(long["properties"])
    if kind == "latency":
        limits = {
            name: {**fields["limit"], "description": f"such as {write_duration(1.0)}: the limit for a share of {share}"}
            for name, share in QUANTILES.items()
        }
        return _mapping(description, limits, minProperties=1, maxProperties=1)
    if kind in ("answer", "fallback"):
        parts = {**definitions["Answer"]["properties"], "atLeast": fields["atLeast"]}
        return _mapping(description, parts, anyOf=_either(*definitions["Answer"]["properties"]))
    if "status" in fields:
        fields = _with_status(long)["properties"]
    if kind == "noWorseThan":
        fields["arm"] = fields["than"]
    required = [name for name in long.get("required", []) if name in EXPECTATION_PARTS[kind]]
    return _mapping(description, {name: fields[name] for name in EXPECTATION_PARTS[kind]}, required=required)


def _tripwire(kind: str, definitions: Mapping[str, Schema]) -> Schema:
    long = definitions[_OF_TRIPWIRE[kind].__name__]
    fields = dict((_with_status(long) if kind == "http" else long)["properties"])
    if kind == "control":
        return _mapping(
            long.get("description", ""), {"errors": _mapping("the share that is too much", {"above": fields["above"]})}
        )
    required = list(long.get("required", []))
    return _mapping(
        long.get("description", ""), {name: fields[name] for name in TRIPWIRE_PARTS[kind]}, required=required
    )
