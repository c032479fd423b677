import json
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from immunax.runtime import metrics as runtime_metrics
from immunax.runtime.errors import UnreachableError, UserError
from immunax.runtime.metrics import FILE, Metrics, Mlflow, Wandb, read, record


def test_metrics_are_json_lines_and_tensorboard_events(tmp_path):
    with Metrics(tmp_path) as metrics:
        metrics.log(1, "train", {"loss": jnp.float32(0.5), "norm": 2})
        metrics.log(2, "train", {"loss": math.nan, "norm": math.inf})
    lines = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(lines[0]) == {"phase": "train", "step": 1, "values": {"loss": 0.5, "norm": 2.0}}
    assert json.loads(lines[1], parse_constant=pytest.fail)["values"] == {"loss": None, "norm": None}
    assert sum(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir()) > 100


@pytest.mark.parametrize("line", ["", "[" * 100_000, "1" * 5000, "{}", '{"phase": "a", "step": "b", "values": {}}'])
def test_a_line_that_is_no_record_is_none(line):
    assert record(line) is None


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


def fill(metrics):
    """The disk is full from now on, for the events of TensorBoard."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, metrics._board._records._writer.fileno())
    os.close(full)


def test_a_full_disk_is_told_in_one_line_by_each_method(tmp_path, monkeypatch):
    metrics = Metrics(tmp_path)
    fill(metrics)
    metrics.log(1, "train", {"loss": 1.0})
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: the disk is full"):
        metrics.close()
    metrics = Metrics(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("/dev/full")
    with pytest.raises(UserError, match="the disk is full"):
        metrics.log(1, "train", {"loss": 1.0})
    metrics.close()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; choose another folder"):
        Metrics(tmp_path / "file")


def test_a_bucket_that_does_not_answer_for_a_while_ends_no_run_between_two_checkpoints(tmp_path, monkeypatch):
    def refuse(folder):
        raise UnreachableError("the network is away")

    monkeypatch.setattr(runtime_metrics, "_SEND_SECONDS", 0.0)
    with Metrics(tmp_path) as metrics:
        monkeypatch.setattr(runtime_metrics.mirror, "is_mirrored", lambda folder: True)
        monkeypatch.setattr(runtime_metrics.mirror, "settle", refuse)
        metrics.log(1, "train", {"loss": 0.5})
        with pytest.raises(UnreachableError):
            metrics.send()
        monkeypatch.undo()
    assert len(read(tmp_path / FILE)) == 1


def test_a_full_disk_keeps_no_tracker_from_being_closed(tmp_path):
    closed = []
    tracker = SimpleNamespace(
        start=lambda folder: None, log=lambda step, values: None, close=lambda: closed.append("tracker")
    )
    metrics = Metrics(tmp_path, [tracker])
    fill(metrics)
    metrics.log(1, "train", {"loss": 1.0})
    with pytest.raises(UserError, match="the disk is full"):
        metrics.close()
    assert closed == ["tracker"]


FULL = """
import os, sys
from immunax.runtime.errors import UserError
from immunax.runtime.metrics import Metrics
try:
    with Metrics(sys.argv[1]) as metrics:
        full = os.open("/dev/full", os.O_WRONLY)
        for name in os.listdir("/proc/self/fd"):
            if "tfevents" in os.path.realpath(f"/proc/self/fd/{name}"):
                os.dup2(full, int(name))
        metrics.log(1, "train", {"loss": 1.0})
        raise UserError("this came first")
except UserError as error:
    print(error, file=sys.stderr)
"""


def test_what_came_before_a_full_disk_is_all_that_is_said(tmp_path):
    answer = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "this came first\n")


def test_a_damaged_line_is_named(tmp_path):
    whole = b'{"phase": "train", "step": 1, "values": {}}\n'
    for line in (b"nonsense", b"{}", b"1", b"\x00\x00", b"\xff\xfe", whole[:20]):
        (tmp_path / FILE).write_bytes(line + b"\n" + whole)
        with pytest.raises(UserError, match="line 1 is no record"):
            read(tmp_path / FILE)
        (tmp_path / FILE).write_bytes(whole + line)
        assert [record["step"] for record in read(tmp_path / FILE)] == [1]


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
    assert calls == [f"{tmp_path.parent.name}/{tmp_path.name}", {"train/loss": 1.0, "train/step": 4}, "end"]


def test_wandb_resumes_a_run_by_its_whole_path(tmp_path, monkeypatch):
    ids: list[str] = []
    fake = SimpleNamespace(init=lambda **options: ids.append(options["id"]), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "one" / "0", tmp_path / "two" / "0", "one/0"):
        Metrics(folder, [Wandb()]).close()
    assert ids[0] == ids[2] != ids[1]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


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
