import json
import math
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.metrics import FILE, Metrics, Mlflow, Wandb, read


def test_metrics_are_json_lines_and_tensorboard_events(tmp_path):
    with Metrics(tmp_path) as metrics:
        metrics.log(1, "train", {"loss": jnp.float32(0.5), "norm": 2})
        metrics.log(2, "train", {"loss": math.nan, "norm": math.inf})
    lines = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(lines[0]) == {"phase": "train", "step": 1, "values": {"loss": 0.5, "norm": 2.0}}
    assert json.loads(lines[1], parse_constant=pytest.fail)["values"] == {"loss": None, "norm": None}
    assert sum(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir()) > 100


def test_a_resumed_phase_has_no_duplicates_and_leaves_the_others(tmp_path):
    with Metrics(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.log(step, "train", {"loss": step})
            metrics.log(step, "attack", {"loss": step})
    with (tmp_path / FILE).open("a") as out:
        out.write('{"phase": "train", "st')
    with Metrics(tmp_path) as metrics:
        metrics.resume("train", 1)
        metrics.log(2, "train", {"loss": 20})
    found = [(record["phase"], record["step"], record["values"]["loss"]) for record in read(tmp_path / FILE)]
    assert [row for row in found if row[0] == "train"] == [("train", 1, 1.0), ("train", 2, 20.0)]
    assert [row[1] for row in found if row[0] == "attack"] == [1, 2, 3]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / FILE).write_text("nonsense\n{}\n")
    with pytest.raises(UserError, match="line 1"):
        read(tmp_path / FILE)


@pytest.mark.parametrize(("tracker", "package"), [(Wandb(), "wandb"), (Mlflow(), "mlflow")])
def test_a_tracker_that_is_not_installed_names_the_extra(tmp_path, monkeypatch, tracker, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is not installed.*immunax\[trackers\]"):
        Metrics(tmp_path, [tracker])


def test_wandb_gets_every_value_with_its_phase(tmp_path, monkeypatch):
    calls = []
    fake = SimpleNamespace(
        init=lambda **options: calls.append(options["name"]), log=calls.append, finish=lambda: calls.append("end")
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Metrics(tmp_path, [Wandb()]) as metrics:
        metrics.log(4, "train", {"loss": 1.0})
    assert calls == [tmp_path.name, {"train/loss": 1.0, "train/step": 4}, "end"]


def test_mlflow_gets_every_value_with_its_step(tmp_path, monkeypatch):
    calls = []
    fake = SimpleNamespace(
        set_tracking_uri=calls.append,
        set_experiment=calls.append,
        start_run=lambda run_name: calls.append(run_name),
        log_metrics=lambda values, step: calls.append((values, step)),
        end_run=lambda: calls.append("end"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with Metrics(tmp_path, [Mlflow(uri="u")]) as metrics:
        metrics.log(4, "train", {"loss": 1.0})
    assert calls == ["u", "immunax", tmp_path.name, ({"train/loss": 1.0}, 4), "end"]
