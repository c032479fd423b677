import copy

import pytest

from immunax.certificate.shipped import told
from immunax.runtime.launch import composed
from immunax.runtime.places import without_places


@pytest.fixture(scope="module")
def smoke():
    config = without_places(composed("certify", ["model=organism", "suite=smoke", "run=mine", "seed=3"]).plain)
    return {"predicate": {"seed": 3, "suite": {"name": "smoke", "config": config}}}


def changed(stated, path, value):
    other = copy.deepcopy(stated)
    *parents, name = path.split(".")
    node = other["predicate"]["suite"]["config"]
    for parent in parents:
        node = node[parent]
    node[name] = value
    return told(other)


def test_a_suite_as_it_ships_is_told_so_whatever_the_model_the_seed_and_the_runs_name(smoke):
    assert told(smoke) == "as it ships with this version: attacks, judges, data and policy"


def test_a_precision_of_its_own_is_told_beside_the_suite(smoke):
    said = changed(smoke, "compute.dtype", "bfloat16")
    assert said == (
        "as it ships with this version: attacks, judges, data and policy; in a precision of its own: compute.dtype is "
        "'bfloat16', and 'float32' in what ships"
    )


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("suite.attacks.prune.grid.sparsity", [0.1], "suite.attacks.prune.grid.sparsity.1 is nothing, and 0.3 in"),
        ("suite.transfer_prompts", 1, "suite.transfer_prompts is 1, and 40 in what ships"),
        ("judge.prompts", 2, "judge.prompts is 2, and "),
        ("data.seed", 7, "data.seed is 7, and 0 in what ships"),
        ("policy.confidence", 0.5, "policy.confidence is 0.5, and 0.95 in what ships"),
        ("judge.judges", {}, "judge.judges is {}, and nothing in what ships"),
    ],
)
def test_whatever_differs_from_what_ships_makes_it_a_suite_of_its_own(smoke, path, value, line):
    said = changed(smoke, path, value)
    assert said.startswith("a suite of its own: ")
    assert line in said
    assert "\n" not in said


def test_a_name_that_does_not_ship_and_a_group_of_another_form_are_a_suite_of_its_own(smoke):
    other = copy.deepcopy(smoke)
    other["predicate"]["suite"]["name"] = "standard\npassed"
    assert told(other) == "a suite of its own: none of that name ships"
    assert changed(smoke, "suite", "standard").startswith("a suite of its own: suite is 'standard'")
