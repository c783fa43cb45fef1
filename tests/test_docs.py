"""What the documents show is true: their experiments parse, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luff.cli import COMMANDS
from luff.parse import parse_documents

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_document_of_ours_in_a_page_is_valid(page: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)

    parse_documents([(f"{page.name}#{n}", block) for n, block in enumerate(blocks) if "luff.dev/" in block])


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
