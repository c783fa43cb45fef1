"""The wheel as a stranger gets it: everything needed is in it, and nothing is written beside the code."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, without a network."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("src", "alembic", "experiments", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(copy / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [built] = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Unpack the wheel into a read-only folder, as an image would have it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


READ_ONLY = (
    'for folder in "$HOME" "$TREE"; do mount --bind "$folder" "$folder" && mount -o remount,bind,ro "$folder"; done'
)
"""Root may write whatever a mode forbids, so for root the folders are mounted again, read-only, for this command alone."""


def _shut(command: list[str], environment: dict[str, str]) -> list[str]:
    """Return *command* so that it cannot write to its home and its tree, by whoever it is run."""
    wrapped = ["unshare", "--mount", "sh", "-c", f'{READ_ONLY} && exec "$@"', "sh"]
    if os.geteuid():
        return command
    if subprocess.run([*wrapped, "true"], env=environment, capture_output=True, check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("root could not mount the tree read-only, so this would prove nothing")
        pytest.skip("root may write whatever a mode forbids, and may not mount here")
    return [*wrapped, *command]


def luff(installed: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the unpacked luff with only its own copy on the path; it may write into its state and this folder, no more."""
    shut = home / "home"
    shut.mkdir(mode=0o500, exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(shut),
        "TREE": str(installed),
        "XDG_STATE_HOME": str(home / "state"),
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    code = "import luff, sys; print(luff.__file__, file=sys.stderr); from luff.cli import main; main()"
    return subprocess.run(
        _shut([sys.executable, "-c", code, *arguments], environment),
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_holds_migrations_experiments_and_templates(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    for part in ("luff/_shipped/alembic/env.py", "luff/_shipped/experiments/bookinfo/lab.yaml", "luff/py.typed"):
        assert part in names, part
    assert any(name.startswith("luff/report/templates/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_it_works_from_a_read_only_tree(installed: Path, tmp_path: Path) -> None:
    version = luff(installed, tmp_path, "version")
    schema = luff(installed, tmp_path, "schema", "Experiment")
    database = luff(installed, tmp_path, "db", "upgrade")
    runs = luff(installed, tmp_path, "runs", "list")

    assert str(installed) in version.stderr, "it is the wheel that runs"
    for done in (version, schema, database, runs):
        assert done.returncode == 0, done.stderr


def test_a_lab_and_a_run_work_from_a_read_only_tree(installed: Path, tmp_path: Path) -> None:
    shipped = installed / "luff" / "_shipped" / "experiments" / "bookinfo" / "failing-ratings.yaml"

    done = luff(installed, tmp_path, "run", "--lab", str(shipped), "-k", "reviews-survives", "--html", "r.html")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
    assert (tmp_path / "r.html").exists()


def test_a_home_that_cannot_be_written_is_named(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")

    for command in (("runs", "list"), ("run", "--lab", str(installed / "luff/_shipped/experiments/bookinfo"))):
        done = luff(installed, tmp_path, *command)
        assert done.returncode == 5, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "state" in done.stderr
