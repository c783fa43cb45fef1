"""
What a database's complaint means to the person at the terminal, as one table.

Drivers say the same thing in many words. Each row of `TROUBLES` is a pattern,
what to say, and what to do; the first that is found decides. A password never
gets into a message: neither ours nor one quoted from the driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from luff.errors import StoreError

__all__ = ["TROUBLES", "Trouble", "hidden", "redacted", "store_error"]

_SECRET_PARAMETERS = frozenset({"password", "sslpassword", "passfile"})
_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Trouble:
    """This is one kind of complaint. In *says* and *do*, ``{where}`` is the database and ``{file}`` its file."""

    pattern: str
    says: str
    do: str


TROUBLES: tuple[Trouble, ...] = (
    Trouble(
        r"database (table )?is locked",
        "{where} is locked by another process",
        "see who has it open with `fuser -v {file}`, then try again",
    ),
    Trouble(
        r"readonly database|read-only transaction|read-only file system",
        "{where} is read-only",
        "give this user the right to write the file and its folder, or name another with --store",
    ),
    Trouble(
        r"file is not a database",
        "{where} is not a SQLite database",
        "name another file with --store, or move this one away",
    ),
    Trouble(
        r"malformed|database corruption",
        "{where} is damaged",
        "move it away and recover what can be had with `sqlite3 {file} .recover`; `luff status` and `luff restore` need no database",
    ),
    Trouble(
        r"disk is full|no space left",
        "{where} has no room left",
        "free some space on its disk; `luff restore` needs no database",
    ),
    Trouble(r"disk i/o error", "{where} cannot be read or written: disk I/O error", "check the disk and the system's log"),
    Trouble(
        r"unable to open database file",
        "{where} cannot be opened",
        "check that the folder exists and that this user may write in it, or name another with --store",
    ),
    Trouble(r"password authentication failed|no password supplied", "{where} refuses this user or password", "check --store or LUFF_STORE"),
    Trouble(r"database \".*\" does not exist", "{where} does not exist on that server", "create it with `createdb`, then run `luff db upgrade`"),
    Trouble(
        r"connection refused|could not translate host|name or service not known|failed to resolve|timeout expired"
        r"|connection timeout|no route to host|no such file or directory|server closed the connection|connection is lost"
        r"|terminating connection|could not connect|is the server running",
        "{where} does not answer",
        "check that the server runs and that --store or LUFF_STORE names it",
    ),
    Trouble(r"too many clients|remaining connection slots", "{where} has no connection left", "try again, or raise max_connections"),
    Trouble(r"lock timeout|deadlock detected", "{where} is locked by another session", "try again"),
    Trouble(r"statement timeout|queuepool limit", "{where} took too long", "try again, or look at its load"),
    Trouble(r"permission denied|insufficient privilege", "{where} denies this user what luff needs", "grant it the tables of luff"),
    Trouble(r"no such table|no such column|undefinedtable|relation .* does not exist|column .* does not exist", "{where} is not laid out as this luff expects", "run `luff db current`, then `luff db upgrade`"),
)  # fmt: skip


def hidden(url: URL) -> str:
    """Return *url* as it may be shown."""
    query = {key: _HIDDEN if key in _SECRET_PARAMETERS else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def redacted(text: str, url: URL) -> str:
    """Return *text* without the secrets of *url*."""
    secrets = {str(url.query[key]) for key in _SECRET_PARAMETERS & url.query.keys()}
    for secret in sorted(secrets | {str(url.password or "")}, key=len, reverse=True):
        if secret:
            text = text.replace(secret, _HIDDEN)
    return text


def store_error(error: Exception, url: URL) -> StoreError:
    """Return what *error*, from SQLAlchemy or a driver, means."""
    cause = getattr(error, "orig", None) or error
    said = redacted(str(cause), url).strip()
    where = f"the database {hidden(url)}"
    for trouble in TROUBLES:
        if re.search(trouble.pattern, said, re.IGNORECASE):
            fill = {"where": where, "file": url.database or ""}
            return StoreError(trouble.says.format(**fill), next_step=trouble.do.format(**fill))
    kind = type(cause).__name__ if isinstance(error, SQLAlchemyError) else type(error).__name__
    first_line = said.splitlines()[0] if said else kind
    return StoreError(
        f"{where} failed: {first_line} ({kind})", next_step="`luff status` and `luff restore` need no database"
    )
