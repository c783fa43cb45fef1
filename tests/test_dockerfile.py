"""The image is built from what is in the tree, in two stages, and does not run as root."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def _last_stage() -> list[tuple[str, str]]:
    every = _instructions()
    starts = [index for index, (name, _) in enumerate(every) if name == "FROM"]
    return every[starts[-1] :]


def test_it_has_a_stage_that_builds_and_one_that_runs() -> None:
    stages = [rest.split() for name, rest in _instructions() if name == "FROM"]

    assert len(stages) == 2
    assert [word.lower() for word in stages[0][1:2]] == ["as"]
    copied = [rest for name, rest in _last_stage() if name == "COPY"]
    assert copied
    assert all(f"--from={stages[0][2]}" in rest for rest in copied), (
        "only what was built, not the tree, is in the image"
    )


def test_it_runs_as_a_user_with_a_number_and_not_as_root() -> None:
    users = [rest for name, rest in _last_stage() if name == "USER"]

    # A number, since Kubernetes cannot see that a name is not root's.
    assert users
    assert all(re.fullmatch("[1-9][0-9]*(:[1-9][0-9]*)?", user) for user in users)
    names = [name for name, _ in _last_stage()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]


@pytest.mark.parametrize("instruction", ["COPY", "ADD"])
def test_what_it_takes_from_the_tree_is_there(instruction: str) -> None:
    taken = [shlex.split(rest) for name, rest in _instructions() if name == instruction and "--from=" not in rest]

    for words in taken:
        *sources, _ = [word for word in words if not word.startswith("--")]
        missing = [source for source in sources if not any(ROOT.glob(source.rstrip("/")))]
        assert not missing, f"{instruction} {' '.join(words)}"


def test_what_the_wheel_is_built_from_is_taken() -> None:
    taken = {
        word for name, rest in _instructions() if name == "COPY" and "--from=" not in rest for word in rest.split()
    }
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    for needed in ("src", "alembic", "experiments", "README.md", "LICENSE", "requirements.lock"):
        assert needed in taken
    forced = re.search(r"force-include\]\n((?:.+ = .+\n)+)", text)
    assert forced is not None
    for line in forced[1].splitlines():
        source = line.partition("=")[0].strip().strip('"')
        assert source.split("/")[0] in taken, source


def test_its_command_is_one_that_luff_has() -> None:
    last = dict(_last_stage())

    assert last["ENTRYPOINT"] == '["luff"]'
