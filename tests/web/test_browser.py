"""The server as its user has it: the real command line, a real lab, a real Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import ConsoleMessage, Page, Playwright, expect, sync_playwright

LUFF = str(Path(sys.executable).parent / "luff")
BOOKINFO = Path(__file__).parents[2] / "experiments" / "bookinfo"
WITHIN_S = 60.0
QUICK = "reviews-survives-failing-ratings"
LONG = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: long, namespace: bookinfo}
spec:
  target: {host: ratings, from: {app: reviews}}
  fault: {abort: 503}
  traffic:
    requests: [{url: "http://reviews.bookinfo:9080/reviews/0", headers: {end-user: jason}}]
    rate: 10/s
    duration: 200s
    warmup: 1s
  expect:
    - {id: answers, errors: {atMost: 0.4%}}
"""

DAYS = """\
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {{name: core}}
spec: {{experiments: [reviews-survives-failing-ratings]}}
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {{name: soon}}
spec:
  schedule: {{cron: "{minute} {hour} * * *", window: 10m}}
  suites: [core]
  people: {{owner: team-bookinfo, approvers: [operator, platform-oncall], approvals: 1, approveBy: 0s}}
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {{name: monthly}}
spec:
  schedule: {{cron: "0 10 * * TUE#1", timeZone: Europe/Berlin, window: 2h}}
  suites: [core]
  people: {{owner: team-bookinfo, approvers: [platform-oncall], approvals: 1}}
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {{name: with-canary}}
spec:
  schedule: {{cron: "0 9 * * *", window: 1h}}
  suites: [core]
  skipWhen: [canaryProgressing]
"""
SOON = timedelta(hours=1)
"""When the first game day fires, unless somebody starts it."""
SHOTS = os.environ.get("LUFF_TEST_SCREENSHOTS")

pytestmark = pytest.mark.slow


@dataclass
class Served:
    """This is a server that runs. *secrets* are tokens by role."""

    address: str
    process: subprocess.Popen[str]
    secrets: dict[str, str]
    environment: dict[str, str]
    definitions: Path

    def get(self, path: str, role: str = "viewer") -> Any:
        """Return what the API says."""
        headers = {"authorization": f"Bearer {self.secrets[role]}"}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, headers=headers), timeout=20) as found:
            return json.load(found)

    def luff(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run luff beside the server."""
        command = [LUFF, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Serve bookinfo from a lab of its own, with a token for each role."""
    definitions = tmp_path / "definitions"
    shutil.copytree(BOOKINFO, definitions)
    (definitions / "long.yaml").write_text(LONG)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LUFF_", "KUBE", "XDG_"))}
    environment = {
        **kept,
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "LUFF_STORE": f"sqlite:///{tmp_path}/luff.db",
    }
    secrets = {}
    for role in ("viewer", "operator", "admin"):
        made = subprocess.run(
            [LUFF, "token", "create", role, "--role", role], env=environment, capture_output=True, text=True, check=True
        )
        secrets[role] = made.stdout.strip()
    command = [LUFF, "serve", "--definitions", str(definitions), "--lab", "--listen", "127.0.0.1:0"]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, env=environment, stderr=log, text=True, start_new_session=True)
    try:
        until_s = time.monotonic() + WITHIN_S
        while not (found := re.search(r"http://\S+", (tmp_path / "log").read_text())):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until_s, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield Served(found[0], process, secrets, environment, definitions)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(90)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Start Playwright once."""
    with sync_playwright() as started:
        yield started


@pytest.fixture
def page(playwright: Playwright) -> Iterator[Page]:
    """Open a page in Chromium; at the end nothing may have been said on its console."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed, and CI must look at the pages")
        pytest.skip("chromium is not installed: apt-get install chromium")
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    opened = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    opened.on("console", hear)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
    )
    opened.set_default_timeout(WITHIN_S * 1000)
    try:
        yield opened
    finally:
        browser.close()
    assert complaints == []


def sign_in(page: Page, served: Served, role: str) -> None:
    """Sign in."""
    page.goto(served.address)
    page.get_by_label("Token").fill(served.secrets[role])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What holds when a hop breaks")


def test_sign_in_start_a_run_watch_it_end_stop_another_and_leave(served: Served, page: Page) -> None:
    sign_in(page, served, "operator")
    page.get_by_role("link", name="Experiments", exact=True).click()
    page.get_by_role("button", name=f"Run {QUICK}").click()
    expect(page.locator("#phases li[data-phase=live][aria-current]")).to_be_visible(timeout=WITHIN_S * 1000)
    expect(page.locator("#banner")).to_contain_text("A fault is live")
    expect(page.locator("#chart path.line.fault").first).to_be_attached()
    expect(page.locator("article.run .banner")).to_contain_text("passed", timeout=WITHIN_S * 1000)
    expect(page.locator("#banner .hazard")).to_have_count(0)

    page.get_by_role("link", name="Experiments", exact=True).click()
    page.get_by_role("button", name="Run long").click()
    expect(page.locator("#banner")).to_contain_text("by operator", timeout=WITHIN_S * 1000)
    page.goto(served.address + "/runs")
    expect(page.locator("table.runs")).to_contain_text("running")
    page.locator("#banner").get_by_role("button", name="Stop").click()
    expect(page.locator("article.run .banner")).to_contain_text("stopped by operator", timeout=WITHIN_S * 1000)
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.locator("table.grid")).to_contain_text("reviews → ratings")

    actions = [row["action"] for row in served.get("/api/v1/audit", "admin")["items"]]
    assert actions[:3] == ["run.stop", "run.start", "run.start"]
    page.set_viewport_size({"width": 400, "height": 800})
    for path in ("/", "/experiments", "/runs", f"/trends/{QUICK}"):
        page.goto(served.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path

    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(served.address + "/experiments")
    page.get_by_role("button", name="Run long").click()
    expect(page.locator("#banner")).to_contain_text("A fault is live", timeout=WITHIN_S * 1000)
    page.goto("about:blank")
    began_s = time.monotonic()
    served.process.terminate()
    code = served.process.wait(60)

    assert code == 143
    assert time.monotonic() - began_s < 45
    listed = served.luff("runs", "list", "-o", "json")
    newest = json.loads(listed.stdout)[0]
    assert (newest["verdict"], newest["phase"]) == ("aborted", "clean")


def photograph(page: Page, name: str) -> None:
    """Keep how the page looks in light and dark, wide and on a telephone, where ``LUFF_TEST_SCREENSHOTS`` names a folder."""
    if SHOTS is None:
        return
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=str(Path(SHOTS) / f"{name}-{width}-{scheme}.png"), full_page=True)
    page.emulate_media(color_scheme="light")


