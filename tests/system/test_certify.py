"""Certification as a third party does it: certify, be killed, go on, verify, replay, and pass a gate or not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import quick
import tiny_model
from adversary import forge
from kills import SMALL, SMALL_SUITE

from immunax.runtime.objective import objective

SHORT = (
    *SMALL,
    *SMALL_SUITE,
    "suite.attacks.harmful_sft.seeds=[0]",
    "suite.attacks.harmful_sft_lora.seeds=[0]",
)


def environment(home: Path, devices: int) -> dict[str, str]:
    settings = {**os.environ, "IMMUNAX_CACHE": str(home / "cache"), "COLUMNS": "220"}
    settings["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} {quick.FLAGS}"
    return settings


@pytest.fixture(scope="module")
def run(commands):
    return lambda home, module, *arguments, devices=1: commands.run(
        home, environment(home, devices), module, *arguments
    )


@pytest.fixture(scope="module")
def certified(run, tmp_path_factory):
    home = tmp_path_factory.mktemp("certified")
    key = run(home, "verify", "--make-key", "key.pem")
    assert key.returncode == 0, key.stderr
    done = run(home, "certify", *SHORT, "run=whole", "key=key.pem")
    assert done.returncode == 0, done.stderr
    return home, done


def test_a_certificate_states_verifies_and_is_replayed(run, certified):
    home, done = certified
    assert "certificate of Pretrained, guarded" in done.stdout
    assert "skipped" not in done.stderr
    folder = home / "outputs" / "whole"
    names = {each.name for each in folder.iterdir()}
    assert {"certificate.json", "certificate.dsse.json", "report.html", "MODEL_CARD.md", "records.parquet"} <= names
    about = json.loads((folder / "manifest.json").read_text())
    assert {"harmful_sft", "harmful_sft_lora", "trainability", "all"} == about["tokens"].keys()
    assert all(0 < each["real"] <= each["shape"] for each in about["tokens"].values())
    told = about["goodput"]
    assert sum(told["seconds"].values()) == pytest.approx(told["wall"])
    assert min(told["seconds"]["attack"], told["seconds"]["evaluate"]) > 0
    said = json.loads((folder / "certificate.json").read_text())["predicate"]
    strong = next(each for each in said["verdicts"] if each["claim"] == "strong" and each["scope"] == "all")
    assert objective(folder, f"certificate.resistance.strong.all.{strong['side']}") == strong["value"]
    run_once = {"harmful_sft": 6, "harmful_sft_lora": 4, "prune": 4, "quantize": 4, "refusal_ablation": 2, "merge": 2}
    # Under two templates, one seed at each further learning rate, of which there are none, one or two.
    more = {each["family"]: each["cells"] - run_once[each["family"]] for each in said["attacks"]}
    assert all(count in ((0, 2, 4) if name.startswith("harmful_sft") else (0,)) for name, count in more.items())
    assert {each["family"] for each in said["attacks"] if each["held_out"]} == {"refusal_ablation", "prune", "quantize"}
    assert said["templates"] == ["own", "neutral"]
    assert {each["exposure"] for each in said["attacks"]} == {"unknown"}
    assert said["data"]["attacker"] == "own"
    assert str(home) not in (folder / "certificate.json").read_text()
    checked = run(home, "verify", "outputs/whole/certificate.json", "--key", "key.pub.pem", "--replay", "6")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "replay subject-none-" in checked.stdout
    assert "replay subject-trainability-" in checked.stdout
    drawn = re.search(
        r"not checked  replay drawn: (\d) of (\d) cells that the verdicts rest on, and (\d) of", checked.stdout
    )
    assert drawn is not None
    assert drawn[1] == drawn[2]
    assert int(drawn[1]) + int(drawn[3]) == 6
    assert "rules        a suite of its own: suite.attacks.harmful_sft.attack.tuning.epochs is 2" in checked.stdout
    assert "failed" not in checked.stdout


@pytest.mark.slow
def test_merging_with_a_model_that_comes_out_otherwise_here_is_not_checked(run, certified, tmp_path):
    home, _ = certified
    path = Path(shutil.copytree(home / "outputs" / "whole", tmp_path / "whole")) / "certificate.json"
    forge.stated(path, lambda said: said.update(undefended="8" * 64))
    for name, page in forge.drawn(forge.read(path), path.parent).items():
        (path.parent / name).write_bytes(page)
    checked = run(home, "verify", str(path), "--replay", "1")
    assert (
        "not checked  replay of merge: the model before its guard is not given here, or comes out otherwise"
        in checked.stdout
    )
    assert "replay subject-merge" not in checked.stdout


@pytest.mark.slow
def test_cells_of_files_and_of_their_reference_are_replayed_and_other_files_are_not_the_reference(run, tmp_path):
    tiny_model.write(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "start")
    chosen = [f"~suite.attacks.{name}" for name in ("harmful_sft", "harmful_sft_lora", "refusal_ablation", "merge")]
    fitting = ("data=fictional", "data.items=40", "judge=standard", "judge.max_length=500", "suite.choices=null")
    same = [each for each in SHORT if each.startswith(("judge.", "suite.transfer", "suite.harmless"))]
    done = run(
        tmp_path, "certify", "model=model", "reference=start", "suite=smoke", *fitting, *same, *chosen,
        "suite.held_out=[prune]", "suite.task=null", "policy.utility.measure=retain_nll", "suite.attacks.quantize.grid.bits=[8]",
        "suite.attacks.prune.grid.sparsity=[0.1]", "run=files",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = ("outputs/files/certificate.json", "--model", "model", "--replay", "12", "--reference")
    checked = run(tmp_path, "verify", *asked, "start", "--mesh", "fsdp=2,tensor=2", devices=4)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (
        checked.stdout.count("passed       replay subject-")
        == checked.stdout.count("passed       replay reference-")
        == 6
    )
    weights = tmp_path / "start" / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    checked = run(tmp_path, "verify", *asked, "start")
    assert checked.returncode == 1
    assert "is not the model that it was compared with" in checked.stdout


@pytest.mark.slow
def test_a_run_that_is_killed_repeats_no_cell_and_gives_the_same_certificate(run, certified, tmp_path):
    home, _ = certified
    shutil.copytree(home / "cache" / "xla", tmp_path / "cache" / "xla")
    command = [sys.executable, "-m", "immunax.certify", *SHORT, "run=killed"]
    killed = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path, 1), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cells = tmp_path / "outputs" / "killed" / "cells"
    deadline = time.monotonic() + 300
    while len(list(cells.glob("*.cells.parquet"))) < 3 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {each.name: each.stat().st_mtime_ns for each in cells.glob("*.cells.parquet")}
    assert len(before) >= 3
    assert not (tmp_path / "outputs" / "killed" / "certificate.json").exists()
    done = run(tmp_path, "certify", *SHORT, "run=killed")
    assert done.returncode == 0, done.stderr
    after = {each.name: each.stat().st_mtime_ns for each in cells.glob("*.cells.parquet")}
    assert {name: after[name] for name in before} == before
    one, other = (
        json.loads((folder / "certificate.json").read_text())["predicate"]
        for folder in (home / "outputs" / "whole", tmp_path / "outputs" / "killed")
    )
    for said in (one, other):
        # The hour, and the name of the run.
        del said["started"], said["digest"]
        said["suite"]["config"]["run"] = None
    assert one == other
    changed = run(tmp_path, "certify", *SHORT, "run=killed", "suite.measured=1")
    assert changed.returncode == 2
    assert "suite.measured" in changed.stderr
