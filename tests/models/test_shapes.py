"""The shapes in ``conf/model`` against what their makers publish."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import pytest
import tiny_model
from described import described
from omegaconf import OmegaConf

from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runtime.errors import UserError

FOLDER = Path(__file__).parents[2] / "conf" / "model"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smollm2", 134_515_008),
        ("llama2_7b", 6_738_415_616),
        ("llama3_8b", 8_030_261_248),
        ("qwen2_5_7b", 7_615_616_512),
        ("llama3_70b", 70_553_706_496),
    ],
)
def test_a_shape_has_the_published_number_of_parameters(name, parameters):
    source = described(OmegaConf.load(FOLDER / f"{name}.yaml"))
    shapes = jax.eval_shape(Model(source.shape()).init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


def test_a_model_whose_files_have_another_shape_is_refused(tmp_path):
    tiny_model.write(tmp_path / "model")
    path = str(tmp_path / "model")
    shape = ModelSource(path).shape()
    assert ModelSource(path, decoder=shape).load().config == shape
    with pytest.raises(UserError, match="differ in d_ff, n_layers"):
        ModelSource(path, decoder=replace(shape, n_layers=9, d_ff=8)).load()
