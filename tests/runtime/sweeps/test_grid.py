"""Sweeps in this process, of runs that do next to nothing."""

import json
import shutil
from pathlib import Path

import pytest
import sweeping
from hydra.core.plugins import Plugins

from immunax.runs.watch import Watch
from immunax.runtime.sweeps import outcome
from immunax.runtime.sweeps.runs import Runs


def starts():
    return {name: len(found) for name, found in sweeping.pids(Path(), "starts").items()}


def test_what_has_ended_is_not_started_again_and_one_line_says_how_much_that_is(sweep):
    assert sweep("seed=1,2") == (0, "")
    status, said = sweep("seed=1,2,3", "x=0.5")
    assert (status, said) == (0, "2 of 3 runs have ended before; to make one anew, delete its folder\n")
    assert starts() == {"seed=1": 1, "seed=2": 1, "seed=3": 1}


def test_the_number_of_a_sweeper_and_the_mesh_make_no_other_run(sweep):
    sweep("seed=1,2")
    assert sweep("seed=1,2", "objective=results.y", "+mesh.data=2")[1].startswith("2 of 2 runs have ended before;")


def test_another_configuration_is_started_and_so_is_one_whose_inputs_have_changed(sweep):
    Path("weights").write_text("1")
    sweep("seed=1,2", "model.path=weights")
    assert sweep("seed=1,2", "model.path=weights")[1].startswith("2 of 2")
    Path("weights").write_text("12")
    sweep("seed=1,2", "model.path=weights")
    sweep("seed=1,2", "model.path=weights", "seconds=0.01")
    assert starts() == {"seed=1": 3, "seed=2": 3}


def test_a_run_that_another_line_has_named_by_other_keys_is_not_started_again(sweep):
    sweep("seed=1,2", "x=0.4,0.5")
    first = starts()
    status, said = sweep("seed=1,2", "x=0.5")  # one key fewer
    assert (status, said.splitlines()) == (
        0,
        [
            "2 of 2 runs have other names here, such as seed=1, which is seed=1+x=0.5",
            "2 of 2 runs have ended before; to make one anew, delete its folder",
        ],
    )
    assert starts() == first == dict.fromkeys((f"seed={seed}+x={x}" for seed in (1, 2) for x in (0.4, 0.5)), 1)
    assert Watch([Path("outputs/one")]).look().is_over


def test_a_line_that_gives_a_fixed_value_a_second_one_runs_what_it_adds(sweep):
    sweep("seed=1,2")
    assert sweep("seed=1,2", "x=0.5,0.6")[0] == 0  # 0.5 is what it was
    assert starts() == dict.fromkeys(("seed=1", "seed=2", "seed=1+x=0.6", "seed=2+x=0.6"), 1)
    assert Watch([Path("outputs/one")]).look().is_over


@pytest.mark.slow
def test_runs_that_differ_in_their_mesh_alone_are_all_made_where_a_line_asks_for_them(sweep):
    sweep("seed=1")
    sweep("seed=1", "+mesh.data=2,4")
    sweep("seed=1", "+mesh.data=2,4,8")
    assert starts() == dict.fromkeys(("job", "data=2", "data=4", "data=8"), 1)


def test_a_run_that_is_deleted_under_its_other_name_is_made_anew(sweep):
    sweep("seed=1,2", "x=0.4,0.5")
    sweep("seed=1,2", "x=0.5")
    shutil.rmtree("outputs/one/seed=1+x=0.5")
    shutil.rmtree("outputs/one/seed=2+x=0.5")
    assert sweep("seed=1,2", "x=0.5") == (0, "")
    assert starts().keys() == {"seed=1+x=0.4", "seed=2+x=0.4", "seed=1", "seed=2"}
    assert Watch([Path("outputs/one")]).look().is_over


def test_what_failed_is_started_again_and_what_diverged_is_told_of(sweep):
    status, said = sweep("x=0.5,0.85,0.95")
    assert status == 2
    assert said.splitlines()[:2] == ["error: failed at 0.85", "error: diverged at 0.95"]
    assert said.splitlines()[2].startswith("error: 2 of the sweep's jobs failed: one/x=0.85 (")
    status, said = sweep("x=0.5,0.85,0.95")
    assert status == 2
    assert said.startswith("2 of 3 runs have ended before; 1 of them diverged: x=0.95; to make one anew,")
    assert starts() == {"x=0.5": 1, "x=0.85": 2, "x=0.95": 1}
    failed = json.loads(Path("outputs/one/x=0.95/failure.json").read_text())
    assert (failed["line"], failed["diverged"]) == ("diverged at 0.95", True)


def test_what_other_code_has_made_stays_and_is_told_of(sweep, monkeypatch):
    sweep("seed=1,2")
    monkeypatch.setattr(outcome, "_code", lambda: "other")
    status, said = sweep("seed=1,2,3")
    assert status == 0
    assert "2 of them with other code or libraries than now (such as seed=1)" in said
    assert starts() == {"seed=1": 1, "seed=2": 1, "seed=3": 1}


