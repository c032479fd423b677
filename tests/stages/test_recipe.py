"""A recipe made smaller: what its scale changes, what the model's context cuts, and that nothing else moves."""

import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig
from immunax.stages.recipe import Recipe, applied

SOURCE = {"_target_": "immunax.data.sources.Source"}


def node(scale=1.0, context=512, **simulation):
    """A configuration with all that a scale may change, and neighbours that it must leave alone."""
    return UserConfig(
        {
            "recipe": {
                "_target_": "immunax.stages.recipe.Recipe",
                "name": "mine",
                "scale": scale,
                "trainers": ["trainer", "start.trainer"],
            },
            "model": {
                "_target_": "immunax.models.hub.ModelSource",
                "path": "nowhere",
                "decoder": {
                    "_target_": "immunax.models.config.DecoderConfig",
                    **{"family": "llama", "vocab_size": 8, "d_model": 8, "d_ff": 8, "n_layers": 1},
                    **{"n_heads": 1, "n_kv_heads": 1, "head_dim": 8, "max_positions": context},
                },
            },
            "trainer": {"steps": 750, "max_length": 256, "optimizer": {"warmup": 32, "learning_rate": 1e-5}},
            "start": {"trainer": {"steps": 1000, "max_length": 128, "optimizer": {"warmup": 0.1}}},
            "defense": {"mixture": {"retain": 8, "simulation": {"steps": 64, "batch": 4, "checks": 16, **simulation}}},
            "data": {
                "harmful": {"train": {**SOURCE, "limit": 20000}, "test": {**SOURCE, "limit": None}},
                "retain": {"all": {**SOURCE, "share": 0.5}},
                "items": 200,
            },
            "seed": 3,
        }
    )


def changes(config):
    before, after = (each.plain for each in (config, applied(config)))
    return dict(_differences(before, after, ""))


def _differences(before, after, path):
    if not isinstance(before, dict):
        if before != after:
            yield path[1:], after
        return
    assert before.keys() <= after.keys()
    for name in after:
        yield from _differences(before.get(name), after[name], f"{path}.{name}")


def test_a_scale_shrinks_steps_warm_up_simulation_and_dialogs_and_nothing_else(capsys):
    assert changes(node(scale=0.01)) == {
        "trainer.steps": 8,
        "trainer.optimizer.warmup": 1,
        "start.trainer.steps": 10,
        "defense.mixture.simulation.steps": 1,
        "defense.mixture.simulation.checks": 1,
        "data.harmful.train.limit": 200,
        "data.harmful.test.share": 0.01,
        "data.retain.all.share": 0.005,
    }
    told = capsys.readouterr().err.replace("\n", " ")
    assert "recipe mine at scale 0.01: trainer.steps 750 -> 8" in told


def test_checks_of_a_simulated_attack_stay_as_far_apart_as_long_as_there_are_several():
    changed = changes(node(scale=0.25))
    assert changed["defense.mixture.simulation.steps"] == 16
    assert changed["defense.mixture.simulation.checks"] == 4


def test_no_scale_leaves_less_than_a_step_or_fewer_dialogs_than_a_batch():
    changed = changes(node(scale=1e-6))
    assert changed["trainer.steps"] == changed["start.trainer.steps"] == 1
    assert changed["data.harmful.train.limit"] == 64


def test_a_whole_recipe_is_left_as_it_is(capsys):
    assert changes(node()) == {}
    assert capsys.readouterr().err == ""


def test_lengths_end_at_the_models_context():
    assert changes(node(context=96)) == {"trainer.max_length": 96, "start.trainer.max_length": 96}


def test_a_recipe_may_start_from_the_model_as_it_comes():
    config = node(scale=0.5).with_values({"start.trainer": None})
    assert applied(config).trainer.steps == 375


def test_a_run_without_a_recipe_is_the_same_object():
    config = UserConfig({"trainer": {"steps": 3}})
    assert applied(config) is config


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5])
def test_a_scale_is_a_share(scale):
    with pytest.raises(UserError, match=r"recipe\.scale=.*: expected a share of the published steps"):
        Recipe("mine", scale)
