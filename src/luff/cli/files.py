"""Reading the files and folders that a command line names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from luff.errors import InvalidFile, Problem, UsageError
from luff.parse import Documents, parse_documents

__all__ = ["overrides_of", "read_documents"]

ENDINGS = (".yaml", ".yml")
FILE_MOST_BYTES = 5 << 20


def read_documents(paths: Sequence[Path], *, overrides: Mapping[str, str] | None = None) -> Documents:
    """Parse every YAML file that *paths* name, folders with all that is in them; raises with every problem at once."""
    sources: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for path in _files(paths, problems):
        try:
            if path.stat().st_size > FILE_MOST_BYTES:
                problems.append(Problem(str(path), 1, 1, f"the file is larger than {FILE_MOST_BYTES >> 20} MiB"))
                continue
            sources.append((str(path), path.read_text(encoding="utf-8-sig")))
        except UnicodeDecodeError as error:
            problems.append(Problem(str(path), 1, 1, f"the file is not UTF-8 text (byte {error.start})"))
        except OSError as error:
            problems.append(Problem(str(path), 1, 1, f"the file cannot be read: {error.strerror}"))
    if problems:
        raise InvalidFile(problems)
    return parse_documents(sources, overrides=overrides or {})


def _files(paths: Iterable[Path], problems: list[Problem]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS and p.is_file())
            if not inside:
                problems.append(Problem(str(path), 1, 1, "there is no YAML file in this folder"))
            found += inside
        elif path.exists():
            found.append(path)
        else:
            problems.append(Problem(str(path), 1, 1, "there is no such file"))
    return list(dict.fromkeys(found))


def overrides_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``--set path=value`` as a mapping."""
    found = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise UsageError(
                f"--set {pair!r} is not path=value", next_step="write it such as --set spec.traffic.rate=10/s"
            )
        found[path] = value
    return found
