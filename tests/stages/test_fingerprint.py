"""What a guarded start model is known by."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_model
from hydra import compose, initialize_config_dir

from immunax.data.dialog import Split, Splits, ask
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runtime.configuration import configuration_folder
from immunax.stages import fingerprint
from immunax.stages.fingerprint import Fingerprint
from immunax.stages.setup import Compute, Setup

DIALOGS = tuple(ask(f"how to {number}", "Sorry, no.") for number in range(4))


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))
    checkpoint = ModelSource(str(tiny_model.write(tmp_path / "model"))).load()
    splits = Splits(Split(), validation=Split(harmful=DIALOGS))
    setup = Setup(replace(checkpoint, params=None), Model(checkpoint.config), splits, {"data": "d"}, None)
    return setup, checkpoint.params


def test_a_models_refusals_are_counted_once_and_kept(made, monkeypatch, capsys):
    known = Fingerprint(refusal=0.0, within=0.1, prompts=4, max_length=64, max_new_tokens=2)
    assert known.check(*made) == 0.0  # noise refuses nothing
    monkeypatch.setattr(fingerprint, "evaluate", None)
    assert known.check(*made) == 0.0
    assert "refuses" not in capsys.readouterr().err


def test_another_model_is_told_in_one_line(made, monkeypatch, capsys):
    answers = {"refusal": np.array([0.0, 0.0, 1.0, 0.0])}
    monkeypatch.setattr(fingerprint, "evaluate", lambda *_: type("Scores", (), {"judged": answers}))
    assert Fingerprint(refusal=0.9, within=0.1, prompts=4, max_length=64).check(*made) == 0.75
    captured = capsys.readouterr()
    told = [line for line in (captured.out + captured.err).splitlines() if "refuses" in line]
    assert len(told) == 1
    assert "refuses 0.75 of 4 validation prompts, not 0.90" in told[0]


@pytest.mark.parametrize(
    ("backend", "dtype", "precision"),
    [("gpu", "float32", "highest"), ("tpu", "float32", "highest"), ("cpu", "float32", None), ("gpu", "auto", None)],
)
def test_float32_that_is_asked_for_is_float32_on_every_backend(monkeypatch, backend, dtype, precision):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    before = jax.config.jax_default_matmul_precision
    try:
        Compute(dtype=dtype).settle()
        assert jax.config.jax_default_matmul_precision == precision
        assert Compute(dtype=dtype).model(tiny_model.CONFIG).dtype == ("bfloat16" if dtype == "auto" else "float32")
    finally:
        jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("command", ["train", "attack", "certify"])
def test_the_organism_is_float32_and_has_a_fingerprint_in_every_command(command):
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        config = compose(command, overrides=["model=organism"])
    assert config.compute.dtype == "float32"
    assert config.start.fingerprint.refusal > 0.5
