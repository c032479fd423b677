"""The scale tables of experiments: which sweeps they are of, and what they say of what the compiler found."""

import importlib.util

import pytest

from immunax.runtime.configuration import configuration_folder
from tpu import job
from tpu.slices import ROOT

_SPEC = importlib.util.spec_from_file_location("scale", ROOT / "experiments" / "scale.py")
assert _SPEC is not None
assert _SPEC.loader is not None
scale = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scale)


def test_every_sweep_of_a_papers_scale_has_a_mesh_that_is_a_slice_with_a_price():
    there = configuration_folder().glob("experiment/*/*/paper.yaml")
    named = {(name, command) for name, commands in scale.SWEEPS.items() for command in commands}
    assert named == {(path.parts[-3], path.parts[-2]) for path in there}
    for commands in scale.SWEEPS.values():
        for mesh in commands.values():
            shape = job.shape_of(job.read(["immunax.train", "-m", *mesh]), None)
            assert all(scale.prices.of(shape, 1, scale.ZONE, each).hour > 0 for each in scale.CAPACITY)


def program(name, step, hours, fits=True):
    memory, seconds = {"peak": 8 * 2**30}, {"compute": step / 2, "interconnect": step}
    told = {"memory": memory, "seconds": seconds, "bound": "interconnect", "run_seconds": 3600 * hours}
    return {"of": name, "fits": fits, **(told if fits else {"refusal": "too large"})}


def sweep(*programs, count, runs=6):
    dollars = {"on-demand": 10.0, "spot": 2.5}
    shape = {"line": "python -m immunax.train -m +experiment=a", "type": "v5litepod-16", "chips": 16}
    return {**shape, "runs": runs, "programs": count, "dollars_an_hour": dollars, "compiled": list(programs)}


def test_runs_cost_the_mean_of_the_programs_that_were_compiled():
    text = scale.told(sweep(program("K=4", 0.5, 1.0), program("K=64", 4.0, 3.0), count=3))
    assert "| K\\=4 | 8.0 GiB | 0.5 s | interconnect | 1 |" in text
    # Six runs of two hours at ten dollars.
    assert (
        "6 runs (the mean of 2 of 3 programs): 12 hours of 16 chips (v5litepod-16), $120.00 on-demand or $30.00 spot."
        in text
    )


@pytest.mark.parametrize("others", [(), (program("b", 1.0, 1.0),)])
def test_what_does_not_fit_is_told_and_costs_nothing(others):
    text = scale.told(sweep(program("a", 0, 0, fits=False), *others, count=1 + len(others)))
    assert "| a | does not fit |" in text
    assert ("6 runs" in text) == bool(others)


def test_programs_are_told_by_what_sets_them_apart():
    programs = [
        (
            "+experiment/a/train=paper",
            "+estimator@defense.attacker.estimator=implicit",
            "defense.mixture.simulation.steps=4",
        ),
        (
            "+experiment/a/train=paper",
            "+estimator@defense.attacker.estimator=implicit",
            "defense.mixture.simulation.steps=8",
        ),
    ]
    assert scale._differing(programs[1], programs) == "steps=8"
    assert scale._differing(programs[0], programs[:1]) == "all"
