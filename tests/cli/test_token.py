"""Tokens on the command line."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from luff.cli import cli
from luff.store import Role, Store


def test_revoking_the_last_token_says_that_nobody_is_let_in(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'luff.db'}"
    with Store.open(url) as store:
        tokens = [store.access.create_token(name, Role.VIEWER)[0].id for name in ("ada", "bob")]

    first, last = (CliRunner().invoke(cli, ["token", "revoke", token, "--store", url]) for token in tokens)

    assert (first.exit_code, last.exit_code) == (0, 0)
    assert first.stderr == f"token {tokens[0]} is revoked\n"
    assert "lets nobody in until `luff token create NAME` makes another" in last.stderr
