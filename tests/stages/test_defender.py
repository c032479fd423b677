"""Whom a defense trains against, from the command line to the object."""

from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from immunax.inner.estimators import FirstOrder, MixedMode
from immunax.outer.attacker import Attacker
from immunax.outer.attacker_population import AttackerPopulation
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError
from immunax.runtime.launch import composed
from immunax.stages.defender import defender


def _defender(*overrides):
    return defender(composed("train", overrides))


@pytest.mark.parametrize(
    ("name", "retain_first", "estimator"),
    [("tar", 0.25, FirstOrder()), ("mlac", 0.0, MixedMode()), ("sophon", 0.0, FirstOrder())],
)
def test_one_option_gives_a_bilevel_defense_a_population_that_its_own_gradient_passes_through(
    name, retain_first, estimator
):
    defense = _defender(f"+defense={name}", "+attacker=population", "attacker.kinds.sgd.learning_rates=[0.1,0.2]")
    population = defense.attacker
    assert isinstance(population, AttackerPopulation)
    assert (population.retain_first, population.estimator) == (retain_first, estimator)
    assert population.kinds["sgd"].learning_rates == (0.1, 0.2)
    assert population.kinds["adamw_lora"].lora.rank == 8
    assert isinstance(hash(defense), int)
    assert isinstance(_defender(f"+defense={name}").attacker, Attacker)


def test_the_configuration_names_every_field():
    node = OmegaConf.load(configuration_folder() / "attacker" / "population.yaml")
    assert set(node) - {"_target_"} == {field.name for field in fields(AttackerPopulation)}


def test_a_defense_that_simulates_no_attacker_says_so_in_either_order():
    for overrides in (("+defense=booster", "+attacker=population"), ("+attacker=population", "+defense=ctrap")):
        with pytest.raises(UserError, match=r"attacker\.retain_first is taken from defense"):
            _defender(*overrides)
    with pytest.raises(UserError, match="Booster simulates no attacker"):
        _defender("+defense=booster", "+attacker=sophon")
