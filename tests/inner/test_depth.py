import pytest
import small

from immunax.inner.depth import layer_index, stream_rows
from immunax.models.config import DecoderConfig
from immunax.models.model import Model
from immunax.runtime.errors import UserError


def _deep(n_layers: int) -> Model:
    return Model(DecoderConfig("llama", 53, 24, 40, n_layers, 4, 2, 6, 64))


def test_fractions_of_the_default_configurations_are_the_papers_layers_of_32_and_exist_in_30_and_in_3():
    assert [layer_index(_deep(n), 0.21875, "defense.layer") for n in (32, 30, 3)] == [7, 7, 1]
    assert [stream_rows(_deep(n), (0.3125, 0.625), "defense.targets") for n in (32, 30)] == [(10, 20), (9, 19)]
    assert stream_rows(_deep(32), (0, 0.28125, 0.53125, 0.78125, 0.96875), "defense.rows") == (0, 9, 17, 25, 31)
    assert layer_index(small.MODEL, 1.0, "defense.layer") == 2


def test_numbers_are_taken_as_they_are_and_rows_that_coincide_count_once():
    assert layer_index(small.MODEL, 2, "defense.layer") == 2
    assert stream_rows(small.MODEL, (3, 0, 0.99, 0.4), "defense.rows") == (0, 1, 3)


@pytest.mark.parametrize("layer", [3, -1, 1.5, True, "last"])
def test_a_layer_that_the_model_lacks_is_refused_with_its_field_and_the_depth(layer):
    with pytest.raises(UserError, match=r"defense\.layer=.*3 layers.*0 to 2"):
        layer_index(small.MODEL, layer, "defense.layer")


def test_a_list_without_rows_is_refused():
    with pytest.raises(UserError, match=r"defense\.rows is empty"):
        stream_rows(small.MODEL, (), "defense.rows")
