"""Every way in which a database can be the wrong one: a sentence, what to do next, and never a password."""

from __future__ import annotations

import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from luff.errors import StoreError
from luff.store import Store, current, downgrade, upgrade
from tests.factories import passed


def refusal(url: str | None) -> StoreError:
    """Return what opening *url* is refused with."""
    with pytest.raises(StoreError) as caught:
        Store.open(url).close()
    assert caught.value.next_step
    return caught.value


@contextmanager
def raw(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file)
    yield connection
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("luff.db", "the store's address cannot be read: it is not a URL"),
        ("://", "the store's address cannot be read: it is not a URL"),
        ("postgresql://user:hunter2@host:port/luff", "the store's address cannot be read: it is not a URL"),
        ("mysql://root:hunter2@localhost/luff", "luff keeps its history in SQLite or PostgreSQL"),
        ("postgresql+asyncpg://ada:hunter2@localhost/luff", "luff keeps its history in SQLite or PostgreSQL"),
        ("nosuch://ada:hunter2@localhost/luff", "luff keeps its history in SQLite or PostgreSQL"),
        ("sqlite://", "a database in memory forgets which routes were broken"),
        ("sqlite:///:memory:", "a database in memory forgets which routes were broken"),
        ("sqlite:////nonexistent/folder/luff.db", "the folder of the store /nonexistent/folder/luff.db does not exist"),
        ("sqlite:////tmp", "the store /tmp is a folder"),
        ("sqlite:////proc/luff.db", "the database sqlite:////proc/luff.db cannot be opened"),
    ],
)
def test_an_address_that_cannot_work_is_refused(url: str, says: str) -> None:
    error = refusal(url)

    assert error.message.startswith(says)
    assert "hunter2" not in str(error)


def test_the_default_is_a_file_in_the_state_folder_and_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    with Store.open() as store:
        store.record(passed())

    assert (tmp_path / "state" / "luff" / "luff.db").is_file()


def test_a_file_of_the_users_own_is_made_and_migrated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'spaces and ünïcode %.db'}"

    Store.open(url).close()

    assert current(url).up_to_date


def test_an_older_file_is_brought_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'luff.db'}"
    upgrade(url)
    downgrade(url, "base")

    Store.open(url).close()

    assert current(url).up_to_date


def test_a_newer_database_is_left_alone(empty: str) -> None:
    upgrade(empty)
    set_revision(empty, "9999")

    error = refusal(empty)

    assert "is newer than this luff (it is at 9999, luff knows up to 0" in error.message
    assert "upgrade luff" in str(error.next_step)
    with pytest.raises(StoreError, match="is newer than this luff"):
        upgrade(empty)


def set_revision(url: str, revision: str) -> None:
    statement = f"UPDATE alembic_version SET version_num = '{revision}'"
    if url.startswith("sqlite"):
        with raw(Path(url.removeprefix("sqlite:///"))) as connection:
            connection.execute(statement)
    else:
        with psycopg.connect(url) as server:
            server.execute(statement.encode())


def test_a_servers_database_is_migrated_only_when_asked(empty_postgresql: str) -> None:
    error = refusal(empty_postgresql.replace(":@", "@"))
    command = shlex.split(str(error.next_step).removeprefix("run `").removesuffix("`"))

    assert "is empty" in error.message
    assert command[:4] == ["luff", "db", "upgrade", "--store"]
    assert upgrade(command[4]).up_to_date
    Store.open(empty_postgresql).close()


def test_the_command_to_migrate_does_not_give_the_password_away(empty_postgresql: str) -> None:
    error = refusal(empty_postgresql.replace(":@", ":hunter2@"))

    assert "hunter2" not in str(error)
    assert str(error.next_step).endswith(", with the password for ***")


def test_a_database_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    with raw(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")

    error = refusal(f"sqlite:///{tmp_path / 'other.db'}")

    assert error.message.endswith("is not luff's: it holds customers")
    with raw(tmp_path / "other.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary, " * 200)

    error = refusal(f"sqlite:///{file}")

    assert error.message.endswith("is not a SQLite database")
    assert file.read_text() == "dear diary, " * 200


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    file = tmp_path / "luff.db"
    with Store.open(f"sqlite:///{file}") as store:
        store.record(passed())
    with raw(file) as connection:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outcome'").fetchone()[0]
    whole = bytearray(file.read_bytes())
    whole[(root - 1) * page : root * page] = b"\xff" * page
    file.write_bytes(bytes(whole))

    with (
        Store.open(f"sqlite:///{file}") as store,
        pytest.raises(StoreError, match=r"is damaged; move it away and recover"),
    ):
        store.outcome(passed().run)


def test_a_read_only_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path / 'luff.db'}").close()

    with Store.open(f"sqlite:///file:{tmp_path / 'luff.db'}?mode=ro&uri=true") as store:
        with pytest.raises(StoreError, match=r"is read-only; give this user the right"):
            store.record(passed())
        assert store.runs() == []


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'luff.db'}"
    with Store.open(url) as store:
        with store._database.writer.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        with pytest.raises(StoreError, match=r"has no room left; free some space"):
            store.record(passed(explanation="x" * 1_000_000))

        assert store.runs() == []


def test_a_server_that_does_not_answer_is_said_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    error = refusal(f"postgresql://ada:hunter2@127.0.0.1:{port}/luff")

    assert error.message == f"the database postgresql://ada:***@127.0.0.1:{port}/luff does not answer"


def test_a_password_in_the_parameters_is_hidden_as_well() -> None:
    error = refusal("postgresql://ada@127.0.0.1:1/luff?password=hunter2&sslpassword=hunter3")

    assert "hunter" not in str(error)


def test_a_database_that_the_server_does_not_have_is_said_so(postgresql_server: str) -> None:
    error = refusal(postgresql_server.format("nowhere"))

    assert error.message.endswith("does not exist on that server")


def test_a_missing_driver_names_what_to_install() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from luff.store import Store\n"
        "Store.open('postgresql://ada:hunter2@127.0.0.1/luff')\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    last = done.stderr.splitlines()[-1]
    assert (
        last
        == "luff.errors.StoreError: the database driver 'psycopg' is not installed; run `pip install 'luff[postgres]'`"
    )


def test_the_shown_address_has_no_password(postgresql: str) -> None:
    with Store.open(postgresql.replace(":@", ":hunter2@")) as store:
        shown = store.url

    assert "hunter2" not in shown
    assert ":***@" in shown


def test_reading_cannot_write(store: Store) -> None:
    from sqlalchemy import text

    with pytest.raises(StoreError), store._database.read() as connection:
        connection.execute(text("DELETE FROM run"))


def test_a_short_lock_is_waited_out(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'luff.db'}") as store:
        script = (
            "import sqlite3, sys, time\n"
            f"c = sqlite3.connect({str(tmp_path / 'luff.db')!r}, isolation_level=None); c.execute('BEGIN IMMEDIATE')\n"
            "print('locked', flush=True); time.sleep(0.3); c.execute('ROLLBACK')\n"
        )
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            other.stdout.readline()

            store.record(passed())

        assert len(store.runs()) == 1


def test_a_file_that_goes_with_its_folder_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    Store.open(f"sqlite:///{folder / 'luff.db'}").close()
    shutil.rmtree(folder)

    error = refusal(f"sqlite:///{folder / 'luff.db'}")

    assert "does not exist" in error.message
    assert list(tmp_path.iterdir()) == []
