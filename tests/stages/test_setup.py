"""Models on a mesh: loaded, guarded and restored into their shards."""

import jax
import numpy as np
import pytest
import tiny_model

from immunax.models import hf
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runtime import cache, digest, manifest
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build, shardings
from immunax.runtime.user_config import UserConfig
from immunax.stages import outer_loop, setup
from immunax.stages.guard import start_model
from immunax.stages.setup import CHECKPOINTS, MODEL, Parts, load, set_up, shape

MATRICES = {
    leaf.shape
    for leaf in jax.tree.leaves(jax.eval_shape(Model(tiny_model.CONFIG).init, jax.random.key(0)))
    if leaf.size > 1000
}
"""Shapes of the weights that a mesh splits, of their gradients and moments too; norms are smaller, and whole everywhere."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def config(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "enable_compilation_cache", lambda: None)
    return UserConfig(
        {
            "model": {"_target_": "immunax.models.hub.ModelSource", "path": str(folder)},
            "data": {"_target_": "immunax.data.fictional.FictionalHazards", "items": 10},
            "compute": {"_target_": "immunax.stages.setup.Compute"},
            "start": {
                "_target_": "immunax.stages.guard.Start",
                "defense": {
                    "_target_": "immunax.defenses.safety_tuning.SafetyTuning",
                    "mixture": {"_target_": "immunax.outer.defense.Mixture", "safe": 5, "retain": 3},
                },
                "trainer": {"_target_": "immunax.outer.training.Training", "steps": 2},
            },
        }
    )


@pytest.fixture
def watched(monkeypatch):
    """How often it was looked, and the shapes of matrices that lay whole on the first device when it was."""
    before, looks, seen = jax.live_arrays(), [], []

    def look(wrapped):
        def call(*arguments, **named):
            made = wrapped(*arguments, **named)
            looks.append(wrapped.__name__)
            new = [each for each in jax.live_arrays() if not any(each is one for one in before)]
            seen.extend(each.shape for each in new if each.shape in MATRICES and _whole(each))
            return made

        return call

    for module, name in (
        (hf, "fill"),
        (cache, "fill"),
        (outer_loop.outer, "begin"),
        (outer_loop, "shard"),
        (outer_loop.outer, "outer_step"),
    ):
        monkeypatch.setattr(module, name, look(getattr(module, name)))
    return looks, seen


def _whole(array):
    first = jax.devices()[0]
    return any(part.device == first and part.data.size == array.size for part in array.addressable_shards)


def test_a_model_is_loaded_and_guarded_on_a_mesh_without_lying_whole_on_a_device(config, watched):
    devices = build(MeshSpec(fsdp=8))
    looks, seen = watched
    made, loaded = set_up(Parts.given(config), devices)
    guarded = start_model(config.build("start"), made, loaded)
    again = start_model(config.build("start"), made, loaded)
    assert seen == []
    assert {"fill", "begin", "shard", "outer_step"} == set(looks)
    for tree in (loaded, guarded, again):
        assert jax.tree.map(lambda leaf: leaf.sharding, tree) == shardings(tree, devices)
    assert digest.of_tree(again) == digest.of_tree(guarded)


def test_a_guard_is_the_same_on_a_mesh_and_on_one_device(config, monkeypatch, tmp_path):
    guards = []
    for name, spec in (("one", None), ("eight", MeshSpec(data=2, fsdp=4))):
        monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / name))
        made, loaded = set_up(Parts.given(config), None if spec is None else build(spec))
        guards.append(start_model(config.build("start"), made, loaded))
    jax.tree.map(lambda one, eight: np.testing.assert_allclose(one, eight, atol=2e-5), *guards)
    assert digest.of_tree(guards[0]) != digest.of_tree(loaded)


def test_a_runs_newest_checkpoint_is_restored_into_its_shards(config, folder, tmp_path):
    run, devices = tmp_path / "run", build(MeshSpec(fsdp=8))
    trained = jax.tree.map(lambda leaf: leaf + 1, ModelSource(str(folder)).load().params)
    manifest.write_manifest(run, {**config.plain, **config.plain["start"]}, {})
    with Checkpoints(run / CHECKPOINTS) as checkpoints:
        checkpoints.save(7, {"train": {"trained": trained, "step": 7}})
    loaded = load(ModelSource(str(run)), devices)
    assert jax.tree.map(lambda leaf: leaf.sharding, loaded.params) == shardings(loaded.params, devices)
    assert loaded.digests["run, step 7"] == digest.of_tree(trained)
    assert digest.of_tree(load(ModelSource(str(run))).params) == digest.of_tree(trained)
    assert setup.load(ModelSource(str(folder))).digests.keys() < loaded.digests.keys()


def test_of_a_run_that_exported_its_model_the_export_is_loaded(config, folder, tmp_path):
    run = tmp_path / "run"
    manifest.write_manifest(run, config.plain, {})
    (run / CHECKPOINTS).mkdir()
    (run / MODEL).symlink_to(folder)
    assert digest.of_tree(load(ModelSource(str(run))).params) == digest.of_tree(ModelSource(str(folder)).load().params)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"_target_": "numpy.load", "file": "x"}, "not one of the classes that a file from elsewhere may name"),
        ({"_target_": "immunax.data.organism.OrganismTasks"}, "ModelRecipe was expected"),
        ({"_target_": "immunax.models.hub.ModelSource", "path": "some/where"}, "which is not on this machine"),
        ({"_target_": "immunax.models.hub.ModelSource", "path": "RUN"}, "leads back to itself"),
        (None, "ModelRecipe was expected"),
        ("x", "ModelRecipe was expected"),
    ],
)
def test_a_strangers_run_names_no_code_no_download_and_not_itself(config, tmp_path, model, told):
    run = tmp_path / "run"
    if isinstance(model, dict) and model.get("path") == "RUN":
        model = {**model, "path": str(run)}
    manifest.write_manifest(run, {**config.plain, "model": model}, {})
    (run / CHECKPOINTS).mkdir()
    for read in (load, shape):
        with pytest.raises(UserError, match=told):
            read(ModelSource(str(run)))
