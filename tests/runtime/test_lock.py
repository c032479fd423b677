import subprocess
import sys
import time

import pytest

from immunax.runtime import lock

HOLDER = """
import sys
from pathlib import Path
from immunax.runtime import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a lock, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / lock.FILE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_is_seen_for_as_long_as_its_process_lives(tmp_path, holder):
    path = tmp_path / lock.FILE
    assert lock.is_held(path)
    with lock.held(path, wait=False) as ours:
        assert not ours
    holder.kill()
    holder.wait()
    assert not lock.is_held(path)
    with lock.held(path, wait=False) as ours:
        assert ours


def test_looking_makes_no_file_and_changes_none(tmp_path):
    assert not lock.is_held(tmp_path / lock.FILE)
    assert not list(tmp_path.iterdir())
    (tmp_path / lock.FILE).touch()
    before = (tmp_path / lock.FILE).stat()
    assert not lock.is_held(tmp_path / lock.FILE)
    assert (tmp_path / lock.FILE).stat() == before


def test_whoever_looks_is_in_the_way_of_nobody(tmp_path):
    path = tmp_path / lock.FILE
    path.touch()
    code = (
        "import sys\nfrom pathlib import Path\nfrom immunax.runtime import lock\n"
        "print('looks', flush=True)\nwhile True: lock.is_held(Path(sys.argv[1]))"
    )
    looking = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert looking.stdout.readline() == "looks\n"
        taken, end = 0, time.monotonic() + 1.0
        while time.monotonic() < end:
            with lock.held(path, wait=False) as ours:
                assert ours
            taken += 1
    finally:
        looking.kill()
        looking.wait()
    assert taken > 0
