import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object

from immunax.runtime.moved import MOVED, current

CERTIFICATES = sorted(Path(__file__).parents[2].glob("experiments/certificates/*/certificate.json"))


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(child)


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_module_that_moved_stands_at_its_new_place_alone(old):
    assert find_spec(MOVED[old]) is not None
    assert find_spec(old) is None


@pytest.mark.parametrize("path", CERTIFICATES, ids=lambda path: path.parent.name)
def test_every_class_of_a_recorded_certificate_can_be_built(path):
    statement = json.loads(path.read_text())
    found = list(targets(current(statement)))
    assert found
    for target in found:
        assert get_object(target)


def test_nothing_but_targets_changes():
    node = {"a": "immunax.attacks.grid.Population", "b": [{"_target_": "immunax.attacks.grid.Population", "x": 1}]}
    assert current(node) == {**node, "b": [{"_target_": "immunax.campaign.grid.Population", "x": 1}]}
