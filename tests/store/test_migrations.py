"""One head, up and down, and the tables as the models say: on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from luff.shipped import shipped
from luff.store import Revision, Store, current, downgrade, upgrade
from luff.store.engine import migration_engine, parse_url
from luff.store.tables import HEAD, metadata


def test_there_is_one_head_and_the_code_knows_it() -> None:
    heads = ScriptDirectory(str(shipped("alembic"))).get_heads()

    assert heads == [HEAD]


def test_the_file_of_a_migration_begins_with_its_revision() -> None:
    revisions = ScriptDirectory(str(shipped("alembic"))).walk_revisions()

    assert all(Path(each.path).name.startswith(f"{each.revision}_") for each in revisions)


def test_the_migrations_make_the_tables_that_the_models_say(empty: str) -> None:
    upgrade(empty)
    engine = migration_engine(parse_url(empty))

    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
        without_rowid = (
            connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'check_result'").scalar()
            if connection.dialect.name == "sqlite"
            else "WITHOUT ROWID"
        )
    engine.dispose()

    assert differences == []
    assert "WITHOUT ROWID" in str(without_rowid)


def test_going_down_leaves_nothing_and_up_again_works(empty: str) -> None:
    upgrade(empty)

    down = downgrade(empty, "base")
    engine = migration_engine(parse_url(empty))
    left = set(inspect(engine).get_table_names())
    engine.dispose()
    again = upgrade(empty)

    assert down == Revision(None)
    assert left == {"alembic_version"}
    assert again.up_to_date


def test_looking_at_a_file_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    file = tmp_path / "luff.db"

    revision = current(f"sqlite:///{file}")

    assert revision == Revision(None, HEAD)
    assert not file.exists()


def test_upgrading_what_is_up_to_date_changes_nothing(empty: str) -> None:
    upgrade(empty)

    assert upgrade(empty) == current(empty) == Revision(HEAD, HEAD)


def test_migrating_leaves_the_callers_logging_alone(tmp_path: Path) -> None:
    script = (
        "import logging; logging.basicConfig(level=logging.WARNING); before = logging.getLogger().handlers[:]\n"
        "from luff.store import upgrade\n"
        f"upgrade('sqlite:///{tmp_path / 'luff.db'}')\n"
        "assert logging.getLogger().handlers == before and logging.getLogger().level == logging.WARNING\n"
        "assert not logging.getLogger('luff').disabled\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/", check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_many_processes_may_open_one_new_file_at_once(tmp_path: Path) -> None:
    script = f"from luff.store import Store; Store.open('sqlite:///{tmp_path / 'luff.db'}').close()"

    running = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, cwd="/") for _ in range(6)
    ]
    errors = [process.communicate(timeout=60)[1] for process in running]

    assert errors == [""] * 6
    assert current(f"sqlite:///{tmp_path / 'luff.db'}").up_to_date


def test_many_processes_may_upgrade_one_server_at_once(empty_postgresql: str) -> None:
    script = f"from luff.store import upgrade; assert upgrade({empty_postgresql!r}).up_to_date"

    running = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, cwd="/") for _ in range(4)
    ]
    errors = [process.communicate(timeout=60)[1] for process in running]

    assert errors == [""] * 4


def test_a_store_can_be_made_with_everything_else_read_only(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state" / "deep"), "HOME": "/nonexistent"}

    done = subprocess.run(
        [sys.executable, "-B", "-c", "from luff.store import Store; print(Store.open().url)"],
        capture_output=True, text=True, env=environment, cwd="/", check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.stdout.strip() == f"sqlite:///{tmp_path}/state/deep/luff/luff.db"


def test_two_stores_in_one_process_do_not_mix_their_migrations(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    addresses = [f"sqlite:///{tmp_path / name}.db" for name in "abcd"]

    with ThreadPoolExecutor(4) as pool:
        for store in pool.map(Store.open, addresses):
            store.close()

    assert all(current(address).up_to_date for address in addresses)