def test_approve_and_start_a_game_day_see_it_held_and_its_result(served: Served, page: Page) -> None:
    at = datetime.now(UTC) + SOON
    path = served.definitions / "days.yaml"
    path.write_text(DAYS.format(minute=at.minute, hour=at.hour))
    sign_in(page, served, "operator")
    page.get_by_role("link", name="Calendar", exact=True).click()
    # The folder is looked at every few seconds.
    expect(page.get_by_role("heading", level=1)).to_have_text("Game days")
    until_s = time.monotonic() + WITHIN_S
    while page.get_by_role("button", name="Approve soon").count() == 0:
        assert time.monotonic() < until_s
        page.reload()
    photograph(page, "calendar-to-approve")
    expect(page.get_by_role("button", name="Approve monthly")).to_have_count(0)
    page.get_by_role("button", name="Approve soon").first.click()
    expect(page.locator(".coming")).to_contain_text("approved by operator")

    page.locator("summary", has_text="Pause").first.click()
    page.get_by_label("Why").first.fill("black friday")
    page.get_by_role("button", name="Pause monthly now").click()
    expect(page.locator(".coming")).to_contain_text("black friday")
    photograph(page, "calendar-paused")
    page.get_by_role("button", name="Start soon now").click()
    expect(page.locator("#occurrence")).to_contain_text("running", timeout=WITHIN_S * 1000)
    page.get_by_label("What happens").fill("The cache was cold.")
    page.get_by_role("button", name="Add a note").click()
    expect(page.locator("#occurrence table.runs")).to_be_visible(timeout=WITHIN_S * 1000)
    photograph(page, "occurrence-running")
    page.goto(served.address + "/calendar")
    expect(page.locator("#happening")).to_contain_text("soon is being held")
    expect(page.locator("#happening a.run-link").first).to_be_visible()
    expect(page.locator("#banner")).to_contain_text("A fault is live", timeout=WITHIN_S * 1000)
    photograph(page, "calendar-held")
    row = page.locator("table.occurrences tbody tr").first
    expect(row).to_contain_text("soon", timeout=150_000)
    photograph(page, "calendar-over")
    row.get_by_role("link", name="soon").click()
    page.get_by_label("What happens").fill("reviews has no timeout.\nSHOP-123")
    page.get_by_role("button", name="Add a finding").click()
    expect(page.locator(".remarks")).to_contain_text("SHOP-123")
    photograph(page, "occurrence-over")
    page.get_by_role("button", name="Finish").click()
    expect(page.locator("#occurrence")).to_contain_text("Finished by operator")
    photograph(page, "occurrence-finished")
    page.goto(served.address + "/calendar")
    [occurrence] = served.get("/api/v1/occurrences")["items"]
    row.locator("a.run-link").click()
    expect(page.locator("article.run .banner")).to_be_visible()
    assert page.url.endswith(occurrence["runs"][0])
    for name, where in (
        ("overview", "/"),
        ("experiments", "/experiments"),
        ("runs", "/runs"),
        ("run", f"/runs/{occurrence['runs'][0]}"),
        ("trend", f"/trends/{QUICK}"),
    ):
        page.goto(served.address + where)
        photograph(page, name)
    path.write_text("kind: [")
    until_s = time.monotonic() + WITHIN_S
    while page.locator(".definitions").count() == 0:
        assert time.monotonic() < until_s
        page.goto(served.address + "/calendar")
    photograph(page, "calendar-mistake")
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400

    audited = [(each["actor"], each["action"]) for each in served.get("/api/v1/audit", "admin")["items"]]
    assert [each for each in audited if each[0] == "game day soon"] == [("game day soon", "run.start")]
    assert [action for actor, action in audited if actor == "operator"] == [
        "occurrence.finish",
        "occurrence.finding",
        "occurrence.note",
        "gameday.start",
        "gameday.pause",
        "gameday.approve",
    ]
    assert occurrence["state"] in ("passed", "failed")


def test_it_listens_to_others_only_with_a_token(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    command = [LUFF, "serve", "--definitions", str(BOOKINFO), "--lab", "--listen", "0.0.0.0:0"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "luff token create" in done.stderr
