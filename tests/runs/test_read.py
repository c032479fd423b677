import json
import os
import subprocess
import sys
from datetime import datetime

import pytest
import yaml
from run_folders import leave, manifest

from immunax.runs.find import runs_below
from immunax.runs.read import Reader, read_runs
from immunax.runtime import lock
from immunax.runtime.accounts import Start, as_json
from immunax.runtime.phase import Phase, Stretches, Work


def read(folder):
    return read_runs(runs_below([folder]).places)


def test_a_row_has_configuration_results_choices_and_times(tmp_path):
    leave(tmp_path / "run", manifest("tar", 3, 0.25))
    (run,) = read(tmp_path)
    expected = {
        "run": "run",
        "status": "done",
        "command": "train",
        "seed": 3,
        "started": datetime(2026, 1, 1, 10),
        "seconds": 90.0,
        "choices.defense": "tar",
        "config.defense.alpha": 1.0,
        "config.trainer.lora": None,
        "results.start model.after.refusal": 0.1,
        "before.refusal": 0.8,
        "after.refusal": 0.25,
        "after.refusal.low": 0.15,
    }
    assert {name: run.values[name] for name in expected} == expected
    assert run.faults == ()


def test_a_run_tells_what_its_time_went_into_before_its_end_and_after_it(tmp_path):
    train = Phase("step", 40.0, 10.0, warm=Stretches(20.0, 40.0, Work(4, 1000, 1250, 8e12)), peak=1e12)
    start = Start(1000.0, saved=3.0, phases={"train": train})
    start.spent |= {"step": 30.0, "compile": 10.0}
    said = json.dumps({"starts": [as_json(start)]})
    open_end = manifest(ended=None, results=None)
    for name, record in (("over", manifest(goodput={"share": 0.5})), ("going", open_end), ("begun", None)):
        (leave(tmp_path / name, record) / "goodput.json").write_text(said)
    (leave(tmp_path / "odd", open_end) / "goodput.json").write_text('{"starts": [{"began": 1}]}')
    found = {run.place.name: run for run in read(tmp_path)}
    assert found["over"].values["goodput.share"] == 0.5
    for name in ("going", "begun"):
        told = {
            each: found[name].values[f"goodput.{each}"] for each in ("share", "seconds.step", "compile_saved", "starts")
        }
        assert told == {"share": 0.75, "seconds.step": 30.0, "compile_saved": 3.0, "starts": 1}
        fast = {each: found[name].values[f"performance.train.{each}"] for each in ("mfu", "tokens_per_second", "hfu")}
        assert fast == {"mfu": 0.2, "tokens_per_second": 50.0, "hfu": None}
    assert "goodput.share" not in found["odd"].values
    [fault] = found["odd"].faults
    assert fault.endswith("goodput.json: it is no account of a run's starts; its part of the table is empty.")


def test_the_status_is_what_lies_in_the_folder(tmp_path):
    open_end = manifest(ended=None, results=None)
    leave(tmp_path / "1 done", manifest())
    leave(tmp_path / "2 done and refused to do something else", manifest(), failure={"line": "x"})
    leave(tmp_path / "3 certified", {"config": {}}, certificate={"predicate": {}})
    leave(tmp_path / "4 failed", open_end, failure={"line": "x", "diverged": False})
    leave(tmp_path / "5 diverged", open_end, failure={"line": "x", "diverged": True})
    leave(tmp_path / "6 stopped", open_end)
    leave(tmp_path / "7 running", open_end)
    leave(tmp_path / "8 just begun")
    with lock.held(tmp_path / "7 running" / lock.FILE), lock.held(tmp_path / "8 just begun" / lock.FILE):
        found = [run.status for run in read(tmp_path)]
    assert found == ["done", "done", "done", "failed", "diverged", "stopped", "running", "running"]


def test_what_cannot_be_read_is_one_line_and_the_rest_of_the_table_stands(tmp_path):
    leave(tmp_path / "good", manifest())
    torn = {
        "cut": b'{"config": {"seed": 1',
        "bytes": b"\xff\xfe\x00",
        "list": b"[1, 2]",
        "deep": b'{"a":' * 3000 + b"1" + b"}" * 3000,
        "nested": b'{"a":' * 60 + b"1" + b"}" * 60,
        "wide": json.dumps({"config": {f"k{number}": 1 for number in range(6000)}}).encode(),
    }
    for name, raw in torn.items():
        (leave(tmp_path / name) / "manifest.json").write_bytes(raw)
    os.mkfifo(leave(tmp_path / "fifo") / "manifest.json")
    runs = {run.place.name: run for run in read(tmp_path)}
    assert runs["good"].faults == ()
    assert runs["good"].values["after.refusal"] == 0.5
    for name in (*torn, "fifo"):
        assert len(runs[name].faults) == 1, name
        assert str(tmp_path / name) in runs[name].faults[0]
        assert runs[name].status == "stopped"


