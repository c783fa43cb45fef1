"""
Outcomes as GitLab's code-quality report, which it shows in the diff of a merge request.

What must stay true: the same finding has the same fingerprint in every
pipeline, and two findings never share one; else GitLab shows it as new, or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from luff.report.findings import Finding, Level
from luff.report.words import visible

__all__ = ["CODE_QUALITY", "JUNIT", "code_quality"]

CODE_QUALITY = "gl-code-quality-report.json"
JUNIT = "junit.xml"
"""The files that ``--gitlab-dir`` writes."""

UNKNOWN_FILE = "luff"
"""GitLab needs a path, also of what is written nowhere."""
_SEVERITY: Mapping[Level, str] = {"error": "critical", "warning": "minor", "notice": "info"}


def code_quality(found: Sequence[Finding], *, locate: Callable[[str], str] = str) -> str:
    """Return the report of *found* as JSON; *locate* turns the name of a file into one from the repository's root."""
    issues = []
    seen: dict[str, int] = {}
    for finding in found:
        path = UNKNOWN_FILE if finding.file is None else visible(locate(finding.file))
        # Not the line and not what was measured: both change while the finding stays the same.
        base = "\n".join((finding.experiment, finding.check or "", finding.kind, path))
        seen[base] = seen.get(base, 0) + 1
        issues.append(
            {
                "description": visible(f"{finding.title}: {finding.message}"),
                "check_name": f"luff/{visible(finding.kind)}",
                "fingerprint": hashlib.sha256(f"{base}\n{seen[base]}".encode("utf-8", "replace")).hexdigest(),
                "severity": _SEVERITY[finding.level],
                "location": {"path": path, "lines": {"begin": finding.line or 1}},
            }
        )
    return json.dumps(issues, indent=2, ensure_ascii=False) + "\n"
