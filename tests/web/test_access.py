"""Tokens, the audit and what was asked for, as the store keeps them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from luff.errors import UsageError
from luff.store import Role, Store


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Open a new store."""
    with Store.open(database) as opened:
        yield opened


def test_a_secret_opens_and_is_nowhere_in_the_database(store: Store, tmp_path: Path) -> None:
    token, secret = store.access.create_token("ada", Role.OPERATOR)

    found = store.access.by_secret(secret)

    assert found == token
    assert store.access.by_secret(secret + "x") is None
    assert secret.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_revoked_token_opens_nothing_and_stays_in_the_list(store: Store) -> None:
    token, secret = store.access.create_token("ada", Role.ADMIN)

    revoked = store.access.revoke(token.id)

    assert revoked
    assert not store.access.revoke(token.id)
    assert store.access.by_secret(secret) is None
    assert store.access.by_id(token.id) is None
    assert [each.id for each in store.access.tokens()] == [token.id]


def test_that_a_token_was_made_is_not_forgotten_when_it_is_revoked(store: Store) -> None:
    before = store.access.any_tokens()
    token, _ = store.access.create_token("ada", Role.ADMIN)
    store.access.revoke(token.id)

    after = store.access.any_tokens()

    assert (before, after) == (False, True)


def test_a_role_covers_those_below_it() -> None:
    covered = {role: [other.value for other in Role if role.covers(other)] for role in Role}

    assert covered == {
        Role.VIEWER: ["viewer"],
        Role.OPERATOR: ["viewer", "operator"],
        Role.ADMIN: ["viewer", "operator", "admin"],
    }


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 64, "\x00", "-a", "a\n"])
def test_a_token_needs_a_name_that_can_be_read(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        store.access.create_token(name, Role.VIEWER)


def test_the_same_key_is_the_same_request_for_one_actor_only(store: Store) -> None:
    first, new = store.access.request_run("a", actor="ada", idempotency_key="k")

    again, new_again = store.access.request_run("b", actor="ada", idempotency_key="k")
    other, new_other = store.access.request_run("a", actor="bob", idempotency_key="k")
    _, new_without = store.access.request_run("a", actor="ada", idempotency_key=None)

    assert (new, new_again, new_other, new_without) == (True, False, True, True)
    assert again == first
    assert other.id != first.id


def test_a_request_knows_what_came_of_it(store: Store) -> None:
    request, _ = store.access.request_run("a", actor="ada", idempotency_key=None)

    store.access.became(request.id, "0" * 16)

    found = store.access.request(request.id)
    assert found is not None
    assert found.run == "0" * 16
    assert store.access.request("nothing") is None


def test_the_audit_is_read_newest_first_in_pages(store: Store) -> None:
    for number in range(5):
        store.access.audit("run.start", str(number), actor="ada", role="operator", address="127.0.0.1")

    first = store.access.audits(limit=2)
    second = store.access.audits(limit=2, before=first[-1].id)

    assert [row.object for row in first + second] == ["4", "3", "2", "1"]


def test_hostile_text_can_be_audited(store: Store) -> None:
    store.access.audit("run.start", "\x00\ud800" * 200, actor="\x00", note="\ud800" * 20_000)

    assert len(store.access.audits(limit=1)) == 1


def test_two_tokens_never_share_a_hash(tmp_path: Path, store: Store) -> None:
    store.access.create_token("ada", Role.VIEWER)
    copy = "INSERT INTO token SELECT 'other', name, role, secret_sha256, created_at, revoked_at FROM token"

    with sqlite3.connect(tmp_path / "luff.db") as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(copy)
    connection.close()
