import json
import math

import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.objective import objective


@pytest.fixture
def run(tmp_path):
    results = {"immunized": {"after": {"refusal": {"value": 0.25, "low": 0.1, "high": 0.4}, "harmful_nll": 2}}}
    record = {"config": {}, "results": results, "fall": {"steps": {"value": None}}, "argv": ["a"]}
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("results.immunized.after.refusal", 0.25),
        ("-results.immunized.after.refusal", -0.25),
        ("results.immunized.after.refusal.high", 0.4),
        ("results.immunized.after.harmful_nll", 2.0),
        ("fall.steps", math.inf),
        ("-fall.steps", math.inf),
    ],
)
def test_a_number_of_the_manifest_is_what_a_sweeper_makes_small(run, path, value):
    assert objective(run, path) == value


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("results.immunised.after.refusal", "Did you mean 'immunized'"),
        ("results.immunized.after.refusal.value.more", "has no 'more'"),
        ("argv", "is no number"),
        ("results.immunized", "is no number"),
        ("", "has no ''"),
    ],
)
def test_what_is_no_number_is_told(run, path, told):
    with pytest.raises(UserError, match=told):
        objective(run, path)
