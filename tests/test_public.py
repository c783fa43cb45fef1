"""The library's surface: one sorted list, every name there, and none of it imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import luff


def test_the_list_is_sorted_and_every_name_is_there() -> None:
    assert sorted(luff.__all__) == luff.__all__
    assert all(getattr(luff, name) is not None for name in luff.__all__)
    assert set(luff.__all__) <= set(dir(luff))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(luff, "nothing_like_it")


def test_nothing_is_imported_before_it_is_used() -> None:
    code = "import sys, luff; print(*[name for name in sys.modules if name.startswith('luff.')])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
