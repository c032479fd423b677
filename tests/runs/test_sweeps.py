import pytest
from run_folders import write_grid

from immunax.runs.sweeps import jobs_of


def test_a_grid_says_which_folders_it_will_fill(tmp_path):
    write_grid(
        tmp_path,
        ["model=organism", "run=x", "+defense=tar,lat", "seed=range(2)", "trainer.optimizer.learning_rate=1e-4"],
    )
    rate = "learning_rate=0.0001"
    assert jobs_of(tmp_path) == {f"defense={name}+seed={seed}+{rate}" for name in ("tar", "lat") for seed in (0, 1)}


def test_where_the_jobs_are_not_known_there_are_none(tmp_path):
    assert jobs_of(tmp_path) == frozenset()
    write_grid(tmp_path, ["seed=0,1"], sweeper="hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper")
    assert jobs_of(tmp_path) == frozenset()
    write_grid(tmp_path, ["seed=0,1"], subdir="${hydra.job.num}")
    assert jobs_of(tmp_path) == frozenset()


@pytest.mark.parametrize("task", [["seed="], ["][", "="], [5], "x", ["seed=glob(*)"], None])
def test_what_is_no_grid_of_ours_is_none(tmp_path, task):
    write_grid(tmp_path, task)
    assert len(jobs_of(tmp_path)) <= 1


def test_a_strangers_endless_sweep_ends(tmp_path):
    write_grid(tmp_path, ["seed=range(1000000000000)", "a=range(1000)"])
    assert len(jobs_of(tmp_path)) <= 100_000
