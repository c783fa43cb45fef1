"""
YAML as a tree in which every value knows its place.

Scalars are read by the core schema of YAML 1.2, so that ``no``, ``on`` and
``1:30`` are text. What YAML 1.1 would have read as something else is kept in
mind (`surprise`), because half of the tools around us still do. Whatever the
text is, reading it ends with nodes or with problems: depth and aliases are
bounded, and no exception leaves this module.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from luff.errors import Problem

__all__ = [
    "Fields",
    "Items",
    "Node",
    "Place",
    "Problems",
    "Scalar",
    "assign",
    "did_you_mean",
    "mapping",
    "place_at",
    "plain",
    "read_nodes",
    "read_value",
    "surprise",
    "walk",
]

DEPTH_MOST = 100
"""Nothing that people write is nested deeper; Python's own stack is."""
ALIASED_MOST = 20_000
"""How many nodes aliases may stand for in one file."""
DIGITS_MOST = 40
"""No number here has more."""
MESSAGE_MOST = 300
"""How many characters of a message are shown, whatever was in the file."""

_PLAIN = "luff:plain"
_STR = "tag:yaml.org,2002:str"
_MERGE = "<<"
_TYPED = {f"tag:yaml.org,2002:{name}": name for name in ("null", "bool", "int", "float")}
_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_SURPRISES = (
    (re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF"), "a truth value"),
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "a number to the base of 60"),
    (re.compile(r"[-+]?0[0-7_]+|0o[0-7]+"), "an octal number"),
    (re.compile(r"0b[01_]+|[-+]?[0-9][0-9_]*_[0-9_]*"), "a number"),
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """This is where something is written. *line* and *column* count from 1."""

    file: str
    line: int
    column: int


class Problems:
    """This collects what is wrong, in any order, each thing once."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}
        self._places: set[Place] = set()

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, message: str, suggestion: str | None = None) -> None:
        """Note *message* at *place*. What is too long for a line of a terminal or two is cut."""
        short = [
            text if text is None or len(text) <= MESSAGE_MOST else f"{text[:MESSAGE_MOST]}…"
            for text in (message, suggestion)
        ]
        self._found[Problem(place.file, place.line, place.column, short[0] or "", short[1])] = None
        self._places.add(place)

    def take(self, others: Problems) -> None:
        """Note everything that *others* has."""
        self._found |= others._found
        self._places |= others._places

    def has(self, place: Place) -> bool:
        """Return whether anything is wrong at *place* already."""
        return place in self._places


@dataclass(slots=True)
class Scalar:
    """This is one value: *text* as written, *quoted* or not, and the *value* it has. *refused* means: said enough."""

    place: Place
    value: str | int | float | bool | None
    text: str = ""
    quoted: bool = False
    refused: bool = False


@dataclass(slots=True)
class Items:
    """This is a list."""

    place: Place
    items: list[Node]
    refused: bool = False


@dataclass(slots=True)
class Fields:
    """This is a mapping. *keys* has the key of each field as it was written."""

    place: Place
    fields: dict[str, Node]
    keys: dict[str, Scalar] = field(default_factory=dict)
    refused: bool = False

    def key_place(self, name: str) -> Place:
        """Return where the key *name* is written; the mapping's own place when it was never written."""
        return self.keys[name].place if name in self.keys else self.place


Node: TypeAlias = Scalar | Items | Fields


def mapping(place: Place, fields: Mapping[str, Node]) -> Fields:
    """Return a mapping that nobody wrote, in place of what stands at *place*."""
    return Fields(place, dict(fields), {name: Scalar(place, name, name, quoted=True) for name in fields})


def plain(node: Node) -> Any:
    """Return *node* as plain data: dicts, lists, text, numbers, truth values, ``None``."""
    if isinstance(node, Fields):
        return {name: plain(inner) for name, inner in node.fields.items()}
    if isinstance(node, Items):
        return [plain(inner) for inner in node.items]
    return node.value


def place_at(node: Node, *path: str | int) -> Place:
    """Return the place of what *path* leads to, or of the last thing on the way that is there."""
    for step in path:
        if isinstance(node, Fields) and isinstance(step, str) and step in node.fields:
            node = node.fields[step]
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            break
    return node.place


def walk(node: Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Scalar]]:
    """Yield every key and every scalar in *node*, each with the names on the way to it."""
    if isinstance(node, Scalar):
        yield path, node
    elif isinstance(node, Items):
        for inner in node.items:
            yield from walk(inner, path)
    else:
        for name, inner in node.fields.items():
            if name in node.keys:
                yield path, node.keys[name]
            yield from walk(inner, (*path, name))


