"""Files are whole or not at all, and things that are not files are written to."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from luff.errors import LuffError, UsageError
from luff.files import check_writable, write_atomically
from luff.shipped import shipped


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")

    write_atomically(file, "new ☃")

    assert file.read_text(encoding="utf-8") == "new ☃"
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_who_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    with file.open() as reader:
        write_atomically(file, "new")

        assert reader.read() == "old"


def test_a_new_file_has_the_mode_of_any_other_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    plain, new, kept = tmp_path / "plain", tmp_path / "new", tmp_path / "kept"
    plain.write_text("")
    kept.write_text("")
    kept.chmod(0o640)

    write_atomically(new, "")
    write_atomically(kept, "")

    assert new.stat().st_mode == plain.stat().st_mode
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)

    write_atomically(link, b"new")

    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    (folder / "full").mkdir(parents=True)

    with pytest.raises(LuffError, match="could not be written"):
        write_atomically(folder, "text")

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "report"]


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_is_written_to_and_not_replaced(place: str, into: str, tmp_path: Path) -> None:
    script = f"from luff.files import *; check_writable({place!r}); write_atomically({place!r}, 'text')"

    if into == "pipe":
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        written = done.stdout
    else:
        with (tmp_path / "out").open("w+") as out:
            out.write("before, ")
            out.flush()
            subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
            out.seek(0)
            written = out.read().removeprefix("before, ")

    assert written == "text"
    assert Path("/dev/stdout").is_symlink()


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_atomically("/dev/null", "text")

    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_half_of_a_surrogate_pair_does_not_stop_a_report(tmp_path: Path) -> None:
    write_atomically(tmp_path / "report", "a\ud800b")

    assert (tmp_path / "report").read_text() == "a\\ud800b"


def test_what_could_not_be_written_later_is_refused_before(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder; name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(UsageError, match=r"does not exist; run `mkdir -p "):
        check_writable(tmp_path / "no" / "report.html")
    with pytest.raises(UsageError, match="cannot be written"):
        check_writable("/proc/report.html")
    with pytest.raises(UsageError, match="cannot be written"):
        check_writable(tmp_path / ("x" * 300))


def test_asking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "report.html")

    assert list(tmp_path.iterdir()) == []


def test_shipped_folders_are_found_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    assert (shipped("alembic") / "env.py").is_file()


def test_a_missing_shipped_folder_says_what_to_do() -> None:
    with pytest.raises(LuffError, match=r"lacks its folder 'nothing'.*install luff again"):
        shipped("nothing")
