"""
One database, opened for reading and for writing, each in its own right way.

What must stay true:

1. A write transaction takes its lock when it begins (``BEGIN IMMEDIATE``):
   a transaction that reads first and writes later is refused at once, or, in
   the driver's own mode, silently loses updates.
2. Who reads cannot write (``query_only``), and never waits for a writer (WAL).
3. A commit is on the disk when it returns: the journal's promise.
4. Everything that waits has a bound, and every complaint of a driver comes
   out as a `StoreError`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from luff.errors import StoreError
from luff.store.troubles import hidden, store_error

__all__ = ["Database", "connect", "insert_into", "migration_engine", "parse_url", "sqlite_file", "translated"]

LOCK_WITHIN_S = 5.0
"""How long a statement waits for somebody else's lock."""
MIGRATION_LOCK_WITHIN_S = 60.0
STATEMENT_WITHIN_S = 30.0
CONNECT_WITHIN_S = 5
READERS_MOST = 4

_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}
_SUGGESTION = "write sqlite:////var/lib/luff/luff.db or postgresql://user@host/luff"


def parse_url(text: str | None) -> URL:
    """
    Return the address of a database; the user's own SQLite file when *text* is ``None`` or empty.

    Raises `StoreError` for what is not an address, and for databases that luff does not keep its history in.
    """
    if not text:
        folder = platformdirs.user_state_path("luff", appauthor=False)
        return URL.create("sqlite", database=str(folder / "luff.db"))
    try:
        url = make_url(text.strip())
        # Heroku's and many others' spelling.
        url = url.set(drivername="postgresql") if url.drivername == "postgres" else url
        backend, driver = url.get_backend_name(), url.get_driver_name()
    except NoSuchModuleError:
        raise StoreError(
            f"luff keeps its history in SQLite or PostgreSQL, not in {url.drivername}", next_step=_SUGGESTION
        ) from None
    except (ArgumentError, ValueError):
        # The text itself may hold a password in a place where nobody looks for one: not shown.
        raise StoreError("the store's address cannot be read: it is not a URL", next_step=_SUGGESTION) from None
    except ModuleNotFoundError as error:
        raise _no_driver(error) from error
    if backend not in _DRIVERS or driver != _DRIVERS[backend]:
        raise StoreError(
            f"luff keeps its history in SQLite or PostgreSQL (psycopg), not in {url.drivername}", next_step=_SUGGESTION
        )
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError(
            "a database in memory forgets which routes were broken", next_step="name a file: sqlite:///luff.db"
        )
    return url


def sqlite_file(url: URL) -> Path | None:
    """Return the file of a SQLite address, or ``None`` where it is written as a URI or is not SQLite."""
    if url.get_backend_name() != "sqlite" or "uri" in url.query:
        return None
    return Path(str(url.database))


@dataclass(frozen=True, slots=True)
class Database:
    """This is one open database. *url* must not be shown; *shown* may be."""

    url: URL
    reader: Engine
    writer: Engine

    @property
    def shown(self) -> str:
        """Return the address without its password."""
        return hidden(self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database and cannot change it."""
        with translated(self.url), self.reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that holds the write lock; it is committed, and on the disk, when the block has ended well."""
        with translated(self.url), self.writer.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.reader.dispose()
        self.writer.dispose()


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Turn what SQLAlchemy and the drivers raise into `StoreError`."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise store_error(error, url) from error
    except OverflowError as error:
        raise StoreError(f"a number is too large for the database {hidden(url)}: {error}") from error


def connect(url: URL) -> Database:
    """Return the database at *url*, ready to be used but not yet looked at."""
    if url.get_backend_name() == "sqlite":
        reader = _sqlite(url, begin="BEGIN", pragmas={"query_only": "ON"}, connections=READERS_MOST)
        # One writer at a time is all that SQLite has; here they queue in order instead of by polling.
        writer = _sqlite(
            url, begin="BEGIN IMMEDIATE", pragmas={"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "ON"}
        )
        return Database(url, reader, writer)
    engine = _postgresql(url)
    return Database(url, engine.execution_options(postgresql_readonly=True), engine)


def insert_into(connection: Connection, table: Table) -> Any:
    """Return the insert of *connection*'s dialect, which can say what to do on a conflict: to select first is a race."""
    from sqlalchemy.dialects import postgresql, sqlite  # the former takes a twentieth of a second

    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def migration_engine(url: URL) -> Engine:
    """Return an engine that keeps no connection and checks no foreign keys: rebuilding a table would empty those that point at it."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(
            url, begin="BEGIN IMMEDIATE", pragmas={"foreign_keys": "OFF"}, connections=0, lock_s=MIGRATION_LOCK_WITHIN_S
        )
    return _postgresql(url, poolclass=NullPool, lock_s=MIGRATION_LOCK_WITHIN_S)


def _sqlite(
    url: URL, *, begin: str, pragmas: Mapping[str, str], connections: int = 1, lock_s: float = LOCK_WITHIN_S
) -> Engine:
    pool: dict[str, Any] = {"poolclass": NullPool}
    if connections:
        pool = {"pool_size": connections, "max_overflow": 0, "pool_timeout": STATEMENT_WITHIN_S}
    engine = create_engine(url, connect_args={} if "timeout" in url.query else {"timeout": lock_s}, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: object) -> None:
        # The driver opens and closes transactions by guessing; we say when.
        connection.isolation_level = None
        for pragma, value in pragmas.items():
            connection.execute(f"PRAGMA {pragma}={value}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql(url: URL, *, lock_s: float = LOCK_WITHIN_S, **more: Any) -> Engine:
    defaults = {"connect_timeout": CONNECT_WITHIN_S, "application_name": "luff"}
    own = {key: value for key, value in defaults.items() if key not in url.query}
    try:
        engine = create_engine(url, connect_args=own, pool_pre_ping=True, **more)
    except ModuleNotFoundError as error:
        raise _no_driver(error) from error

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        connection.execute(f"SET lock_timeout = {round(lock_s * 1000)}")
        connection.execute(f"SET statement_timeout = {round(max(lock_s, STATEMENT_WITHIN_S) * 1000)}")
        connection.commit()

    return engine


def _no_driver(error: ModuleNotFoundError) -> StoreError:
    return StoreError(
        f"the database driver {error.name!r} is not installed", next_step="run `pip install 'luff[postgres]'`"
    )
