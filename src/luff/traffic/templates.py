"""
From what an experiment says of a request to the request itself, many times over.

What is the same each time is read once: parsing a URL costs more than sending
it. Placeholders are filled in for each request, and the scope always has the
last word over headers of the same name.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping

import httpx

from luff.model import Request

__all__ = ["Template"]

NOT_CACHED = {"cache-control": "no-store", "pragma": "no-cache"}


class Template:
    """This makes requests like *like*, whose secrets are revealed."""

    def __init__(self, like: Request) -> None:
        self._method = like.method
        self._url: str | httpx.URL = like.url if "{{" in like.url else httpx.URL(like.url)
        headers = {**NOT_CACHED, **{name.lower(): str(value) for name, value in like.headers.items()}}
        self._headers = {name: value for name, value in headers.items() if "{{" not in value}
        self._filled_headers = {name: value for name, value in headers.items() if "{{" in value}
        self._body = None if like.body is None else str(like.body)

    def request(self, marks: Mapping[str, str], *, number: int, rng: random.Random) -> httpx.Request:
        """Return the request with *number*, and with the headers *marks*."""

        def filled(text: str) -> str:
            if "{{" not in text:
                return text
            made = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            return text.replace("{{uuid}}", made).replace("{{seq}}", str(number))

        url = self._url if isinstance(self._url, httpx.URL) else filled(self._url)
        headers = {**self._headers, **{name: filled(value) for name, value in self._filled_headers.items()}, **marks}
        content = None if self._body is None else filled(self._body).encode()
        return httpx.Request(self._method, url, headers=headers, content=content)
