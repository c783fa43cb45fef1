"""What the documents show is true: their experiments parse, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from luff.cli import COMMANDS
from luff.notify import SIGNATURE_HEADER, TIMESTAMP_HEADER, parse_channels, signature
from luff.parse import parse_documents

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_document_of_ours_in_a_page_is_valid(page: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)

    ours = [(f"{page.name}#{n}", block) for n, block in enumerate(blocks) if "luff.dev/" in block]
    for file, block in ours:
        if "kind: Notify" in block:
            names = re.findall(r"fromEnv: (\w+)", block)
            parse_channels(file, block, environment=dict.fromkeys(names, "https://hooks.example/services"))
    parse_documents([each for each in ours if "kind: Notify" not in each[1]])


def test_what_the_page_about_webhooks_checks_is_what_luff_signs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "telling.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(snippet, "docs/telling.md", "exec"), found)
    body, now = b'{"text":"\xc3\xa9"}', int(time.time())
    headers = {TIMESTAMP_HEADER: str(now), SIGNATURE_HEADER: signature("secret", now, body)}
    old = {TIMESTAMP_HEADER: "1000", SIGNATURE_HEADER: signature("secret", 1000, body)}

    assert found["is_luffs"](b"secret", headers, body)
    assert not found["is_luffs"](b"another", headers, body)
    assert not found["is_luffs"](b"secret", headers, body + b" ")
    assert not found["is_luffs"](b"secret", old, body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)", prose)

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_exists(page: Path) -> None:
    blocks = re.findall(r"```.*?```", page.read_text(), re.DOTALL)
    named = set(re.findall(r"^(?:\$ )?luff ([a-z]+)", "\n".join(blocks), re.MULTILINE))
    named |= set(re.findall(r"`luff ([a-z]+)", page.read_text()))

    assert named <= set(COMMANDS)


def test_the_map_has_every_module() -> None:
    code = " ".join(re.findall(r"`([^`]*)`", (ROOT / "ARCHITECTURE.md").read_text()))
    words = set(re.findall(r"[a-z_]+", code))
    modules = {path.stem for path in (ROOT / "src" / "luff").glob("*") if path.suffix == ".py" or path.is_dir()}

    assert modules - words - {"__init__", "__pycache__", "__main__", "py"} == set()
