from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from immunax.runtime import manifest
from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig
from immunax.stages.provenance import Lesson, computed_as_made, lessons, made_by, passed_on, run_of

CONFIGS = Path(__file__).parents[2] / "conf"


def test_the_run_that_made_a_model_is_found_from_its_folder_and_its_export(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    assert made_by(None) is made_by(run) is made_by(tmp_path / "no" / "model") is None
    manifest.write_manifest(run, {"defense": {"alpha": 1}}, {})
    assert made_by(run)["config"]["defense"] == made_by(str(run / "model"))["config"]["defense"] == {"alpha": 1}
    assert made_by(run / "adapter") is not None
    assert made_by(run / "start") is None
    (tmp_path / "linked").symlink_to(run / "model")
    (tmp_path / "alias").symlink_to(run)
    for path in (tmp_path / "linked", tmp_path / "alias", tmp_path / "alias" / "model"):
        assert made_by(path) is not None
    monkeypatch.chdir(run / "model")
    assert made_by(".") is not None
    (tmp_path / "elsewhere").mkdir()
    (run / "adapter").symlink_to(tmp_path / "elsewhere")
    assert made_by(run / "adapter") is not None
    manifest.write_manifest(tmp_path / "attacked", {"attack": {}}, {})
    assert made_by(tmp_path / "attacked") is None
    (run / manifest.FILE).write_text("{")
    with pytest.raises(UserError):
        made_by(run)


def left(run, config, taught=(), digest="d", **record):
    """A run's manifest, as the commands write it."""
    config = {"data": {"name": run.name}, **config}
    manifest.write_manifest(run, config, {"data": digest}, {**record, "taught_before": passed_on(taught)})
    return run


def test_a_model_was_taught_what_its_run_and_all_before_it_taught(tmp_path):
    assert lessons(None) == lessons(tmp_path / "none") == ()
    one = left(tmp_path / "one", {"defense": {}}, trained_against=["harmful_sft"])
    two = left(tmp_path / "two", {"defense": {}}, lessons(one / "model"), trained_against=[])
    three = left(tmp_path / "three", {"attack": {}}, lessons(two))
    taught = Lesson({"name": "two"}, "d"), Lesson({"name": "one"}, "d", ("harmful_sft",))
    assert lessons(three / "adapter") == taught
    assert [each.data["name"] for each in lessons(two / "start")] == ["one"]
    assert lessons(one / "start") == ()


def test_a_guard_teaches_too_though_against_no_attack(tmp_path):
    guard = {"start": {"defense": {"_target_": "x"}}}
    trained = left(tmp_path / "trained", {"defense": {}, **guard}, trained_against=["harmful_sft"])
    attacked = left(tmp_path / "attacked", {"attack": {}, **guard})
    assert lessons(trained / "start") == (Lesson({"name": "trained"}, "d"),)
    assert lessons(attacked / "adapter") == (Lesson({"name": "attacked"}, "d"),)
    assert lessons(trained / "model")[0].against == ("harmful_sft",)


def test_adapters_that_no_run_left_were_taught_what_their_base_was(tmp_path):
    base = left(tmp_path / "base", {"defense": {}})
    (base / "model").mkdir()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "../base/model"}')
    assert lessons(adapter) == (Lesson({"name": "base"}, "d"),)


def asked(path, dtype="auto"):
    return UserConfig({"model": {"path": path and str(path)}, "compute": {"dtype": dtype}})


@pytest.mark.parametrize("name", ["", "model", "adapter", "start"])
def test_a_model_is_computed_in_the_dtype_of_the_run_that_left_it(tmp_path, capsys, name):
    manifest.write_manifest(tmp_path, {"defense": {}, "compute": {"dtype": "float32"}}, {})
    given = asked(tmp_path / name)
    assert computed_as_made(given).compute.dtype == "float32"
    assert given.compute.dtype == "auto"
    told = " ".join(capsys.readouterr().err.split())
    assert told == "compute.dtype=float32, as the run that left the model has it"


def test_a_dtype_that_is_named_stays_and_so_does_one_that_no_run_names(tmp_path, capsys):
    manifest.write_manifest(tmp_path / "run", {"defense": {}, "compute": {"dtype": "float32"}}, {})
    manifest.write_manifest(tmp_path / "any", {"attack": {}, "compute": {"dtype": "auto"}}, {})
    for path, dtype in (("run", "bfloat16"), ("any/start", "auto"), ("none", "auto")):
        assert computed_as_made(asked(tmp_path / path, dtype)).compute.dtype == dtype
    assert computed_as_made(asked(None)).compute.dtype == "auto"
    assert not capsys.readouterr().err
    assert run_of(tmp_path / "any" / "start") is not None


def test_the_organisms_suite_is_computed_as_the_organism_is():
    with initialize_config_dir(str(CONFIGS), version_base=None):
        assert compose("certify", ["suite=smoke", "model=hf", "model.path=a/b"]).compute.dtype == "float32"
