import json

import pytest
from run_folders import leave, manifest, sweep, write_grid

from immunax.runs import watch as module
from immunax.runs.watch import Watch, watch
from immunax.runtime import lock
from immunax.runtime.errors import UserError


def test_jobs_that_have_not_begun_are_waited_for_and_a_sweep_that_grows_is_seen(tmp_path):
    sweep(tmp_path)
    looking = Watch([tmp_path])
    assert looking.look().waiting == 0
    write_grid(tmp_path, ["+defense=tar,rep_noise", "seed=range(5)"])
    assert looking.look().waiting == 4
    write_grid(tmp_path, ["+defense=tar,rep_noise,lat", "seed=range(5)"])
    assert looking.look().waiting == 9


def test_runs_that_no_sweep_tells_of_are_waited_for_too(tmp_path):
    leave(tmp_path / "a", manifest())
    assert Watch([tmp_path]).look().is_over
    assert Watch([tmp_path], 3).look().waiting == 2
    leave(tmp_path / "b", manifest())
    leave(tmp_path / "c", manifest())
    assert Watch([tmp_path], 3).look().is_over


def test_without_a_terminal_there_is_a_line_when_something_has_changed_and_it_ends(tmp_path, monkeypatch, capsys):
    folder = leave(tmp_path / "a", manifest(ended=None))
    clock = [0.0]

    def sleep(seconds):
        clock[0] += seconds
        if clock[0] == 30:
            (folder / "manifest.json").write_text(json.dumps(manifest()))

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.time, "sleep", sleep)
    with lock.held(folder / lock.FILE):
        watch([tmp_path], 1.0)
    assert capsys.readouterr().out.splitlines() == ["0 of 1 runs done, 1 running", "1 of 1 runs done"]


def test_on_a_terminal_one_place_is_drawn_anew_with_runs_at_work_and_failures(tmp_path, monkeypatch, capsys):
    sweep(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    (tmp_path / "defense=tar+seed=1" / "failure.json").write_text(
        json.dumps({"line": "\x1b[2J$boom", "diverged": True})
    )

    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", sleep)
    with lock.held(tmp_path / "defense=tar+seed=2" / lock.FILE), pytest.raises(KeyboardInterrupt):
        watch([tmp_path], 1.0)
    out = capsys.readouterr().out
    assert "4 of 6 runs done, 1 running, 1 diverged" in out
    assert "defense=tar+seed=2" in out
    assert "3/4" in out
    assert "defense=tar+seed=1: \\x1b[2J$boom" in out


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        watch([tmp_path / "none"], 1.0)
