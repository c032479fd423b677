import errno
import os
import re
import signal
import subprocess
import sys

import pytest

from immunax.runtime import atomic, lock
from immunax.runtime.errors import RefusedError, UserError


def test_a_file_appears_with_its_whole_content(tmp_path):
    target = tmp_path / "new" / "a.json"
    with atomic.file(target) as temp:
        temp.write_text("whole")
        assert not target.exists()
        assert temp.suffix == ".json"
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail():
        with atomic.file(target) as temp:
            temp.write_text("ne")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_one_before_it_whole(tmp_path):
    target = tmp_path / "model"
    for name in ("first", "second"):
        with atomic.directory(target) as temp:
            (temp / "part").mkdir()
            (temp / "part" / name).write_text(name)
    assert [path.name for path in target.rglob("*") if path.is_file()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")

    def fail():
        with atomic.directory(target) as temp:
            (temp / "weights").write_text("new")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert (target / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_that_names_the_target(tmp_path, code):
    with pytest.raises(UserError, match=r"model: the disk.*free some space"), atomic.directory(tmp_path / "model"):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_what_a_library_in_rust_says_of_a_full_disk_is_the_same_line(tmp_path):
    with pytest.raises(RefusedError, match="model: the disk is full"), atomic.directory(tmp_path / "model"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="os error 2"), atomic.directory(tmp_path / "model"):
        raise RuntimeError("No such file or directory (os error 2)")


@pytest.mark.parametrize(
    ("place", "reason"), [("file/below/it", "file is a file"), ("/proc/x/below", "there can be no such folder")]
)
def test_a_place_where_no_folder_can_be_is_one_line_that_says_why(tmp_path, place, reason):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"{place}: .*{reason}; choose another"), atomic.file(tmp_path / place):
        pass


def test_a_missing_file_that_a_bug_looked_for_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.directory(tmp_path / "model") as temp:
        (temp / "absent").read_text()
    with pytest.raises(FileExistsError), atomic.directory(tmp_path / "model") as temp:
        temp.mkdir()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_above_that_may_not_be_written_is_the_targets_own_error(tmp_path, code):
    with pytest.raises(UserError, match=r"a/out: .*choose a folder you may write to"), atomic.file(tmp_path / "a/out"):
        raise OSError(code, os.strerror(code), str(tmp_path))


def test_another_file_that_may_not_be_read_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(PermissionError), atomic.file(tmp_path / "a" / "out"):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "b" / "in"))


def test_a_written_file_has_the_permissions_of_a_plain_one(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic.file(tmp_path / "ours") as temp:
        temp.write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


KILLED = """
import os, signal, sys
from immunax.runtime import atomic
with atomic.file(sys.argv[1] + "/a.json") as one, atomic.directory(sys.argv[1] + "/model") as other:
    one.write_text("half")
    (other / "weights").write_text("half")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_half_written_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    writer = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run([*writer, "kill"]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    living = subprocess.Popen([*writer, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert living.stdout.readline() == "writing\n"
    # It has removed what the killed one left, and its own two are locked.
    assert len(list(tmp_path.iterdir())) == 2
    with atomic.file(tmp_path / "b.json") as temp:
        temp.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 3
    living.communicate("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "model"]
    assert (tmp_path / "model" / "weights").read_text() == "half"


LIMITED = """
import resource, sys
from immunax.runtime import atomic
from immunax.runtime.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic.file(sys.argv[1]) as temp:
        temp.write_bytes(bytes(5000))
except UserError as error:
    print(error)
"""


def test_a_file_beyond_the_limit_is_one_line(tmp_path):
    answer = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "a")], capture_output=True, text=True)
    assert re.fullmatch(r"cannot write \S+/a: the file is larger than .*; free some space or .*\n", answer.stdout)
    assert list(tmp_path.iterdir()) == []


def test_on_a_disk_that_knows_no_locks_only_what_nobody_has_written_for_a_day_is_removed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    for name in (".old.partial-a", ".new.partial-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("")
        os.utime(tmp_path / name / "weights", (0, 0) if "old" in name else None)
        os.utime(tmp_path / name, (0, 0))
    with atomic.file(tmp_path / "a.json"):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == [".new.partial-b", "a.json"]
