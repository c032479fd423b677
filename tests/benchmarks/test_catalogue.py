"""The catalogue of cases: sizes by device, order, and that each can be run by its sides."""

from pathlib import Path

import pytest
import yaml
from accelerated.catalogue import CASES, COMPILED, EAGER, IMMUNAX, PEAK, measured, named, viewed
from accelerated.models import config_of
from accelerated.shapes import SHAPES
from accelerated.training import spec_of

from immunax.models.config import DecoderConfig
from immunax.models.flops import training_flops


def test_names_are_unique_and_lead_to_their_case():
    assert all(named(case.name) is case for case in CASES)
    assert len({case.name for case in CASES}) == len(CASES)


def test_what_goals_wait_for_is_measured_first_and_each_side_once():
    order = measured(CASES)
    assert order[:4] == [(PEAK, IMMUNAX), *(("full_8x512", side) for side in (IMMUNAX, EAGER, COMPILED))]
    assert len(set(order)) == len(order) == 1 + sum(len(case.sides) for case in CASES)
    assert order.index(("lora_8x512", COMPILED)) > order.index(("scan_1000", IMMUNAX))


def test_a_view_has_the_sides_of_its_platform():
    sides = [side for case, side in viewed(CASES, "gpu") if case == "attention"]
    assert sides == ["immunax xla", "immunax blocks", "immunax cudnn"]
    assert all(side.startswith(IMMUNAX) for _, side in viewed(CASES, "gpu"))


def test_sizes_go_by_the_memory_of_the_device():
    tar, largest = named("tar"), named("lora_8b_4x512")
    assert [tar.sized(False, gib * 2**30)["shape"] for gib in (139, 16)] == ["1.1B", "135M"]
    assert [largest.sized(False, gib * 2**30) is None for gib in (139, 16)] == [False, True]
    assert all(case.sized(True, 0)["shape"] == "tiny" for case in CASES if "shape" in case.sizes)


def test_every_case_has_the_same_sizes_tiny_and_whole():
    for case in CASES:
        assert set(case.tiny) <= set(case.sizes), case.name


@pytest.mark.parametrize(("name", "file", "keys"), [("8B", "llama3_8b", ()), ("organism", "organism", ("model",))])
def test_shapes_are_those_of_their_models(name, file, keys):
    node = yaml.safe_load((Path(__file__).parents[2] / "conf" / "model" / f"{file}.yaml").read_text())
    for key in (*keys, "decoder"):
        node = node[key]
    assert config_of(name) == DecoderConfig(**{key: value for key, value in node.items() if key != "_target_"})


def test_a_step_of_the_first_case_has_the_flops_of_six_products_a_weight():
    shape, sizes = SHAPES["1.1B"], named("full_8x512").sizes
    layer = 2 * shape.d_model * (shape.n_heads + shape.n_kv_heads) * shape.head_dim + 3 * shape.d_model * shape.d_ff
    weights = shape.n_layers * layer + shape.vocab_size * shape.d_model
    tokens, length = sizes["rows"] * sizes["length"], sizes["length"]
    flops = training_flops(config_of("1.1B"), [(length, length - 1)] * sizes["rows"], spec_of(sizes))
    scores = 6 * shape.n_layers * shape.n_heads * shape.head_dim * length * tokens
    assert abs(flops / (6 * weights * tokens + scores) - 1) < 1e-3
    assert 0.9e9 < weights < 1.2e9
