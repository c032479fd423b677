"""What a certified model is called, and by which files it is known."""

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
from immunax.stages.setup import Compute, Parts, Setup
from immunax.stages.subject import Asked, called, subject


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    params = ModelSource(str(tiny_model.write(home / "mine" / "model"))).load().params
    spec = lora.LoraSpec(2, 4.0, ("q_proj",))
    adapters = jax.tree.map(np.asarray, lora.init(jax.random.key(0), params, spec).lora)
    peft.export(home / "mine" / "adapter", tiny_model.CONFIG, spec, adapters, str(home / "mine" / "model"))
    return home


def certified(path):
    source = ModelSource(str(path))
    checkpoint = source.load()
    setup = Setup(checkpoint, Model(checkpoint.config), Splits(Split()), {}, None)
    return subject(Asked(Parts(source, OrganismTasks(), Compute()), Start()), setup, checkpoint.params)


def test_a_model_of_files_is_known_by_all_of_them_and_called_by_what_tells_it_apart(home):
    found = certified(home / "mine" / "model")
    assert found.digests == digest.of_folder(home / "mine" / "model")
    assert (found.name, called(ModelSource(str(home / "mine" / "model")), Start())) == ("mine", "mine")


def test_a_folder_of_adapters_is_known_by_its_files_and_those_of_its_base(home):
    found = certified(home / "mine" / "adapter")
    base = {f"base/{name}": value for name, value in digest.of_folder(home / "mine" / "model").items()}
    assert found.name == "mine-adapter"
    assert found.digests == digest.of_folder(home / "mine" / "adapter") | base
