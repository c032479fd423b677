"""The folders that a run leaves; PEFT 0.21 reads such an adapter on its start, and computes as the exported model to 1.2e-7."""

import jax
import numpy as np
import pytest
import tiny_model
from safetensors.numpy import load_file

from immunax.inner.trainable import Adapters
from immunax.models import peft, weights
from immunax.models.hub import ModelSource
from immunax.models.lora import LoraSpec, merge
from immunax.outer.training import Training
from immunax.runtime.errors import DivergedError, UserError
from immunax.stages import export
from immunax.stages.defend import Defended

SPEC = LoraSpec(2, 6.0, ("q_proj", "down_proj"), dropout=0.1, layers=(1,))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run's folder, and the weights of its end."""
    home = tmp_path_factory.mktemp("run")
    start = ModelSource(str(tiny_model.write(home / "given"))).load()
    trainable = Adapters(SPEC)
    trained, held = trainable.split(start.params, jax.random.key(0))
    adapted = trainable.join(jax.tree.map(lambda leaf: leaf + 0.1, trained), held)
    outcome = Defended(merge(adapted), adapted.lora, False)
    export.export_run(home, start, Training(lora=SPEC), start.params, outcome, "float32", adapter=True)
    return home, outcome.params


def test_the_start_with_the_adapter_is_the_model(written):
    home, released = written
    start, model = (ModelSource(str(home / name)).load().params for name in (export.START, export.MODEL))
    jax.tree.map(np.testing.assert_array_equal, model, released)
    tensors = load_file(home / export.ADAPTER / peft.WEIGHTS)
    modules = ("self_attn.q_proj", "mlp.down_proj")
    names = {f"base_model.model.model.layers.1.{module}.lora_{ab}.weight" for module in modules for ab in "AB"}
    assert set(tensors) == names
    for module in modules:
        block, name = module.split(".")
        down, up = (tensors[f"base_model.model.model.layers.1.{module}.lora_{ab}.weight"] for ab in "AB")
        before, after = (tree["layers"][block][name]["kernel"] for tree in (start, model))
        np.testing.assert_allclose(after[1] - before[1], (6.0 / 2 * up @ down).T, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(after[0], before[0])


def test_the_adapter_says_how_it_was_trained_and_where_its_base_is(written):
    settings = weights.read_json(written[0] / export.ADAPTER / peft.CONFIG)
    assert (settings["lora_dropout"], settings["layers_to_transform"], settings["r"]) == (0.1, [1], 2)
    assert settings["target_modules"] == ["down_proj", "q_proj"]
    assert (written[0] / export.ADAPTER / settings["base_model_name_or_path"] / "config.json").is_file()


@pytest.mark.parametrize(
    ("keep", "left"), [("all", {"9", "10", "other"}), ("last", {"10", "other"}), ("export", None), ("results", None)]
)
def test_of_checkpoints_the_newest_by_number_or_all_or_none_stay(tmp_path, keep, left):
    for name in ("checkpoints/9/a", "checkpoints/10/a", "checkpoints/other/a", "model/a"):
        (tmp_path / name).mkdir(parents=True)
    for _ in range(2):
        export.leave(tmp_path, keep)
        there = tmp_path / "checkpoints"
        assert ((there.exists() and {each.name for each in there.iterdir()}) or None) == left
        assert (tmp_path / "model" / "a").exists()


@pytest.mark.parametrize(
    ("error", "there"), [(DivergedError("the loss is nan"), False), (UserError("a full disk"), True)]
)
def test_a_run_that_diverged_keeps_no_checkpoints_and_one_that_failed_goes_on_from_them(tmp_path, error, there):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(type(error)), export.left_behind(tmp_path, "export"):
        raise error
    assert (tmp_path / "checkpoints").exists() is there


def test_another_process_than_the_leader_removes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "is_leader", lambda: False)
    (tmp_path / "checkpoints").mkdir()
    export.leave(tmp_path, "export")
    assert (tmp_path / "checkpoints").exists()


def test_what_a_finished_run_leaves_is_asked_for_without_contradiction():
    with pytest.raises(UserError, match=r"trainer\.keep='best': expected one of results, export, last, all"):
        Training(keep="best")
    with pytest.raises(UserError, match=r"keep_best=1: the best checkpoints stay with trainer\.keep=all alone"):
        Training(keep_best=1)
    assert Training(keep_best=1, keep="all").keep == "all"
    with pytest.raises(UserError, match=r"with trainer\.keep=results a run leaves no weights"):
        export.check_kept(Training(keep="results"), adapter=True)
    export.check_kept(Training(keep="results"), adapter=False)


def test_adapters_that_no_run_will_have_are_refused_before_it():
    with pytest.raises(UserError, match="trainer=lora"):
        export.check(None, True, "trainer=lora")
    export.check(None, False, "trainer=lora")
    export.check(SPEC, True, "trainer=lora")
