import json
import sys

import jax

from immunax.runtime.manifest import end, now, write_manifest


def test_the_manifest_says_what_was_run_on_what(tmp_path):
    config = {"seed": 3, "name": "run-3"}
    path = write_manifest(tmp_path, config, {"data": "ab"}, {"started": now(), "seeds": [3]})
    record = json.loads(path.read_text())
    assert record["config"] == {"seed": 3, "name": "run-3"}
    assert record["digests"] == {"data": "ab"}
    assert record["versions"]["jax"] == jax.__version__
    assert set(record["versions"]) >= {"python", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "immunax"}
    assert record["platform"]["devices"] == 8
    assert record["argv"] == sys.argv
    assert record["seeds"] == [3]
    assert record["started"] <= record["written"]


def test_a_checkout_names_its_commit_and_an_installed_package_none(tmp_path, monkeypatch):
    from immunax.runtime import manifest

    answers = {"rev-parse": "abc", "ls-files": "__init__.py", "status": " M file"}
    monkeypatch.setattr(manifest, "_ask_git", lambda _, command, *__: answers[command])
    assert manifest._git(tmp_path) == {"commit": "abc", "dirty": True}
    answers["status"] = ""
    assert manifest._git(tmp_path) == {"commit": "abc", "dirty": False}
    answers["ls-files"] = None
    assert manifest._git(tmp_path) is None


def test_a_run_that_ends_keeps_what_its_manifest_said_as_it_began(tmp_path):
    path = write_manifest(tmp_path, {"seed": 3}, {}, {"started": now()})
    began = json.loads(path.read_text())
    assert "ended" not in began
    end(tmp_path, {"goodput": {"share": 0.5}})
    ended = json.loads(path.read_text())
    assert ended.pop("goodput") == {"share": 0.5}
    assert ended.pop("ended") >= began["started"]
    assert ended == began


def test_choices_are_those_of_the_command_and_none_outside_of_one(tmp_path, monkeypatch):
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    assert json.loads(write_manifest(tmp_path, {}, {}).read_text())["choices"] == {}
    chosen = {"defense": "tar", "attack@red_team": "harmful_sft", "recipe": None, "hydra/launcher": "basic"}
    config = OmegaConf.create({"runtime": {"choices": chosen}})
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: config)
    said = json.loads(write_manifest(tmp_path, {}, {}).read_text())
    assert said["choices"] == {"attack@red_team": "harmful_sft", "defense": "tar"}
