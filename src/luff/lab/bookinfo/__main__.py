"""The services of bookinfo. ``SERVICE_VERSION`` tells reviews' versions apart."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from luff.lab.bookinfo.server import Answer, Client, Handler, Incoming, serve

REVIEWS_WITHIN_S = 3.0
REVIEWS_ATTEMPTS = 2
DETAILS_WITHIN_S = 3.0
RATINGS_FROM_PAGE_WITHIN_S = 3.0
RATINGS_WITHIN_S = {"v2": 10.0, "v3": 2.5}
STAR_COLORS = {"v2": "black", "v3": "red"}

_TRACING = (
    "x-request-id", "x-ot-span-context", "x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority",
    "traceparent", "tracestate", "x-cloud-trace-context", "grpc-trace-bin", "sw8", "user-agent", "cookie",
    "authorization", "jwt", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
)  # fmt: skip
"""What every service of the real one forwards. Neither ``baggage`` nor a header of one's own is among it."""

_TEXTS = {
    "Reviewer1": "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    "Reviewer2": "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
}


def _forwarded(incoming: Incoming, *more: str) -> dict[str, str]:
    return {name: incoming.headers[name] for name in (*_TRACING, *more) if name in incoming.headers}


def _user(incoming: Incoming) -> str | None:
    """Return who is logged in. The real one signs a session cookie; here ``user=NAME`` is one."""
    for part in incoming.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "user":
            return value
    return None


def productpage(environment: Mapping[str, str]) -> Handler:
    """Return the page: it asks details once and reviews up to twice, and shows what it got."""
    client = Client()

    def headers(incoming: Incoming) -> dict[str, str]:
        user = _user(incoming)
        return _forwarded(incoming) | ({"end-user": user} if user else {})

    async def details(incoming: Incoming) -> tuple[int, Any]:
        url = f"{environment['DETAILS_URL']}/details/0"
        found = await client.get(url, headers(incoming), within_s=DETAILS_WITHIN_S)
        return _or_sorry(found, "details")

    async def reviews(incoming: Incoming) -> tuple[int, Any]:
        url = f"{environment['REVIEWS_URL']}/reviews/0"
        for _ in range(REVIEWS_ATTEMPTS):
            found = await client.get(url, headers(incoming), within_s=REVIEWS_WITHIN_S)
            if found is not None and found[0] == 200:
                return found
        return _or_sorry(found, "reviews")

    async def ratings(incoming: Incoming) -> tuple[int, Any]:
        url = f"{environment['RATINGS_URL']}/ratings/0"
        found = await client.get(url, headers(incoming), within_s=RATINGS_FROM_PAGE_WITHIN_S)
        return _or_sorry(found, "ratings")

    parts = {"details": details, "reviews": reviews, "ratings": ratings}

    async def answer(incoming: Incoming) -> Answer:
        if incoming.path == "/health":
            return Answer(200, "Product page is healthy")
        if incoming.path == "/productpage":
            return Answer(200, _page(await details(incoming), await reviews(incoming)))
        part = incoming.path.removeprefix("/api/v1/products/0/")
        if part in parts:
            return Answer(*await parts[part](incoming))
        return Answer(404, {"error": "there is no such page"})

    return answer


def _or_sorry(found: tuple[int, Any] | None, what: str) -> tuple[int, Any]:
    if found is not None and found[0] == 200:
        return found
    status = 500 if found is None else found[0]
    return status, {"error": f"Sorry, product {what} are currently unavailable for this book."}


def _page(details: tuple[int, Any], reviews: tuple[int, Any]) -> str:
    book = (
        f"<dl><dt>Author</dt><dd>{details[1]['author']}</dd><dt>Pages</dt><dd>{details[1]['pages']}</dd></dl>"
        if details[0] == 200
        else f"<h4>Error fetching product details!</h4><p>{details[1]['error']}</p>"
    )
    if reviews[0] == 200:
        said = "".join(f"<blockquote>{each['text']}{_stars(each)}</blockquote>" for each in reviews[1]["reviews"])
    else:
        said = f"<h4>Error fetching product reviews!</h4><p>{reviews[1]['error']}</p>"
    return f"<!doctype html><title>Simple Bookstore App</title><h3>The Comedy of Errors</h3>{book}{said}"


def _stars(review: Mapping[str, Any]) -> str:
    rating = review.get("rating")
    if rating is None:
        return ""
    if "stars" in rating:
        return f'<p style="color:{rating["color"]}">{"★" * rating["stars"]}</p>'
    return f"<p><i>{rating['error']}</i></p>"


def reviews(environment: Mapping[str, str]) -> Handler:
    """Return what people think of the book, with stars from ratings in v2 and v3, or without when it gets none."""
    client = Client()
    version = environment.get("SERVICE_VERSION", "v1")

    async def stars(incoming: Incoming) -> dict[str, int]:
        url = f"{environment['RATINGS_URL']}/ratings/0"
        found = await client.get(url, _forwarded(incoming, "end-user"), within_s=RATINGS_WITHIN_S[version])
        return found[1]["ratings"] if found is not None and found[0] == 200 else {}

    async def answer(incoming: Incoming) -> Answer:
        if incoming.path == "/health":
            return Answer(200, {"status": "Reviews is healthy"})
        if not incoming.path.startswith("/reviews/"):
            return Answer(404, {"error": "there is no such page"})
        given = await stars(incoming) if version in RATINGS_WITHIN_S else {}
        found = []
        for reviewer, text in _TEXTS.items():
            review: dict[str, Any] = {"reviewer": reviewer, "text": text}
            if reviewer in given:
                review["rating"] = {"stars": given[reviewer], "color": STAR_COLORS[version]}
            elif version in RATINGS_WITHIN_S:
                review["rating"] = {"error": "Ratings service is currently unavailable"}
            found.append(review)
        return Answer(200, {"id": "0", "podname": f"reviews-{version}", "clustername": "null", "reviews": found})

    return answer


def details(environment: Mapping[str, str]) -> Handler:
    """Return the facts about the book."""
    book = {
        "id": 0, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
        "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890",
    }  # fmt: skip
    return _fixed("/details/", book, {"status": "Details is healthy"})


def ratings(environment: Mapping[str, str]) -> Handler:
    """Return the stars."""
    return _fixed("/ratings/", {"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}, {"status": "Ratings is healthy"})


def _fixed(prefix: str, content: Any, health: Any) -> Handler:
    async def answer(incoming: Incoming) -> Answer:
        if incoming.path == "/health":
            return Answer(200, health)
        found = incoming.path.startswith(prefix)
        return Answer(200, content) if found else Answer(404, {"error": "there is no such page"})

    return answer


SERVICES: dict[str, Callable[[Mapping[str, str]], Handler]] = {
    "productpage": productpage,
    "reviews": reviews,
    "details": details,
    "ratings": ratings,
}

if __name__ == "__main__":
    asyncio.run(serve(SERVICES[sys.argv[1]](os.environ)))
