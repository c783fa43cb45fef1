"""
Experiments as people write them, in the long form: the inverse of `luff.parse`.

Law: parsing what is written here gives the same experiment, to the last bit of
every number. Secrets stay what they are in an experiment: the names of variables.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import yaml
from pydantic import BaseModel

from luff.model import (
    API_VERSION,
    AnswerExpectation,
    Arm,
    ControlTripwire,
    Expectation,
    Experiment,
    FallbackExpectation,
    JsonMatch,
    LatencyExpectation,
    NoWorseThanExpectation,
    Tripwire,
)
from luff.short_forms import QUANTILES
from luff.units import write_duration, write_percent, write_rate

__all__ = ["as_yaml", "spec_sha256", "written", "written_expectation"]

WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z$/][ -~]*|[0-9]+(?:\.[0-9]+)?(?:ms|s|%|/s|/m)|[1-5]xx")
_WITH_UNIT: Mapping[str, Callable[[float], str]] = {"_s": write_duration, "percent": write_percent, "_hz": write_rate}
"""How a number is written, by the unit that its name ends with."""


class _Dumper(yaml.SafeDumper):
    """This writes texts so that YAML 1.1 and 1.2 read the same: in quotes, where it is not plain that they are texts."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(document: object) -> str:
    """Return *document*, of JSON values, as YAML that luff reads as the same."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH))


def written(experiment: Experiment) -> dict[str, Any]:
    """Return *experiment* as the document that says all of it: every default, and none of what only a plan can tell."""
    spec = _fields(experiment.spec, without=("expect", "abort_on"))
    spec["expect"] = [written_expectation(each) for each in experiment.spec.expect]
    spec["abortOn"] = [_tripwire(each) for each in experiment.spec.abort_on]
    metadata = _fields(experiment.metadata)
    return {"apiVersion": API_VERSION, "kind": "Experiment", "metadata": metadata, "spec": spec}


def spec_sha256(experiment: Experiment) -> str:
    """Return the hash by which outcomes and history know what *experiment* asks, however it is written."""
    meant = experiment.model_dump(mode="json", by_alias=True, exclude_none=True)
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()


def written_expectation(expectation: Expectation) -> dict[str, Any]:
    """Return *expectation* as an item of ``expect``."""
    arm = {} if expectation.arm is Arm.FAULT else {"arm": expectation.arm.value}
    return {"id": expectation.id, **arm, expectation.kind: _claim(expectation)}


def _claim(expectation: Expectation) -> dict[str, Any]:
    if isinstance(expectation, LatencyExpectation):
        name = next(name for name, value in QUANTILES.items() if value == expectation.quantile)
        return {name: write_duration(expectation.limit_s)}
    fields = _fields(expectation, without=("id", "arm", "kind"))
    if isinstance(expectation, NoWorseThanExpectation):
        return {"arm": fields.pop("than"), **fields}
    if isinstance(expectation, AnswerExpectation | FallbackExpectation):
        return {**fields.pop("answer"), **fields}
    return fields


def _tripwire(tripwire: Tripwire) -> dict[str, Any]:
    fields = _fields(tripwire, without=("kind",))
    return {tripwire.kind: {"errors": fields} if isinstance(tripwire, ControlTripwire) else fields}


def _fields(part: BaseModel, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of *part* as they are written; what is empty says nothing and is left out."""
    if isinstance(part, JsonMatch):
        # Whether a body equals null is asked by writing it, and only then.
        return part.model_dump(mode="json", by_alias=True, exclude_unset=True)
    made = {}
    for name, info in type(part).model_fields.items():
        value = getattr(part, name)
        if name not in without and not info.exclude and value not in (None, (), {}):
            made[info.alias or name] = _value(value, name)
    return made


def _value(value: Any, name: str) -> Any:
    if isinstance(value, BaseModel):
        return _fields(value)
    if isinstance(value, tuple):
        return [_value(each, name) for each in value]
    if isinstance(value, dict):
        return {key: _value(each, key) for key, each in value.items()}
    if isinstance(value, StrEnum):
        return value.value
    write = next((write for unit, write in _WITH_UNIT.items() if name.endswith(unit)), None)
    return value if write is None or not isinstance(value, float) else write(value)
