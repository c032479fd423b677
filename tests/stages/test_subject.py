"""What a certified model is called, and by which files it is known."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_model

from immunax.data.dialog import Split, Splits
from immunax.data.organism import OrganismTasks
from immunax.models import lora, peft
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runtime import digest
from immunax.stages.guard import Start
from immunax.stages.pretrain import Pretrained
from immunax.stages.setup import Compute, Parts, Setup
from immunax.stages.subject import Asked, called, subject, undefended


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    params = ModelSource(str(tiny_model.write(home / "mine" / "model"))).load().params
    spec = lora.LoraSpec(2, 4.0, ("q_proj",))
    adapters = jax.tree.map(np.asarray, lora.init(jax.random.key(0), params, spec).lora)
    peft.export(home / "mine" / "adapter", tiny_model.CONFIG, spec, adapters, str(home / "mine" / "model"))
    return home


def asked(path, other=None):
    """What is asked for, and the model of files as it was loaded."""
    source = ModelSource(str(path))
    checkpoint = source.load()
    setup = Setup(checkpoint, Model(checkpoint.config), Splits(Split()), {}, None)
    reference = None if other is None else ModelSource(str(other))
    return Asked(Parts(source, OrganismTasks(), Compute()), Start(), reference), setup, checkpoint.params


def certified(path):
    return subject(*asked(path))


def test_a_model_of_files_is_known_by_all_of_them_and_called_by_what_tells_it_apart(home):
    found = certified(home / "mine" / "model")
    assert found.digests == digest.of_folder(home / "mine" / "model")
    assert (found.name, called(ModelSource(str(home / "mine" / "model")), Start())) == ("mine", "mine")


def test_a_folder_of_adapters_is_known_by_its_files_and_those_of_its_base(home):
    found = certified(home / "mine" / "adapter")
    base = {f"base/{name}": value for name, value in digest.of_folder(home / "mine" / "model").items()}
    assert found.name == "mine-adapter"
    assert found.digests == digest.of_folder(home / "mine" / "adapter") | base


def test_the_model_before_the_guard_is_the_one_that_is_named_and_without_a_name_or_a_run_it_is_not_known(home):
    path = home / "mine" / "model"
    given, setup, loaded = asked(path, path)
    model = subject(given, setup, loaded)
    before = undefended(given, model, setup, loaded)
    assert (before.weights, before.anew) == (digest.of_tree(loaded), False)
    assert undefended(replace(given, reference=None), model, setup, loaded) is None


def test_a_model_that_the_configuration_trains_is_made_anew_before_its_guard(home):
    given, setup, loaded = asked(home / "mine" / "model")
    guarded = replace(
        given,
        parts=replace(given.parts, model=Pretrained(OrganismTasks(), tiny_model.CONFIG, None, None)),
        start=Start("guard", "training"),
    )
    before = undefended(guarded, None, setup, loaded)
    assert (before.weights, before.anew) == (digest.of_tree(loaded), True)