def surprise(scalar: Scalar, *, dates: bool) -> str | None:
    """Return what YAML 1.1 would have made of *scalar*, or ``None`` when both versions agree; *dates* count only if asked."""
    if scalar.quoted:
        return None
    for pattern, what in _SURPRISES:
        if pattern.fullmatch(scalar.text):
            return what
    return "a date" if dates and _DATE.fullmatch(scalar.text) else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a suggestion for *word*: the one of *choices* that is nearest, or all of them."""
    known = list(dict.fromkeys(choices))
    squeezed = {each.lower().replace("_", "").replace("-", ""): each for each in known}
    same = squeezed.get(word.lower().replace("_", "").replace("-", ""))
    near = [same] if same else difflib.get_close_matches(word[:100], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "nothing can stand here" if not known else "what can stand here: " + ", ".join(known)


class _Refused(Exception):  # not an error of luff's: it never leaves this module
    def __init__(self, place: Place, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.place, self.message, self.suggestion = place, message, suggestion


class _Loader(yaml.SafeLoader):
    """This is PyYAML up to its nodes, with plain scalars left as they are and the depth bounded."""

    def __init__(self, text: str, file: str) -> None:
        self.depth = 0
        self.file = file
        super().__init__(text)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _STR
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]  # PyYAML has no types for it

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEPTH_MOST:
            raise _Refused(_placed(self.file, self.get_mark()), f"this is nested deeper than {DEPTH_MOST} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _placed(file: str, mark: Any) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)


def read_nodes(file: str, text: str, problems: Problems) -> list[Node]:
    """Return the documents in *text* that are not empty. What cannot be read is added to *problems*."""
    found: list[Node] = []
    loader: _Loader | None = None
    reader = _Reader(file, problems)
    try:
        loader = _Loader(text, file)
        while loader.check_node():
            root = loader.get_node()
            if root is not None and not (isinstance(root, yaml.ScalarNode) and root.value == "" and root.tag == _PLAIN):
                found.append(reader.node(root))
    except _Refused as refused:
        problems.add(refused.place, refused.message, refused.suggestion)
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        message = f"the character U+{_code(error.character):04X} cannot stand in YAML"
        problems.add(
            Place(file, len(before), len(before[-1]) + 1),
            message,
            "remove it, or write it as an escape in double quotes",
        )
    except yaml.MarkedYAMLError as error:
        problems.add(_place_of(error, file), f"this is not YAML: {_said(error)}", _hint(error))
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, RecursionError):
        # PyYAML lets a few of Python's own errors through, for escapes and directives that no character has.
        place = Place(file, 1, 1) if loader is None else _placed(file, loader.get_mark())
        problems.add(place, "this is not YAML: it cannot be read here")
    finally:
        if loader is not None:
            loader.dispose()
    return found


def read_value(text: str, place: Place, problems: Problems) -> Node | None:
    """Return the one value in *text*, all of it at *place*; ``None`` when there is a problem, which is added."""
    own = Problems()
    found = read_nodes(place.file, text, own)
    for problem in own:
        problems.add(place, problem.message, problem.suggestion)
    if own:
        return None
    if len(found) > 1:
        problems.add(place, "this is more than one value")
        return None
    return Scalar(place, None) if not found else _moved(found[0], place)


def _moved(node: Node, place: Place) -> Node:
    if isinstance(node, Fields):
        fields = {name: _moved(inner, place) for name, inner in node.fields.items()}
        keys = {name: Scalar(place, name, key.text, quoted=key.quoted) for name, key in node.keys.items()}
        return Fields(place, fields, keys)
    if isinstance(node, Items):
        return Items(place, [_moved(inner, place) for inner in node.items])
    return Scalar(place, node.value, node.text, quoted=node.quoted)


def assign(root: Fields, path: str, value: Node, problems: Problems) -> None:
    """Put *value* where the dotted *path* leads in *root*; a mapping on the way that is not there is made."""
    place = value.place
    steps = [step.replace("\\.", ".") for step in re.split(r"(?<!\\)\.", path)]
    if not all(steps) or len(steps) > DEPTH_MOST:
        problems.add(
            place, f"{path!r} is not a path", "write names and numbers with dots between, such as spec.traffic.rate"
        )
        return
    here: Node = root
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(here, Fields):
            if last or step not in here.fields:
                here.fields[step] = value if last else mapping(place, {})
                here.keys[step] = Scalar(place, step, step, quoted=True)
            here = here.fields[step]
        elif (
            isinstance(here, Items)
            and step.isascii()
            and step.isdigit()
            and len(step) < 6
            and int(step) < len(here.items)
        ):
            if last:
                here.items[int(step)] = value
            here = here.items[int(step)]
        else:
            what = f"a list of {len(here.items)}" if isinstance(here, Items) else "a single value"
            at = ".".join(steps[:number])
            problems.add(place, f"the path {path!r} leads nowhere: {at} is {what}, which has no {step!r}")
            return


def _code(character: int | str) -> int:
    return character if isinstance(character, int) else ord(character[:1] or "\0")


def _place_of(error: yaml.MarkedYAMLError, file: str) -> Place:
    mark = error.problem_mark or error.context_mark
    return Place(file, 1, 1) if mark is None else _placed(file, mark)


def _said(error: yaml.MarkedYAMLError) -> str:
    parts = [error.problem, error.context]
    return " ".join(part for part in parts if part) or "it cannot be read"


def _hint(error: yaml.MarkedYAMLError) -> str | None:
    said = _said(error)
    if "'\\t'" in said:
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in said:
        return "put a text with ': ' in it in quotes, and check the indentation"
    if "cannot start any token" in said:
        return "put it in quotes"
    return None


class _Reader:
    """This turns PyYAML's nodes into ours, with aliases and ``<<`` written out."""

    def __init__(self, file: str, problems: Problems) -> None:
        self.file = file
        self.problems = problems
        self.aliased = 0
        self.seen: dict[int, yaml.Node] = {}  # holds the nodes too, so that no identity comes twice

    def node(self, node: yaml.Node, depth: int = 0) -> Node:
        place = _placed(self.file, node.start_mark)
        if depth > DEPTH_MOST:
            raise _Refused(place, f"this is nested deeper than {DEPTH_MOST} levels, or contains itself")
        if id(node) in self.seen:
            self.aliased += 1
            if self.aliased > ALIASED_MOST:
                raise _Refused(place, f"the aliases of this file stand for more than {ALIASED_MOST} values")
        self.seen[id(node)] = node
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in _COLLECTIONS:
            self.problems.add(place, f"the tag {_tag(node)} means nothing here", "leave it out")
        if isinstance(node, yaml.SequenceNode):
            return Items(place, [self.node(inner, depth + 1) for inner in node.value])
        return self._fields(node, place, depth)

    def _fields(self, node: yaml.Node, place: Place, depth: int) -> Fields:
        made = Fields(place, {})
        merged: list[Fields] = []
        for key_node, value_node in node.value:
            key_place = _placed(self.file, key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.add(key_place, "a key must be text, not a list or a mapping")
                continue
            if key_node.tag == _PLAIN and key_node.value == _MERGE:
                merged += self._merged(self.node(value_node, depth + 1))
                continue
            key = self._scalar(key_node, key_place)
            name = _whole(key_node.value)
            value = self.node(value_node, depth + 1)
            if name in made.fields:
                first = made.keys[name].place
                message = f"the key {name!r} is here twice: first in line {first.line}, column {first.column}"
                self.problems.add(key_place, message, "keep one of them")
                continue
            made.fields[name] = value
            made.keys[name] = Scalar(key_place, name, key.text, quoted=key.quoted)
        for source in merged:
            for name, value in source.fields.items():
                if name not in made.fields:
                    made.fields[name] = _copied(value)
                    made.keys[name] = source.keys[name]
        return made

    def _merged(self, node: Node) -> list[Fields]:
        sources = node.items if isinstance(node, Items) else [node]
        found = [source for source in sources if isinstance(source, Fields)]
        if len(found) < len(sources):
            self.problems.add(node.place, "<< takes a mapping, or a list of mappings")
        return found

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar:
        text = _whole(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.problems.add(place, "half a character (a lone surrogate) cannot stand in a text")
            text = "?"
        if node.tag == _STR:
            return Scalar(place, text, text, quoted=True)
        if node.tag not in (_PLAIN, *_TYPED):
            self.problems.add(
                place, f"the tag {_tag(node)} means nothing here", "leave it out, or put the value in quotes"
            )
            return Scalar(place, text, text, quoted=True)
        value = self._value(text, place)
        if node.tag in _TYPED and not _is_of(value, _TYPED[node.tag]):
            self.problems.add(place, f"{text[:DIGITS_MOST]!r} is no {_TYPED[node.tag]}", "leave the tag out")
        return Scalar(place, value, text, quoted=node.tag in _TYPED)

    def _value(self, text: str, place: Place) -> str | int | float | bool | None:
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _NOT_FINITE.fullmatch(text):
            self.problems.add(place, f"{text} is not a finite number", "put it in quotes if it is text")
            return 0.0
        if not _FLOAT.fullmatch(text) and not _INT.fullmatch(text):
            return text
        number = None
        if len(text) <= DIGITS_MOST:
            number = int(text, 0 if text.startswith("0x") else 10) if _INT.fullmatch(text) else float(text)
        if number is None or not math.isfinite(number):
            self.problems.add(place, "this number is too large", "put it in quotes if it is text")
            return 0
        return number


def _whole(text: str) -> str:
    """Return *text* with pairs of surrogates joined, as JSON would have read them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _paired(text) else text
    return text


def _paired(text: str) -> bool:
    return re.search("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]", text) is None


def _copied(node: Node) -> Node:
    if isinstance(node, Fields):
        return Fields(node.place, {name: _copied(inner) for name, inner in node.fields.items()}, dict(node.keys))
    if isinstance(node, Items):
        return Items(node.place, [_copied(inner) for inner in node.items])
    return Scalar(node.place, node.value, node.text, quoted=node.quoted)


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")[:DIGITS_MOST]


def _is_of(value: object, name: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (float, int)}
    return isinstance(value, kinds[name]) and (name == "bool" or not isinstance(value, bool))
