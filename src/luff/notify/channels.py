"""
Whom to tell, from the operator's own file::

    apiVersion: luff.dev/v1alpha1
    kind: Notify
    spec:
      link: https://luff.example            # where people open this server; optional
      channels:
        ops: {shape: json, url: https://ops.example/luff, secret: {fromEnv: LUFF_SECRET_OPS}}
        slack-shop: {shape: slack, url: {fromEnv: LUFF_SECRET_SLACK}, events: [verdict, stranded], about: [cart-*]}

The address of a Slack channel is a secret itself; like every secret it is read
from the environment, and shown nowhere.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from luff.errors import InvalidFile, LuffError, Problem
from luff.model import SecretRef
from luff.notify.notices import Event, Notice
from luff.yaml_nodes import Fields, Items, Node, Place, Problems, Scalar, did_you_mean, read_nodes

__all__ = ["Channel", "Channels", "Shape", "parse_channels", "read_channels"]

T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)

API_VERSION = "luff.dev/v1alpha1"
KIND = "Notify"
FILE_MOST_BYTES = 1 << 20
CHANNELS_MOST = 100
SECRET_LEAST = 16
"""Characters of a signing secret: a shorter one can be found by trying."""
URL_MOST = 2000
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"LUFF_SECRET_[A-Z0-9_]{1,200}")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Shape(StrEnum):
    """This is what a channel is sent: a signed document for a program, or a message for people as Slack takes it."""

    JSON = "json"
    SLACK = "slack"


@dataclass(frozen=True, slots=True)
class Channel:
    """
    This is one address to tell. *secret* signs what is sent to it.

    It is told of *events*, and only of experiments and game days whose names
    match one of *about*, when there is any; a game day that names it in
    ``announce.to`` is told to it whatever these say.
    """

    name: str
    shape: Shape
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    events: frozenset[Event] = frozenset(Event)
    about: tuple[str, ...] = ()

    def wants(self, notice: Notice) -> bool:
        """Return whether *notice*, which is for nobody in particular, is to be told here."""
        named = not self.about or any(fnmatch.fnmatchcase(notice.about, each) for each in self.about)
        return named and notice.event in self.events

    @property
    def shown(self) -> str:
        """Return which channel this is, without what may be a secret in its address."""
        return f"{self.name} ({urlsplit(self.url).hostname})"


@dataclass(frozen=True, slots=True)
class Channels:
    """This is everybody who can be told, by name, and the address at which people open this server."""

    by_name: Mapping[str, Channel] = field(default_factory=dict)
    link: str | None = None


def read_channels(path: Path, *, environment: Mapping[str, str] | None = None) -> Channels:
    """Return the channels in the file *path*; raises `InvalidFile` with everything that is wrong with it."""
    try:
        if path.stat().st_size > FILE_MOST_BYTES:
            raise OSError(0, f"it is larger than {FILE_MOST_BYTES >> 20} MiB")  # noqa: TRY301  # said as the others are
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFile([Problem(str(path), 1, 1, "the file is not UTF-8 text")]) from error
    except OSError as error:
        raise InvalidFile([Problem(str(path), 1, 1, f"the file cannot be read: {error.strerror}")]) from error
    return parse_channels(str(path), text, environment=os.environ if environment is None else environment)


def parse_channels(file: str, text: str, *, environment: Mapping[str, str]) -> Channels:
    """Return the channels in *text*; raises `InvalidFile` with everything that is wrong. Secrets come from *environment*."""
    problems = Problems()
    roots = read_nodes(file, text, problems)
    reader = _Reader(problems, environment)
    found = Channels()
    if len(roots) == 1:
        found = reader.document(roots[0])
    elif not problems:
        problems.add(Place(file, 1, 1), f"there are {len(roots)} documents here", f"write one `kind: {KIND}`")
    if problems:
        raise InvalidFile(list(problems))
    return found


class _Reader:
    """This reads one document, and notes what is wrong."""

    def __init__(self, problems: Problems, environment: Mapping[str, str]) -> None:
        self._problems = problems
        self._environment = environment

    def document(self, root: Node) -> Channels:
        fields = self._fields(root, ("apiVersion", "kind", "metadata", "spec"), needed=("kind", "spec"))
        if "kind" in fields and self._text(fields["kind"]) not in (None, KIND):
            self._problems.add(fields["kind"].place, f"whom to tell is a `kind: {KIND}`")
        if "apiVersion" in fields and self._text(fields["apiVersion"]) not in (None, API_VERSION):
            self._problems.add(fields["apiVersion"].place, "this version is not known", f"write {API_VERSION}")
        spec = self._fields(fields["spec"], ("link", "channels"), needed=("channels",)) if "spec" in fields else {}
        link = self._link(spec["link"]) if "link" in spec else None
        channels: dict[str, Channel] = {}
        found = spec.get("channels")
        if isinstance(found, Fields) and not 0 < len(found.fields) <= CHANNELS_MOST:
            self._problems.add(
                found.place, f"there are {len(found.fields)} channels", f"1 to {CHANNELS_MOST} can be told"
            )
        elif isinstance(found, Fields):
            for name, node in found.fields.items():
                if not _NAME.fullmatch(name):
                    self._problems.add(found.key_place(name), f"{name[:63]!r} is no name", "such as slack-shop")
                channel = self._channel(name, node)
                if channel is not None:
                    channels[name] = channel
        elif found is not None:
            self._problems.add(found.place, "channels are a mapping of names")
        return Channels(channels, link)

    def _channel(self, name: str, node: Node) -> Channel | None:
        fields = self._fields(node, ("shape", "url", "secret", "events", "about"), needed=("shape", "url"))
        if "shape" not in fields or "url" not in fields:
            return None
        shape = self._word(fields["shape"], Shape)
        url = self._secret(fields["url"], written=True)
        if shape is None or url is None:
            return None
        self._check_url(fields["url"].place, url, shape)
        secret = self._secret(fields["secret"]) if "secret" in fields else None
        if shape is Shape.JSON and "secret" not in fields:
            self._problems.add(node.place, "what is sent as json is signed", "add secret: {fromEnv: LUFF_SECRET_…}")
        if shape is Shape.SLACK and "secret" in fields:
            self._problems.add(fields["secret"].place, "Slack checks no signature", "its address is the secret")
        if secret is not None and len(secret) < SECRET_LEAST:
            self._problems.add(
                fields["secret"].place,
                f"the secret is shorter than {SECRET_LEAST} characters",
                "make one with `openssl rand -hex 32`",
            )
        events = frozenset(Event)
        if "events" in fields:
            events = frozenset(self._each(fields["events"], lambda each: self._word(each, Event)))
        about = tuple(self._each(fields["about"], self._text)) if "about" in fields else ()
        return Channel(name, shape, url, secret, events, about)

    def _check_url(self, place: Place, url: str, shape: Shape) -> None:
        """Note what is wrong with *url*, without showing it."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
            wrong = parts.scheme not in ("http", "https") or not host or not url.isascii() or len(url) > URL_MOST
        except ValueError:
            self._problems.add(place, "this is no address", "such as https://ops.example/hooks/luff")
            return
        if wrong or any(character.isspace() for character in url):
            self._problems.add(place, "this is no address", "such as https://ops.example/hooks/luff")
        elif parts.username is not None:
            self._problems.add(place, "an address with a user in it is not used", "what is sent is signed")
        elif shape is Shape.SLACK and parts.scheme != "https" and host not in _LOOPBACK:
            self._problems.add(place, "the address is a secret, and http would show it", "use https")

    def _link(self, node: Node) -> str | None:
        text = self._text(node)
        if text is not None and not re.fullmatch(r"https?://[^\s<>|\"?#]+", text):
            self._problems.add(node.place, "this is no address", "such as https://luff.example")
            return None
        return None if text is None else text.rstrip("/")

    def _secret(self, node: Node, *, written: bool = False) -> str | None:
        """Return the value of ``{fromEnv: …}``, or where it may be *written*, the text itself."""
        if written and isinstance(node, Scalar):
            return self._text(node)
        fields = self._fields(node, ("fromEnv",), needed=("fromEnv",))
        name = self._text(fields["fromEnv"]) if "fromEnv" in fields else None
        if name is None:
            return None
        place = fields["fromEnv"].place
        if not _VARIABLE.fullmatch(name):
            self._problems.add(
                place, f"{name[:80]!r} is no variable that may be read", "its name begins with LUFF_SECRET_"
            )
            return None
        try:
            return SecretRef(from_env=name).read(self._environment)
        except LuffError:
            self._problems.add(place, f"{name} is not set", f"set it: export {name}=…")
            return None

    def _fields(self, node: Node, known: Collection[str], *, needed: Collection[str]) -> Mapping[str, Node]:
        if not isinstance(node, Fields):
            self._problems.add(node.place, "a mapping belongs here", f"with {', '.join(known)}")
            return {}
        for name in node.fields:
            if name not in known:
                hint = did_you_mean(name, known)
                self._problems.add(node.key_place(name), f"there is no field {name[:63]!r} here", hint)
        for name in needed:
            if name not in node.fields:
                self._problems.add(node.place, f"{name} is missing")
        return node.fields

    def _each(self, node: Node, read: Callable[[Node], T | None]) -> list[T]:
        if not isinstance(node, Items):
            self._problems.add(node.place, "a list belongs here")
            return []
        return [found for each in node.items if (found := read(each)) is not None]

    def _word(self, node: Node, words: type[W]) -> W | None:
        text = self._text(node)
        known = [str(each) for each in words]
        if text is None or text in known:
            return None if text is None else words(text)
        self._problems.add(node.place, f"{text[:63]!r} is not known here", did_you_mean(text, known))
        return None

    def _text(self, node: Node) -> str | None:
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            return node.value
        self._problems.add(node.place, "a text belongs here")
        return None
