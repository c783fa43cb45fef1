"""The small JSONPath: what it reads, what it selects, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff import jsonpath

LAW = settings(max_examples=150)
DOCUMENT = {
    "stock": "unknown",
    "items": [{"id": 1, "rating": {"stars": 5}}, {"id": 2}, {"id": 3, "rating": {"stars": None}}],
    "a.b": {"c d": [[1, 2], [3]]},
    "with-dash": True,
    "0": "text",
    "nothing": None,
}

SELECTED: list[tuple[str, list[Any]]] = [
    ("$", [DOCUMENT]),
    ("$.stock", ["unknown"]),
    ("$['stock']", ["unknown"]),
    ('$["stock"]', ["unknown"]),
    ("$[ 'stock' ]", ["unknown"]),
    ("$.with-dash", [True]),
    ("$['a.b']['c d'][0][1]", [2]),
    ("$['a.b']['c d'][*][*]", [1, 2, 3]),
    ("$.items[0].id", [1]),
    ("$.items[-1].id", [3]),
    ("$.items[3]", []),
    ("$.items[-4]", []),
    ("$.items[*].id", [1, 2, 3]),
    ("$.items.*.id", [1, 2, 3]),
    ("$.items[*].rating.stars", [5, None]),
    ("$.nothing", [None]),
    ("$.nothing.more", []),
    ("$.missing", []),
    ("$.stock[0]", []),
    ("$.stock[*]", []),
    ("$.stock.length", []),
    ("$[0]", []),
    ("$['0']", ["text"]),
    ("$['']", []),
    ("$.items[*].rating[*]", [5, None]),
]


@pytest.mark.parametrize(("path", "selected"), SELECTED)
def test_selections(path: str, selected: list[Any]) -> None:
    assert jsonpath.compile(path).select(DOCUMENT) == selected
    assert jsonpath.compile(path).text == path


@pytest.mark.parametrize(
    "path", ["", "stock", ".stock", " $.stock", "$stock", "$.", "$..stock", "$.a b", "$[", "$[]", "$[x]", "$['a'", "$[?(@.a)]", "$[0:2]", "$.1a", "$.stock ", "$[1.5]"]
)  # fmt: skip
def test_what_is_no_path_is_refused_with_the_place(path: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read at|does not begin with \$"):
        jsonpath.compile(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.' ", max_size=3), inner, max_size=3),
    max_leaves=12,
)


def _everything(value: Any) -> list[tuple[str, Any]]:
    """Return every value within *value* with the path that leads to it alone."""
    found = [("", value)]
    if isinstance(value, dict):
        for name, inner in value.items():
            step = f'["{name}"]' if "'" in name else f"['{name}']"
            found += [(step + path, leaf) for path, leaf in _everything(inner)]
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found += [(f"[{index}]{path}", leaf) for path, leaf in _everything(inner)]
    return found


@LAW
@given(document=JSON)
def test_everything_in_a_document_has_a_path(document: Any) -> None:
    for path, value in _everything(document):
        assert jsonpath.compile("$" + path).select(document) == [value]


@LAW
@given(document=JSON)
def test_a_star_is_every_step(document: Any) -> None:
    below = list(document.values()) if isinstance(document, dict) else document if isinstance(document, list) else []
    assert jsonpath.compile("$[*]").select(document) == jsonpath.compile("$.*").select(document) == below


@LAW
@given(text=st.text("$.[]'\"*-0a ", max_size=12), document=JSON)
def test_any_text_is_a_path_or_a_sentence(text: str, document: Any) -> None:
    try:
        path = jsonpath.compile(text)
    except ValueError:
        return
    assert isinstance(path.select(document), list)
