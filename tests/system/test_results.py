"""The table of a real sweep, one of whose runs fails, by the command as a user runs it."""

import csv
import subprocess
import sys

import pytest
import tiny_model
from processes import JUDGED, environment

SMALL = (
    *JUDGED,
    "probes.prompts=2",
    "attack.tuning.epochs=2",
    "attack.tuning.max_length=256",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a sweep of two in it: the second asks for more samples than there are."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model.write(folder / "model")
    words = ("+attack=harmful_sft", "model=model", "start=base", "run=sweep", *SMALL)
    status, _, err = run(folder, "attack", *words, "-m", "attack.samples=10,100000")
    assert status == 2, err
    return folder


def run(home, module, *words):
    command = [sys.executable, "-m", f"immunax.{module}", *words]
    done = subprocess.run(command, cwd=home, env=environment(home, 1), text=True, capture_output=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_a_sweep_is_a_table_with_the_run_that_failed_in_it(home):
    status, out, err = run(home, "results", "outputs/sweep")
    assert status == 0, err
    assert "2 runs: 1 done, 1 failed" in out
    done, failed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert done[:2] == ["10", "done"]
    assert failed[:2] == ["100000", "failed"]
    assert "[" in done[2]
    assert failed[2] == "–"
    assert "samples=100000 failed: " in err
    assert "Traceback" not in err


def test_means_curves_and_everything_are_of_what_the_runs_left(home):
    loss = f"metrics.attack/{home.name}.loss"
    status, _, err = run(home, "results", "by=attack", f"metric=after.refusal,{loss}", "out=table.csv")
    assert status == 0, err
    assert "1 of 2 runs have no after.refusal: 1 failed" in err
    with (home / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["attack"], row["runs"], row["after.refusal.n"]) == ("harmful_sft", "2", "1")
    assert float(row[loss]) > 0
    status, _, err = run(home, "results", "out=all.csv")
    assert status == 0, err
    with (home / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert {row["choices.attack"] for row in rows} == {"harmful_sft"}
    assert float(rows[0]["seconds"]) >= 0
    assert {"config.attack.tuning.epochs", "after.refusal.low", "versions.jax"} <= rows[0].keys()
    status, _, err = run(home, "results", "plot=lines", "x=step", "y=loss", "out=curve.svg")
    assert status == 0, err
    assert "<svg" in (home / "curve.svg").read_text()


def test_the_live_view_ends_when_nothing_is_left_to_come(home):
    status, out, err = run(home, "results", "outputs", "--watch")
    assert (status, out.splitlines()) == (0, ["1 of 2 runs done, 1 failed"]), err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("none",), "none: is not there; check the path."),
        (("model",), "no run below model: give a folder that immunax.train has written to."),
        (("where=sed < 3",), "no column 'sed'. Did you mean 'seed'?"),
        (("metric=after.refusl",), "no column 'after.refusl'. Did you mean 'after.refusal'?"),
        (("metrics=x",), "metrics: no such option. Did you mean 'metric'?"),
    ],
)
def test_a_mistake_is_one_line(home, words, told):
    status, out, err = run(home, "results", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_help_says_every_word(home):
    status, out, _ = run(home, "results", "--help")
    assert status == 0
    assert all(
        f"{word}=" in out for word in ("where", "select", "metric", "by", "columns", "sort", "limit", "table", "out")
    )
