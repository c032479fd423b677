import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from immunax.judges.evaluate import Evaluation
from immunax.runtime.admission import admit
from immunax.runtime.moved import MOVED, current
from immunax.stages.guard import Start
from immunax.stages.setup import Compute, Corpus, ModelRecipe
from immunax.stages.suite import Suite

CERTIFICATES = sorted(Path(__file__).parents[2].glob("experiments/certificates/*/certificate.json"))


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_module_that_moved_stands_at_its_new_place_alone(old):
    assert find_spec(MOVED[old]) is not None
    assert find_spec(old) is None


@pytest.mark.parametrize("path", CERTIFICATES, ids=lambda path: path.parent.name)
def test_every_class_of_a_recorded_certificate_can_be_built(path):
    config = json.loads(path.read_text())["predicate"]["suite"]["config"]
    kinds = {
        "model": ModelRecipe,
        "data": Corpus,
        "compute": Compute,
        "start": Start,
        "suite": Suite,
        "judge": Evaluation,
    }
    for name, kind in kinds.items():
        assert admit(config[name], kind, name) is not None


def test_nothing_but_targets_changes():
    node = {"a": "immunax.attacks.grid.Population", "b": [{"_target_": "immunax.attacks.grid.Population", "x": 1}]}
    assert current(node) == {**node, "b": [{"_target_": "immunax.campaign.grid.Population", "x": 1}]}
