"""Parts of a job: here of one process each, which any jaxlib can do."""

import json

import pytest
import sweeping


def test_parts_share_out_the_runs_of_a_sweep_and_each_runs_its_own(tmp_path):
    found = sweeping.together(tmp_path, 2, "seed=range(5)", "mesh={part:each/2}")
    assert [each.status for each in found] == [0, 0], found
    starts, ends = (sweeping.pids(tmp_path, name) for name in ("starts", "ends"))
    assert starts == ends
    assert set(starts) == {f"seed={each}" for each in range(5)}
    first, second = ({starts[f"seed={each}"][0] for each in taken} for taken in ((0, 2, 4), (1, 3)))
    assert len(first) == len(second) == 1
    assert first != second
    manifests = [json.loads(each.read_text()) for each in tmp_path.glob("outputs/*/*/manifest.json")]
    assert [each["results"]["processes"] for each in manifests] == [1] * 5


def test_processes_of_another_part_have_nothing_to_do(tmp_path):
    found = sweeping.together(tmp_path, 3, "seed=1,2", "mesh={part:1/3}")
    assert [each.status for each in found] == [0, 0, 0], found
    assert found[0].err.startswith("process 0 is in part 0 of 3, and mesh.part=1/3 is another")
    assert set(sweeping.pids(tmp_path, "ends")) == {"seed=1", "seed=2"}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("mesh={part:0/2}",), "mesh.part: there is one process, which 2 parts cannot share; leave it out."),
        (("mesh={part:2/2}",), "mesh.part=2/2: expected I/N"),
        (
            ("mesh={part:each/2}", "hydra/launcher=joblib"),
            "mesh.part shares out a grid that its own processes run: leave hyd",
        ),
        (("mesh={part:each/2}", "hydra/sweeper=optuna", "objective=results.y"), "mesh.part shares out a grid"),
    ],
)
def test_what_no_part_can_do_is_one_line_before_anything_runs(sweep, overrides, line):
    status, said = sweep("seed=1,2", *overrides)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"error: {line}")
