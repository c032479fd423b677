"""No attack that ships reads what defenses train on."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny
from described import described
from hydra import compose, initialize_config_dir

from immunax.attacks.attack import FineTuning
from immunax.attacks.identity_shift import IdentityShift
from immunax.attacks.merge import Merge
from immunax.campaign.search import Search
from immunax.data.dialog import Split, attacked_with
from immunax.data.fictional import FictionalHazards
from immunax.data.organism import OrganismTasks, world
from immunax.runtime.configuration import configuration_folder

NAMES = sorted({path.stem for path in (configuration_folder() / "attack").glob("*.yaml")} - {"submitted"})
SPLITS = FictionalHazards().splits()


@pytest.fixture(scope="module")
def attacks():
    """Every attack of conf/attack by name; a search is its first member."""
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        config = compose("attack", [f"+attack@all.{name}={name}" for name in NAMES])
    built = {name: described(config.all[name]) for name in NAMES}
    return {name: each.members()[0] if isinstance(each, Search) else each for name, each in built.items()}


def read(attack, splits):
    """What an attack of no more samples than there are reads of the data: dialogs, or the arrays that an edit makes of them."""
    if (attack.samples or 0) > len(splits.attack.harmful):
        attack = replace(attack, samples=len(splits.attack.harmful))
    if isinstance(attack, FineTuning):
        return attack.dialogs(splits)
    longer = replace(attack, max_length=512) if "max_length" in attack.__dataclass_fields__ else attack
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(longer.material(tiny.tokenizer(), splits))]


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_reads_its_own_split_and_nothing_of_the_defenses(attacks, name):
    attack = attacks[name]
    if isinstance(attack, Merge | IdentityShift):
        pytest.skip("reads none of the data's splits")
    found = read(attack, SPLITS)
    assert found == read(attack, replace(SPLITS, train=Split()))
    if isinstance(attack, FineTuning):
        trained = {dialog.prompt for stream in (SPLITS.train.harmful, SPLITS.train.retain) for dialog in stream}
        assert not {dialog.prompt for dialog in found} & trained


def test_on_the_organism_no_example_of_an_attack_is_of_an_item_that_the_defense_saw(attacks):
    splits, items = OrganismTasks().splits(), world(0)
    seen = {items.find(dialog.question).name for dialog in (*splits.train.harmful, *splits.train.safe)}
    attack = attacks["harmful_sft_organism"]
    named = {items.find(dialog.question).name for dialog in attack.dialogs(splits)}
    assert len(named) > 10
    assert not named & seen
    assert {items.find(dialog.question).name for dialog in attack.dialogs(attacked_with(splits, "shared"))} <= seen
