"""Every ``conf/defense/NAME.yaml`` against its class, at the depths of SmolLM2-135M and of a 7B model."""

from dataclasses import fields, replace
from pathlib import Path

import jax
import pytest
import small
from described import described
from omegaconf import OmegaConf

from immunax.models.model import Model
from immunax.outer.defense import StreamBatch

FOLDER = Path(__file__).parents[2] / "conf" / "defense"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_names_every_field_of_a_hashable_defense_that_starts_on_30_and_32_layers(name):
    node = OmegaConf.load(FOLDER / f"{name}.yaml")
    defense = described(node)
    assert hash(defense) == hash(described(node))
    assert set(node) - {"_target_"} == {field.name for field in fields(defense)}
    for depth in (30, 32):
        model = Model(replace(small.CONFIG, n_layers=depth, vocab_size=49152))
        params = jax.eval_shape(model.init, jax.random.key(0))
        jax.eval_shape(defense.trainable(model).split, params)
        jax.eval_shape(lambda p, model=model: defense.init(model, p, StreamBatch(), jax.random.key(0)), params)
