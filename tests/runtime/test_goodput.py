import json
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from immunax.runtime import goodput
from immunax.runtime.accounts import CATEGORIES


def on_disk(folder):
    return json.loads((folder / goodput.FILE).read_text())["starts"]


def test_outside_a_command_nothing_is_kept(tmp_path):
    with goodput.spending("step"):
        goodput.record(tmp_path)
        goodput.keep(3)
        goodput.resumed(2, again=1)
    assert list(goodput.spent_on("step", [1, 2])) == [1, 2]
    assert goodput.summary(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_jax_tells_what_is_compiled_within_a_step_and_what_the_cache_saves(tmp_path):
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        with goodput.spending("step"):
            jax.jit(lambda x: jnp.sin(x @ x).sum() + 1.25)(jnp.ones((7, 7))).block_until_ready()
        jax.monitoring.record_event_duration_secs("/jax/compilation_cache/compile_time_saved_sec", 12.5)
        with goodput.spending("step"):
            thread = threading.Thread(
                target=lambda: jax.monitoring.record_event_duration_secs("/jax/core/compile/x", 1e6)
            )
            thread.start()
            thread.join()
        found = goodput.summary(tmp_path)
    assert 0 < found["seconds"]["compile"] < 60
    assert found["compile_saved"] == 12.5
    assert found["wall"] == pytest.approx(sum(found["seconds"].values()))


def test_the_next_start_goes_on_with_the_accounts_of_the_one_before(tmp_path, capsys):
    for start in (1, 2):
        with goodput.kept(whole_process=start == 1):
            goodput.record(tmp_path)
            goodput.resumed(3 * (start - 1), again=2 * (start - 1))
            for step in (3, None):
                for _ in goodput.spent_on("step", range(1)):
                    pass
                if step:
                    goodput.keep(step)
            if start == 2:
                found = goodput.summary(tmp_path)
    assert (found["starts"], found["redone_steps"]) == (2, 2)
    assert found["seconds"]["startup"] > 0
    assert "2 starts" in capsys.readouterr().err
    assert len(on_disk(tmp_path)) == 2


def test_accounts_that_cannot_be_read_cost_a_line_and_begin_anew(tmp_path, capsys):
    (tmp_path / goodput.FILE).write_text('{"starts": [{"began": "x"}]}')
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        assert goodput.summary(tmp_path)["starts"] == 1
    assert "the accounts begin anew" in capsys.readouterr().err


def test_runs_that_are_one_program_say_how_many_share_the_seconds(tmp_path):
    folders = [tmp_path / name for name in ("one", "other")]
    with goodput.kept(whole_process=False):
        for folder in folders:
            folder.mkdir()
            goodput.record(folder)
        assert [goodput.summary(folder)["runs"] for folder in folders] == [2, 2]


def test_a_disk_that_takes_nothing_ends_no_run(tmp_path):
    (tmp_path / "file").touch()
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path / "file" / "below")
        assert goodput.summary(tmp_path / "file" / "below")["starts"] == 1


KILLED = """
import os, signal, sys, time
from pathlib import Path
from immunax.runtime import goodput
goodput._SECONDS = 0.05
with goodput.kept(whole_process=True):
    goodput.record(Path(sys.argv[1]))
    with goodput.spending("load"):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_killed_start_has_left_what_it_spent_though_it_never_came_to_say_so(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and on_disk(tmp_path)[0]["spent"]["load"] < 0.2:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    [start] = on_disk(tmp_path)
    assert start["spent"]["load"] >= 0.2
    assert start["spent"]["startup"] > 0
    assert start["spent"].keys() == set(CATEGORIES)
