"""Reading the files and folders that a command line names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from luff.errors import InvalidFile, Problem, UsageError
from luff.files import is_file, is_folder
from luff.model import Experiment, PolicySpec, Suite
from luff.parse import Documents, parse_documents
from luff.suite import expand
from luff.yaml_nodes import Place, Problems, place_at, plain, read_nodes

__all__ = ["overrides_of", "read_documents", "read_policy"]

ENDINGS = (".yaml", ".yml")
FILE_MOST_BYTES = 5 << 20
REPORT_MOST_BYTES = 200 << 20


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
        except FileNotFoundError:
            problems.append(Problem(str(path), 1, 1, "there is no such file"))
        except OSError as error:
            problems.append(Problem(str(path), 1, 1, f"the file cannot be read: {error.strerror}"))
    if problems:
        raise InvalidFile(problems)
    return parse_documents(sources, overrides=overrides or {})


def read_policy(path: Path | None) -> PolicySpec | None:
    """Return the one Policy in *path*, ``None`` without a path; `UsageError` when there is not exactly one that is valid."""
    if path is None:
        return None
    found = read_documents([path]).policies
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} policies", next_step="name a file with one `kind: Policy`")
    return found[0].spec


def expanded(documents: Documents) -> tuple[Experiment, ...]:
    """Return the experiments that *documents* stand for: those of their suites, or all when there is no suite."""
    return expand(documents.suites, documents.experiments, place=_entry_place)


def _entry_place(suite: Suite, entry: int) -> Place:
    """Return where *entry* of *suite* is written. Only problems need it, so the file is read again for it."""
    try:
        roots = read_nodes(suite.file, Path(suite.file).read_text(encoding="utf-8-sig"), Problems())
    except (OSError, UnicodeDecodeError):
        roots = []
    for root in roots:
        document = plain(root)
        if not isinstance(document, dict) or document.get("kind") != "Suite":
            continue
        if (document.get("metadata") or {}).get("name") == suite.metadata.name:
            return place_at(root, "spec", "experiments", entry)
    return Place(suite.file, 1, 1)


def read_text(path: Path, what: str, *, next_step: str) -> str:
    """Return the text of *path*, which is *what*; `UsageError` when it cannot be read."""
    try:
        if path.stat().st_size > REPORT_MOST_BYTES:
            raise UsageError(f"{what} {path} is larger than {REPORT_MOST_BYTES >> 20} MiB", next_step=next_step)
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is not UTF-8 text (byte {error.start})", next_step=next_step) from error
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}", next_step=next_step) from error


def _files(paths: Iterable[Path], problems: list[Problem]) -> list[Path]:
    """Return *paths* with what is in their folders in place of those; whether a file can be had is seen when it is read."""
    found: list[Path] = []
    for path in paths:
        if is_folder(path):
            inside = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS and is_file(p))
            if not inside:
                problems.append(Problem(str(path), 1, 1, "there is no YAML file in this folder"))
            found += inside
        else:
            found.append(path)
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
