"""What the processes of a job compare before anything is computed."""

import pytest
from omegaconf import OmegaConf

from immunax.runtime import job

LINE = ["-m", "+defense=tar", "seed=0,1", "hydra.sweeper.fuse=true", "outputs=gs://b/runs"]


@pytest.fixture
def compared(monkeypatch):
    """What a process shows the others of its configuration and a line."""
    shown = []
    monkeypatch.setattr(job, "begin", lambda asked, about, part: shown.append(about()))

    def show(*line):
        job.join(OmegaConf.create({"seed": 0, "distributed": {"timeout": 5}}), line)
        return shown.pop()

    return show


@pytest.mark.parametrize(
    "own",
    [
        "distributed.process_id=1",
        "distributed={coordinator: 'a:1', processes: 2, process_id: 1}",
        "hydra.verbose=true",
        "hydra/job_logging=stdout",
        "+hydra.job.env_set={A: b}",
        "--config-dir=/on/this/host",
    ],
)
def test_which_process_it_is_and_how_it_logs_is_its_own(compared, own):
    assert compared(*LINE, own) == compared(*LINE)


@pytest.mark.parametrize(
    "other",
    [
        LINE[1:],
        [*LINE[:2], "seed=0,1,2", *LINE[3:]],
        [*LINE[:3], "hydra.sweeper.fuse=false", *LINE[4:]],
        [*LINE, "hydra/sweeper=optuna"],
        [LINE[0], *LINE[2:3], *LINE[1:2], *LINE[3:]],
    ],
)
def test_another_sweep_is_another_line(compared, other):
    mine, theirs = compared(*LINE), compared(*other)
    assert {name for name in mine if mine[name] != theirs[name]} == {"command line"}
