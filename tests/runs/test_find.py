import os

import pytest
from run_folders import leave, manifest

from immunax.runs.find import runs_below
from immunax.runtime.errors import UserError


def names(*roots):
    return [place.name for place in runs_below(roots).places]


def test_runs_are_found_at_any_depth_and_what_a_run_has_made_is_not_looked_into(tmp_path):
    for name in ("a", "sweep/seed=1", "sweep/seed=2", "sweep/more/deep/seed=3"):
        leave(tmp_path / name, manifest())
    leave(tmp_path / "a" / "seed=4", manifest())  # a sweep under the name of a run
    leave(tmp_path / "a" / "checkpoints" / "none")
    leave(tmp_path / ".hidden")
    (tmp_path / "nothing").mkdir()
    assert names(tmp_path) == ["a", "a/seed=4", "sweep/more/deep/seed=3", "sweep/seed=1", "sweep/seed=2"]


@pytest.mark.parametrize("mark", ["manifest.json", "failure.json", ".lock", "certificate.json"])
def test_a_folder_is_a_run_from_its_first_file_on(tmp_path, mark):
    (tmp_path / "run").mkdir()
    assert names(tmp_path) == []
    (tmp_path / "run" / mark).touch()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["run"]


def test_of_several_folders_names_begin_as_they_were_given_and_no_run_counts_twice(tmp_path, monkeypatch):
    leave(tmp_path / "one" / "x")
    leave(tmp_path / "two" / "x")
    monkeypatch.chdir(tmp_path)
    os.symlink("two", "link")
    from pathlib import Path

    assert names(Path("one"), Path("link"), Path("two")) == ["one/x", "link/x"]
    os.symlink("..", "one/loop")
    assert names(Path("one")) == ["x"]


def test_a_sweep_is_where_hydra_wrote_its_file(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    assert runs_below([tmp_path]).sweeps == (tmp_path / "sweep",)


def test_what_is_no_folder_is_refused_and_one_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name, told in (("file", "is a file; give the folder that it lies in"), ("none", "is not there")):
        with pytest.raises(UserError, match=told):
            runs_below([tmp_path / name])
    leave(tmp_path / "a")
    (tmp_path / "shut").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = runs_below([tmp_path])
    assert [place.name for place in found.places] == ["a"]
    assert found.faults == (f"{tmp_path / 'shut'}: cannot be listed (Permission denied); its runs are left out.",)
