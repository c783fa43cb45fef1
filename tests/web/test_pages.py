"""The pages as a browser asks for them: sessions, forms, headers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from luff.store import Role
from tests.factories import failed, passed
from tests.web.conftest import Server

Play = Callable[..., None]
PAGES = ("/", "/experiments", "/runs", "/trends/quick", "/calendar", "/banner")


def csrf_in(text: str) -> str:
    """Return the secret of the first form of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found, text
    return found[1]


@asynccontextmanager
async def signed_in(server: Server, role: Role) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a browser that has signed in."""
    _, secret = server.store.access.create_token(role.value, role)
    async with server.browser() as browser:
        answer = await browser.post("/sign-in", data={"token": secret})
        assert answer.status_code == 303, answer.text
        yield browser


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *holds*; fails when that takes too long."""
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110  # what is waited for is at the other end of HTTP
            await asyncio.sleep(0.05)


def test_without_a_token_the_machines_user_may_look_and_run(play: Play) -> None:
    async def story(server: Server) -> None:
        async with server.browser() as browser:
            for path in PAGES:
                assert (await browser.get(path)).status_code == 200, path
            csrf = csrf_in((await browser.get("/experiments")).text)

            started = await browser.post("/runs", data={"experiment": "quick", "csrf": csrf})
            page = await browser.get(started.headers["location"])

            assert started.status_code == 303
            assert "data-events" in page.text
            await server.until_ended("/api/v1" + started.headers["location"])
            ended = await browser.get(started.headers["location"], follow_redirects=True)
            assert 'class="run card"' in ended.text
            assert "quick" in (await browser.get("/trends/quick")).text

    play(story)


def test_who_is_not_signed_in_is_sent_to_sign_in(play: Play) -> None:
    async def story(server: Server) -> None:
        server.token()
        async with server.browser() as browser:
            for path in PAGES:
                answer = await browser.get(path)
                assert (answer.status_code, answer.headers.get("location")) == (303, "/sign-in"), path
            form = await browser.get("/sign-in")
            wrong = await browser.post("/sign-in", data={"token": "luff_nothing"})

            assert form.status_code == 200
            assert wrong.status_code == 401
            assert "unknown, or was revoked" in wrong.text
            assert not browser.cookies

    play(story)


def test_a_session_is_a_cookie_that_neither_scripts_nor_other_sites_get(play: Play) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.OPERATOR) as browser:
            _, secret = server.store.access.create_token("again", Role.VIEWER)
            cookie = (await browser.post("/sign-in", data={"token": secret})).headers["set-cookie"].lower()

            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert secret.lower() not in cookie

    play(story)


def test_signing_out_and_revoking_end_a_session(play: Play) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.VIEWER) as one, signed_in(server, Role.OPERATOR) as other:
            csrf = csrf_in((await one.get("/")).text)
            out = await one.post("/sign-out", data={"csrf": csrf})
            for token in server.store.access.tokens():
                if token.name == "operator":
                    server.store.access.revoke(token.id)

            assert out.headers["location"] == "/sign-in"
            assert (await one.get("/")).headers["location"] == "/sign-in"
            assert (await other.get("/")).headers["location"] == "/sign-in"

    play(story)


def test_a_viewer_has_no_buttons_and_their_forms_are_refused(play: Play) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.VIEWER) as browser:
            page = (await browser.get("/experiments")).text
            csrf = csrf_in(page)
            refused = await browser.post("/runs", data={"experiment": "quick", "csrf": csrf})

            assert "Run quick" not in page
            assert refused.status_code == 403
            assert "this needs operator" in refused.text
            assert list(server.service.jobs) == []

    play(story)


@pytest.mark.parametrize(
    ("headers", "csrf"),
    [
        ({}, "wrong"),
        ({}, ""),
        ({"origin": "http://evil.example"}, None),
        ({"origin": "null"}, None),
        ({"origin": "http://["}, None),
        ({"sec-fetch-site": "cross-site"}, None),
        ({"sec-fetch-site": "same-site"}, None),
        ({"origin": "http://localhost:9999"}, None),
    ],
)
def test_a_form_of_another_site_changes_nothing(play: Play, headers: dict[str, str], csrf: str | None) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.OPERATOR) as browser:
            good = csrf_in((await browser.get("/experiments")).text)
            data = {"experiment": "quick", "csrf": good if csrf is None else csrf}

            form = await browser.post("/runs", data=data, headers=headers)
            api = await browser.post(
                "/api/v1/runs", json={"experiment": "quick"}, headers={"x-csrf-token": data["csrf"], **headers}
            )

            assert (form.status_code, api.status_code) == (403, 403)
            assert list(server.service.jobs) == []

    play(story)


