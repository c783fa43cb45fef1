"""
Bringing a database to the layout that this luff knows, and saying so when that is not ours to do.

What must stay true:

1. A SQLite file is the user's own and is created and migrated when it is
   opened. A server's database is shared: only `upgrade` migrates it.
2. Migrations run under a lock, and what is there is looked at again inside it.
3. A migration happens as a whole or not at all.
4. A database of a newer luff, and one that is not luff's, are left alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sqlalchemy import URL, Connection, inspect, text

from luff.errors import StoreError
from luff.files import is_file, is_folder
from luff.shipped import shipped
from luff.store.engine import Database, connect, migration_engine, parse_url, sqlite_file, translated
from luff.store.tables import HEAD
from luff.store.troubles import hidden

__all__ = ["Revision", "current", "downgrade", "ensure_current", "upgrade"]

_LOCK_KEY = 0x6C756666
"""The number of PostgreSQL's advisory lock: "luff"."""
_ALEMBIC = threading.Lock()
"""Alembic keeps what it works on in module globals: one at a time in a process."""


@dataclass(frozen=True, slots=True)
class Revision:
    """This is where a database stands: *database* is its migration, ``None`` when it is empty; *shipped* is ours."""

    database: str | None
    shipped: str = HEAD

    @property
    def up_to_date(self) -> bool:
        """Return whether nothing is to be done."""
        return self.database == self.shipped


def current(url: str | None = None) -> Revision:
    """Return where the database at *url* stands; it is not created for that."""
    address = parse_url(url)
    path = sqlite_file(address)
    if path is not None and not path.exists():
        return Revision(None)
    database = connect(address)
    try:
        return _read(database)
    finally:
        database.close()


def upgrade(url: str | None = None, to: str = "head") -> Revision:
    """Bring the database at *url* up to *to*, and return where it stands now."""
    address = parse_url(url)
    _check_folder(address, create=url is None)
    return _migrate(address, to=to, up=True)


def downgrade(url: str | None, to: str) -> Revision:
    """Take the database at *url* back down to *to*, such as ``base``, losing what older layouts cannot hold."""
    return _migrate(parse_url(url), to=to, up=False)


def ensure_current(url: str | None) -> Database:
    """Return the open database at *url*, at the newest layout; see the laws above for who may migrate what."""
    address = parse_url(url)
    _check_folder(address, create=not url)
    database = connect(address)
    try:
        revision = _read(database, create=True)
        if not revision.up_to_date:
            if address.get_backend_name() != "sqlite":
                raise _not_ours_to_migrate(address, revision)
            _migrate(address, to="head", up=True)
    except StoreError:
        database.close()
        raise
    return database


def _check_folder(url: URL, *, create: bool) -> None:
    path = sqlite_file(url)
    if path is None:
        return
    if is_folder(path):
        raise StoreError(f"the store {path} is a folder", next_step=f"name a file in it: sqlite:///{path / 'luff.db'}")
    if is_folder(path.parent):
        return
    if not create:
        raise StoreError(
            f"the folder of the store {path} does not exist", next_step=f"run `mkdir -p {path.parent}` first"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder {path.parent} cannot be made: {error.strerror}",
            next_step="name a file you may write with --store",
        ) from error


def _read(database: Database, *, create: bool = False) -> Revision:
    """Look where *database* stands. With *create* a SQLite file that is not there comes into being, empty."""
    path = sqlite_file(database.url)
    opened = database.write if create and path is not None and not is_file(path) else database.read
    with opened() as connection:
        return Revision(_checked(connection, database.url))


def _checked(connection: Connection, url: URL) -> str | None:
    """Return the migration that *connection* stands at; refuse what is foreign or newer."""
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" not in tables:
        if tables:
            some = ", ".join(sorted(tables)[:3])
            raise StoreError(
                f"the database {hidden(url)} is not luff's: it holds {some}",
                next_step="name an empty or new one with --store",
            )
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found is None or found == HEAD:
        return found
    if not any(shipped("alembic").glob(f"versions/{found}_*.py")):
        raise StoreError(
            f"the database {hidden(url)} is newer than this luff (it is at {found}, luff knows up to {HEAD})",
            next_step="upgrade luff: `pip install --upgrade luff`, or name another database with --store",
        )
    return str(found)


def _not_ours_to_migrate(url: URL, revision: Revision) -> StoreError:
    state = "is empty" if revision.database is None else f"is older than this luff ({revision.database}, not {HEAD})"
    fill_in = "" if "***" not in hidden(url) else ", with the password for ***"
    return StoreError(
        f"the database {hidden(url)} {state}; a shared database is migrated by hand",
        next_step=f"run `luff db upgrade --store '{hidden(url)}'`{fill_in}",
    )


def _migrate(url: URL, *, to: str, up: bool) -> Revision:
    from alembic import command  # a second of import that an up-to-date database never pays
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(shipped("alembic")).replace("%", "%%"))
    engine = migration_engine(url)
    try:
        with _ALEMBIC, translated(url), engine.connect() as connection, connection.begin():
            if url.get_backend_name() == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            _checked(connection, url)
            config.attributes["connection"] = connection
            (command.upgrade if up else command.downgrade)(config, to)
            return Revision(_checked(connection, url))
    except CommandError as error:
        raise StoreError(f"there is no way to the layout {to!r}: {error}", next_step="run `luff db current`") from error
    finally:
        engine.dispose()
