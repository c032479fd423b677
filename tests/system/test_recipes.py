"""Every recipe: composed as its authors ran it, shrunk to a step or two, and run by the command on the organism."""

import json
from pathlib import Path

import jax
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from immunax import train
from immunax.pod.abstract_step import abstract_batch, abstract_state
from immunax.runtime import fields, mesh
from immunax.runtime.nodes import importable
from immunax.runtime.overrides import ConfigSource, prepare
from immunax.runtime.user_config import UserConfig
from immunax.stages import recipe
from immunax.stages.defender import defender

CONF = Path(__file__).parents[2] / "conf"
NAMES = [
    "bianchi",
    "booster",
    "circuit_breakers",
    "ctrap",
    "lat",
    "mlac",
    "rep_noise",
    "rmu",
    "seam",
    "sophon",
    "t_vaccine",
    "tar_bio",
    "tar_cyber",
    "tar_refusal",
    "vaccine",
]
FAST = ("rep_noise",)
"""Runs with the rest of the suite; the others take minutes together."""
ORGANISM = (
    "model=organism",
    "data=organism",
    "model.decoder.n_layers=4",
    "model.decoder.d_model=16",
    "model.decoder.d_ff=16",
    "model.decoder.n_heads=1",
    "model.decoder.n_kv_heads=1",
    "model.decoder.head_dim=16",
    "model.trainer.steps=1",
    "model.objective.examples=8",
    "red_team.samples=4",
    "red_team.tuning.epochs=1",
    "red_team.tuning.probes=1",
    "judge.prompts=2",
    "judge.examples=2",
    "judge.batch_size=2",
    "judge.decoding.max_new_tokens=2",
    "probes.prompts=2",
    "probes.max_new_tokens=2",
)
OWN = {
    "ctrap": ("defense.token=5",),
    "bianchi": ("attack@red_team=harmful_sft_organism",),
    "rmu": ("defense.mixture.topics=[]",),
}
"""What is a matter of the vocabulary, or of the model's own data, as the command takes it from the model."""


def composed(name, *overrides, command="train"):
    """The configuration, checked as the command checks it, and Hydra's own."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(command, [f"recipe={name}", *overrides], return_hydra_config=True)
    mine = OmegaConf.masked_copy(config, [str(each) for each in config if each != "hydra"])
    fields.check(OmegaConf.to_container(mine), importable, composed=True)
    return UserConfig(OmegaConf.to_container(mine, resolve=True)), config


def test_there_is_a_file_for_each_recipe_that_says_its_own_name():
    assert sorted(path.stem for path in (CONF / "recipe").glob("*.yaml")) == NAMES
    for name in NAMES:
        assert f"name: {name}\n" in (CONF / "recipe" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in NAMES])
def test_a_recipe_runs_end_to_end_on_the_organism(name, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path_factory.getbasetemp() / "recipes"))
    config, whole = composed(name, *ORGANISM, *OWN.get(name, ()), "recipe.scale=1e-4", f"run={name}")
    OmegaConf.set_readonly(whole.hydra, False)
    whole.hydra.runtime.output_dir = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as it is to be again behind this test
    HydraConfig.instance().set_config(whole)
    train.main.__wrapped__(config)
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert record["config"]["recipe"]["name"] == name
    assert set(record["results"]) == {"start model", "immunized"}
    steps = record["config"]["trainer"]["steps"]
    assert 1 <= steps <= 5
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(each["step"] for each in logged if each["phase"] == "train") == steps


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_compiles_from_shapes_as_its_authors_ran_it(name):
    config, _ = composed(name, command="compile")
    assert recipe.applied(config) == config
    devices = mesh.build(mesh.MeshSpec(fsdp=8))
    model = config.build("compute").model(config.build("model").shape(), "tpu")
    defense, training = defender(config), config.build("trainer")
    assert training.max_length <= model.config.max_positions
    batch = abstract_batch(defense.mixture, training, devices)
    state = abstract_state(model, defense, training, batch, devices)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))


def test_a_model_made_for_its_own_data_brings_them_to_a_recipe_and_the_command_line_has_the_last_word():
    source = ConfigSource(CONF, "train", None, {"model": ("hf", "path")})
    chosen = prepare(source, ["+recipe=rep_noise", "model=organism", "judge=standard"], ("defense",)).config
    choices = chosen.hydra.runtime.choices
    assert choices["defense"] == choices["trainer"] == "rep_noise"
    assert choices["data"] == choices["start"] == "organism"
    assert choices["judge"] == "standard"