def test_a_session_may_use_the_api_with_its_secret(play: Play) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.OPERATOR) as browser:
            csrf = csrf_in((await browser.get("/experiments")).text)

            answer = await browser.post("/api/v1/runs", json={"experiment": "quick"}, headers={"x-csrf-token": csrf})

            assert answer.status_code == 202

    play(story)


def test_an_open_server_takes_no_change_from_another_site(play: Play) -> None:
    async def story(server: Server) -> None:
        for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = await server.client.post("/api/v1/runs", json={"experiment": "quick"}, headers=headers)
            assert answer.json()["code"] == "cross_site"

    play(story)


def test_no_answer_lets_a_page_run_or_load_what_is_not_ours(play: Play) -> None:
    async def story(server: Server) -> None:
        server.store.record(passed())
        async with server.browser() as browser:
            for path in (*PAGES, "/nothing", "/static/live.js", f"/runs/{passed().run}", "/api/v1/runs", "/healthz"):
                answer = await browser.get(path)
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["x-content-type-options"] == "nosniff"
                if answer.headers["content-type"].startswith("text/html"):
                    assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)", answer.text), path
                    assert not re.search(r"\sstyle=|<style|\son[a-z]+=\"|javascript:", answer.text), path
                    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text), path
            report = await browser.get(f"/api/v1/runs/{passed().run}/report.html")
            assert "style-src 'sha256-" in report.headers["content-security-policy"]
            assert "script-src" not in report.headers["content-security-policy"]

    play(story)


def test_hostile_text_is_shown_as_text(play: Play) -> None:
    async def story(server: Server) -> None:
        evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m"
        server.store.record(failed(actor=evil, explanation=evil, experiment="evil"))
        server.store.record(failed(run="1" * 16, actor=evil, explanation=evil, experiment=evil))
        async with server.browser() as browser:
            for path in ("/", "/runs", "/trends/evil", f"/runs/{failed().run}", "/runs/" + "1" * 16):
                text = (await browser.get(path)).text
                assert "<script>alert" not in text
                assert "<img src=x" not in text
                assert "\x1b" not in text
            assert "<script>" not in (await browser.get("/trends/%3Cscript%3E")).text

    play(story)


def test_a_live_fault_is_on_every_page_with_a_button_that_stops_it(play: Play) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.OPERATOR) as browser:
            csrf = csrf_in((await browser.get("/experiments")).text)
            await browser.post("/runs", data={"experiment": "long", "csrf": csrf})

            async def shown() -> bool:
                return "A fault is live" in (await browser.get("/banner")).text

            await until(shown)
            for path in PAGES:
                text = (await browser.get(path)).text
                assert "A fault is live" in text
                assert "by operator" in text
                assert "shop/stock" in text
            found = re.search(r'name="run" value="([^"]+)"', text)
            assert found
            stopped = await browser.post("/stop", data={"run": found[1], "csrf": csrf})
            assert stopped.status_code == 303
            job = next(iter(server.service.jobs))

            async def over() -> bool:
                return job.outcome is not None

            await until(over)
            await server.service.faults.look()

            assert job.outcome is not None
            assert "stopped by operator" in job.outcome.explanation
            assert "hazard" not in (await browser.get("/")).text

    play(story)


def test_what_cannot_be_seen_is_said(play: Play) -> None:
    async def story(server: Server) -> None:
        from luff.testing import SimMesh, Trouble

        assert isinstance(server.service.world.mesh, SimMesh)
        server.service.world.mesh.trouble = lambda verb, _ref: Trouble.ERROR if verb == "list" else Trouble.NONE
        await server.service.faults.look()
        async with server.browser() as browser:
            page = (await browser.get("/")).text
            faults = (await server.client.get("/api/v1/faults")).json()

        assert "It cannot be seen whether a fault is live" in page
        assert faults["error"]

    play(story)


def test_a_problem_is_a_page_for_people(play: Play) -> None:
    async def story(server: Server) -> None:
        async with server.browser() as browser:
            for path in ("/runs/nope", "/nothing", "/trends/nope"):
                answer = await browser.get(path)
                assert answer.status_code == 404
                assert answer.headers["content-type"].startswith("text/html")
                assert "not_found" in answer.text

    play(story)
