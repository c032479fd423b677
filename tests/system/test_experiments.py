"""Every experiment in its small form: the sweeps of all its commands, and the figure that they leave."""

import json
import re

import pytest
from processes import environment

from immunax import figure
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.experiments import COMMANDS

FOLDER = configuration_folder() / "experiment"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/figure.yaml"))
USUAL = "qi2023_ten_samples"
"""Of all experiments the one whose small form is no slow test: each takes half a minute and more."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a cache that all experiments share, as their organism is one."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize(
    "name", [name if name == USUAL else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_an_experiment_runs_in_its_small_form_and_is_drawn(home, commands, monkeypatch, capsys, name):
    made = [command for command in COMMANDS if (FOLDER / name / command / "tiny.yaml").is_file()]
    assert made == [command for command in COMMANDS if (FOLDER / name / command).is_dir()]
    for command in made:
        done = commands.run(home, environment(home, 1), command, "-m", f"+experiment={name}", "scale=tiny")
        assert done.returncode == 0, done.stderr
    monkeypatch.chdir(home)
    assert figure.main([name, "scale=tiny"]) == 0
    assert re.match(r"[1-9]\d* runs, \d panels and \d tables: ", capsys.readouterr().out)
    out = home / "outputs" / f"{name}-tiny"
    assert (out / "figure.svg").read_text().startswith("<?xml")
    runs = json.loads((out / "runs.json").read_text())
    assert len(runs["runs"]) > 1
    assert runs["all"]["status"] == "done"
    if name == USUAL:  # its runs are one program, and each says its own attack
        assert {(run["choices.attack"], run["seed"]) for run in runs["runs"]} == {
            (f"{attack}_sft_organism", seed) for attack in ("harmful", "benign") for seed in (0, 1)
        }
    # What was kept draws the same figure without the runs.
    again = home / "again" / name
    assert figure.main([name, "scale=tiny", f"results={out}", f"out={again}"]) == 0
    assert (again / "figure.svg").read_bytes() == (out / "figure.svg").read_bytes()
    assert (again / "table.md").read_bytes() == (out / "table.md").read_bytes()


def test_an_experiment_that_nobody_ran_is_one_line_with_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert figure.main([NAMES[0], "scale=organism"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"-m +experiment={NAMES[0]} scale=organism" in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "name one experiment: "),
        (["qi2023_ten_sample"], "unknown experiment 'qi2023_ten_sample'. Did you mean 'qi2023_ten_samples'?"),
        (["qi2023_ten_samples", "scal=tiny"], "scal: no such word. Did you mean 'scale'?"),
        (["qi2023_ten_samples", "scale="], "scale=: give each word once, with a value."),
        (["qi2023_ten_samples", "results=."], "runs.json: is no record of runs"),
        (["missing.yaml"], "missing.yaml: cannot be read as YAML"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    assert figure.main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert line in told
