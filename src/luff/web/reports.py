"""Reports and badges of runs, made when they are asked for."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import Literal

from markupsafe import Markup, escape

from luff.exit_codes import exit_code
from luff.model import Verdict
from luff.outcome import Outcome
from luff.report.document import render, report
from luff.report.html import html
from luff.report.junit import junit
from luff.report.markdown import markdown
from luff.samples import Samples

__all__ = ["Format", "badge", "fragment", "made", "policy_of"]

Format = Literal["html", "json", "xml", "md"]
TYPES: dict[Format, str] = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "xml": "application/xml",
    "md": "text/markdown; charset=utf-8",
}
_COLOURS = {
    Verdict.PASSED: "#14683c",
    Verdict.FAILED: "#b42318",
    Verdict.INCONCLUSIVE: "#855300",
    Verdict.ABORTED: "#6b3fa0",
    Verdict.ERROR: "#9c2c0d",
}
_UNKNOWN = "#566273"
_LETTER = 6.6
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def made(outcome: Outcome, samples: Samples | None, format_: Format) -> str:
    """Return the report of one run."""
    now = datetime.now(UTC)
    if format_ == "html":
        kept = {} if samples is None else {outcome.run: samples}
        return html([outcome], today=now.date(), samples=kept, generated_at=f"{now:%Y-%m-%d %H:%M} UTC")
    if format_ == "json":
        return render(report([outcome], exit_code([outcome], today=now.date())))
    if format_ == "xml":
        return junit([outcome], today=now.date())
    return markdown([outcome], today=now.date())


def policy_of(page: str) -> str:
    """Return the policy for *page*, an HTML report: nothing but its own style, by its hash."""
    found = _STYLE.search(page)
    digest = hashlib.sha256((found[1] if found else "").encode()).digest()
    style = base64.b64encode(digest).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def fragment(page: str) -> Markup:
    """Return what is in the ``main`` of *page*, an HTML report, to stand in one of ours. All in it is escaped already."""
    _, _, rest = page.partition('<main class="wide">')
    inner, _, _ = rest.partition("</main>")
    return Markup(inner)  # noqa: S704  # made by our own templates, which escape


def badge(experiment: str, verdict: Verdict | None) -> str:
    """Return an SVG that says the newest *verdict* of *experiment*, ``None`` when it never ran."""
    said = "never ran" if verdict is None else str(verdict)
    colour = _UNKNOWN if verdict is None else _COLOURS[verdict]
    left, right = len(experiment) * _LETTER + 16, len(said) * _LETTER + 16
    name = escape(experiment)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.0f}" height="20" role="img" aria-label="{name}: {said}">'
        f"<title>{name}: {said}</title>"
        f'<rect width="{left:.0f}" height="20" fill="#17212e"/><rect x="{left:.0f}" width="{right:.0f}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2:.0f}" y="14">{name}</text><text x="{left + right / 2:.0f}" y="14">{said}</text></g></svg>'
    )