def test_a_job_may_do_several_runs_one_after_another(sweep):
    assert sweep("x=0.1,0.2,0.85,0.4,0.6", "hydra.sweeper.pack=2")[0] == 2
    assert set(sweeping.pids(Path(), "ends")) == {"x=0.1", "x=0.2", "x=0.4", "x=0.6"}
    shown = Path("outputs/one/x=0.2/.hydra/overrides.yaml").read_text()
    assert "x=0.2" in shown
    assert sweep("x=0.1,0.2,0.85,0.4,0.6", "hydra.sweeper.pack=2")[1].startswith("4 of 5 runs have ended before;")


def test_runs_are_launched_in_batches_where_that_is_asked_for(sweep, monkeypatch):
    sizes = []
    real = Runs._launch
    monkeypatch.setattr(Runs, "_launch", lambda self, left: sizes.append(len(left)) or real(self, left))
    assert sweep("seed=range(5)", "hydra.sweeper.max_batch_size=2")[0] == 0
    assert sizes == [2, 2, 1]


@pytest.fixture
def losing(monkeypatch):
    """Has the launcher lose the last of the jobs that it is given, so many times."""

    def lose(times):
        real, rounds = Plugins.instantiate_launcher, []

        def instantiate(self, **parts):
            launcher = real(self, **parts)
            launch = launcher.launch

            def losing(job_overrides, initial_job_idx):
                rounds.append(len(job_overrides))
                return launch(job_overrides[: -1 if len(rounds) <= times else None], initial_job_idx)

            launcher.launch = losing
            return launcher

        monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate)
        return rounds

    return lose


def test_runs_whose_workers_are_lost_are_launched_again_and_others_are_not(sweep, losing):
    rounds = losing(2)
    status, said = sweep("seed=1,2,3")
    assert status == 0
    assert rounds == [3, 1, 1]
    assert said == "1 of the sweep's runs have lost their worker: they go on\n" * 2
    assert starts() == {"seed=1": 1, "seed=2": 1, "seed=3": 1}


def test_a_sweep_that_loses_its_workers_and_ends_nothing_gives_up_with_the_status_of_a_job_to_be_started_again(
    sweep, losing, monkeypatch
):
    monkeypatch.setattr("immunax.runtime.sweeps.runs._PATIENCE", 2)
    rounds = losing(100)
    status, said = sweep("seed=1,2")
    assert (status, rounds) == (142, [2, 1, 1])
    assert said.splitlines()[-1] == (
        "error: 1 of the sweep's jobs failed: seed=2 (its worker was lost; start the line again)"
    )


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ("hydra/launcher=jolib",),
            "unknown hydra/launcher 'jolib'. Did you mean 'joblib'? Choices: basic, joblib, ray,",
        ),
        (
            ("hydra/sweeper=optun",),
            "unknown hydra/sweeper 'optun'. Did you mean 'optuna'? Choices: basic, grid, optuna",
        ),
        (("hydra/sweeper=optuna",), "hydra/sweeper=optuna makes a number small: name it, such as objective=results."),
        (
            ("x=interval(0,1)",),
            "x=interval(0,1): a range has no last value in a grid; list some, or add hydra/sweeper=op",
        ),
        (
            ("hydra.sweeper.fuse=true",),
            "hydra.sweeper.fuse: runs of immunax.attack alone can be one program; leave it out",
        ),
        (("hydra.sweeper.fuse=-1",), "hydra.sweeper.fuse=-1: expected true, false, or how many runs at most."),
        (("hydra.sweeper.pack=0",), "hydra.sweeper.pack=0: expected a whole number, at least 1."),
        (("hydra.sweeper.max_batch_size=x",), "hydra.sweeper.max_batch_size=x: expected a whole number, at least 1."),
        (("hydra.sweeper.paks=2",), "configuration: Could not override 'hydra.sweeper.paks'.;"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line_before_anything_runs(sweep, overrides, line):
    status, said = sweep("seed=1,2", *overrides)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"error: {line}")
    assert not starts()


@pytest.mark.parametrize(
    ("overrides", "module", "extra"),
    [
        ("hydra/launcher=joblib", "joblib", "launchers"),
        ("hydra/launcher=submitit_slurm", "submitit", "launchers"),
        ("hydra/launcher=ray", "ray", "ray"),
        ("hydra/sweeper=optuna", "optuna", "launchers"),
    ],
)
def test_an_engine_that_is_not_installed_is_one_line_with_its_extra(sweep, monkeypatch, overrides, module, extra):
    monkeypatch.setattr("immunax.runtime.sweeps.engines.find_spec", lambda name: None if name == module else name)
    line = f"error: {overrides} needs {module}, which is not installed: pip install 'immunax[{extra}]'\n"
    assert sweep("seed=1,2", overrides) == (2, line)


def test_a_launcher_starts_no_processes_in_one_of_several_that_are_one_job(sweep, monkeypatch):
    monkeypatch.setattr("immunax.runtime.sweeps.engines.processes", lambda: 2)
    status, said = sweep("seed=1,2", "hydra/launcher=joblib")
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(
        "error: hydra/launcher=joblib starts processes of its own, and this is one of 2 that run as one"
    )
    assert sweep("seed=1,2")[0] == 0
