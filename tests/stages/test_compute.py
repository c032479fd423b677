import pytest
import tiny_model

from immunax.models.model import Model
from immunax.runtime.errors import UserError
from immunax.stages.setup import Compute


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("cpu", ("float32", "scanned")), ("gpu", ("bfloat16", "unrolled")), ("tpu", ("bfloat16", "scanned"))],
)
def test_the_device_decides_what_no_one_names(platform, expected):
    model = Compute().model(tiny_model.CONFIG, platform)
    assert (model.dtype, model.decoding) == expected
    assert Compute(decoding="scanned").model(tiny_model.CONFIG, platform).decoding == "scanned"


def test_a_way_of_decoding_that_there_is_none_of_is_refused():
    with pytest.raises(UserError, match="decoding='unroled': expected one of scanned, unrolled"):
        Model(tiny_model.CONFIG, decoding="unroled")
