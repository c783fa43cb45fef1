"""The HTML report in a real browser: nothing fetched, nothing overflowing, everything escaped, light and dark."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from luff.outcome import Outcome
from luff.report.html import html
from tests.factories import aborted, failed, inconclusive, passed, samples, stranded

TODAY = date(2026, 11, 24)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium once."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs chromium")
        pytest.skip("there is no chromium here; install it to test pages (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def _write(folder: Path, outcomes: list[Outcome]) -> Path:
    found = {outcome.run: samples() for outcome in outcomes}
    path = folder / "report.html"
    path.write_text(html(outcomes, today=TODAY, samples=found, generated_at="2026-11-24 10:00 UTC"))
    return path


def _open(browser: Browser, path: Path, *, width: int, scheme: str) -> tuple[Page, list[str]]:
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fits_and_asks_for_nothing(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    path = _write(tmp_path, [passed(), failed(), inconclusive(), aborted(), stranded()])

    page, said = _open(browser, path, width=width, scheme=scheme)

    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").count() == 1
    page.close()


def test_text_from_outside_stays_text(browser: Browser, tmp_path: Path) -> None:
    evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"

    page, said = _open(browser, _write(tmp_path, [failed(explanation=evil, actor=evil)]), width=1200, scheme="light")

    assert page.title() != "owned"
    assert evil in page.inner_text("body")
    assert said == []
    page.close()


def test_every_verdict_and_figure_is_there(browser: Browser, tmp_path: Path) -> None:
    outcomes = [passed(), failed(), stranded()]

    page, _ = _open(browser, _write(tmp_path, outcomes), width=1200, scheme="light")

    text = page.inner_text("body")
    for outcome in outcomes:
        assert outcome.experiment in text
        assert outcome.explanation in re.sub(r"\s+", " ", text)
        for check in outcome.checks:
            assert check.id in text
    page.close()


@pytest.mark.parametrize(("mean", "said"), [(2.584, "made 2.58 calls there"), (None, "")])
def test_the_mean_number_of_calls_is_said_where_it_is_known(mean: float | None, said: str) -> None:
    outcome = passed()
    assert outcome.evidence is not None
    known = outcome.evidence.model_copy(update={"calls_per_request": mean})

    page = html([outcome.model_copy(update={"evidence": known})], today=TODAY, samples={}, generated_at="now")

    assert said in page
    assert ("on average a request made" in page) is bool(said)