@pytest.mark.parametrize(
    "record",
    [
        {"config": [1], "results": [1], "argv": "x", "started": 5, "ended": "never", "seed": [1], "choices": "x"},
        {"results": {"model": 3}, "argv": []},
        {"results": {}, "config": None},
        {},
    ],
)
def test_a_manifest_of_any_shape_is_a_row(tmp_path, record):
    leave(tmp_path / "run", record)
    (run,) = read(tmp_path)
    assert (run.status, run.faults) == ("stopped", ())


def test_a_run_without_a_manifest_has_what_it_was_asked_for(tmp_path):
    folder = leave(tmp_path / "run", failure={"line": "no such file"})
    (folder / ".hydra").mkdir()
    asked = ["+defense=tar", "seed=2", "trainer.optimizer.learning_rate=1e-4", "attack@red_team=harmful_sft", "~x"]
    asked.append(r"model.path='/a b/it\'s'")
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(asked))
    (run,) = read(tmp_path)
    expected = {
        "status": "failed",
        "failure": "no such file",
        "seed": 2,
        "choices.defense": "tar",
        "choices.attack@red_team": "harmful_sft",
        "config.trainer.optimizer.learning_rate": 1e-4,
        "config.model.path": "/a b/it's",
    }
    assert {name: run.values.get(name) for name in expected} == expected


def test_an_earlier_manifest_takes_its_choices_from_hydras_file(tmp_path):
    folder = leave(tmp_path / "run", manifest(choices=None))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- +defense=tar\n- seed=0\n- trainer.steps=4\n")
    (run,) = read(tmp_path)
    assert run.values["choices.defense"] == "tar"
    assert "choices.seed" not in run.values


@pytest.mark.parametrize("text", ["- !!python/object/apply:os.system [exit]", "[[[", "5", ""])
def test_overrides_of_a_stranger_run_nothing(tmp_path, text):
    folder = leave(tmp_path / "run")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(text)
    assert read(tmp_path)[0].status == "stopped"


def test_a_reader_reads_a_file_once_for_as_long_as_it_stays_as_it_is(tmp_path, monkeypatch):
    folder = leave(tmp_path / "run", manifest(ended=None))
    (place,) = runs_below([tmp_path]).places
    reader, asked = Reader(), []
    from immunax.runs import read as module

    whole = module.read_bytes
    monkeypatch.setattr(module, "read_bytes", lambda path: asked.append(path) or whole(path))
    with lock.held(folder / lock.FILE):
        assert [reader.read(place).status for _ in range(2)] == ["running", "running"]
    assert reader.read(place).status == "stopped"
    assert len(asked) == 1
    (folder / "manifest.json").write_text(json.dumps(manifest()))
    assert reader.read(place).status == "done"
    assert len(asked) == 2


def test_neither_jax_nor_transformers_nor_pandas_is_imported_for_a_table(tmp_path):
    leave(tmp_path / "runs" / "run", manifest())
    code = (
        "import sys\nfrom immunax.results import main\n"
        "assert main(['runs', 'by=defense', 'metric=after.refusal']) == 0\n"
        "found = {'jax', 'transformers', 'pandas', 'matplotlib', 'hydra', 'pyarrow'} & sys.modules.keys()\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_neither_jax_nor_transformers_is_imported_for_a_figure(tmp_path):
    for seed in (0, 1):
        leave(tmp_path / "outputs" / "mine-organism-train" / f"seed={seed}", manifest(seed=seed))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "figure.yaml").write_text("panels: [{plot: points, x: seed, y: after.refusal}]\n")
    code = (
        "import sys\nfrom immunax.figure import main\n"
        "assert main(['mine/figure.yaml']) == 0\n"
        "found = {'jax', 'transformers', 'hydra'} & sys.modules.keys()\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "mine-organism" / "figure.svg").is_file()
