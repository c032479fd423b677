from dataclasses import replace

import pytest
from certified import POLICY

from immunax.runtime.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trainability_steps", 0.0),
        ("trainability_steps", 0.5),
        ("weak_ratio", 0.0),
        ("perplexity", -1.0),
        ("perplexity", float("nan")),
        ("accuracy", 1.5),
        ("over_refusal", -0.1),
        ("price", -1.0),
        ("price", 1e308),
        ("trainability_loss", float("inf")),
    ],
)
def test_a_margin_that_is_none_is_refused(name, value):
    with pytest.raises(UserError, match=rf"^policy\.{name}=.*: expected a number from "):
        replace(POLICY, **{name: value})
