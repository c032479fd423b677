from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from immunax.runtime import manifest
from immunax.runtime.errors import UserError
from immunax.stages.provenance import computed_as_made, made_by, run_of

CONFIGS = Path(__file__).parents[2] / "conf"


def test_the_run_that_made_a_model_is_found_from_its_folder_and_its_export(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    assert made_by(None) is made_by(run) is made_by(tmp_path / "no" / "model") is None
    manifest.write_manifest(run, OmegaConf.create({"defense": {"alpha": 1}}), {})
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
    manifest.write_manifest(tmp_path / "attacked", OmegaConf.create({"attack": {}}), {})
    assert made_by(tmp_path / "attacked") is None
    (run / manifest.FILE).write_text("{")
    with pytest.raises(UserError):
        made_by(run)


def asked(path, dtype="auto"):
    return OmegaConf.create({"model": {"path": path and str(path)}, "compute": {"dtype": dtype}})


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
