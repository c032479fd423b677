"""The commands as a user runs them, on a model small enough that each takes seconds."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from processes import JUDGED, environment
from profiles import annotated, planes

from immunax.models.hub import resolve
from immunax.runtime.metrics import read

SMALL = (*JUDGED, "probes.prompts=2")
TRAIN = (
    *SMALL,
    "trainer.max_length=256",
    "trainer.steps=6",
    "trainer.checkpoint_every=2",
    "defense.mixture.safe=2",
    "defense.mixture.harmful=2",
    "start.trainer.steps=2",
    "start.trainer.max_length=256",
    "red_team.samples=10",
    "red_team.tuning.epochs=4",
    "red_team.tuning.probes=2",
    "red_team.tuning.max_length=256",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model, a cache, and nothing of the project in it."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model.write(folder / "model")
    return folder


def start(home: Path, module: str, *overrides: str, devices: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-m", f"immunax.{module}", *overrides]
    return subprocess.Popen(
        command, cwd=home, env=environment(home, devices), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def run(commands):
    """Runs a command to its end: its status, what it printed and its errors."""

    def run(home, module, *overrides, devices=1):
        done = commands.run(home, environment(home, devices), module, *overrides)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def trained(home):
    """The main job, run once."""
    process = start(
        home, "train", "+defense=rep_noise", "model=model", "run=main", *TRAIN, "trainer.keep=all", "trace=2"
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return home / "outputs" / "main", out, err


def test_the_main_job_shows_both_models_before_and_after_the_attack(trained):
    _, out, _ = trained
    rows = [line for line in out.splitlines() if "attack" in line and "model" not in line.split()[-1]]
    assert len([row for row in rows if "start model" in row]) == 2
    assert len([row for row in rows if "immunized" in row]) == 2
    for heading in ("refusal rate", "hazard exactness", "harmful NLL", "retain perplexity"):
        assert heading in out


def test_the_main_job_leaves_every_file_it_promises(trained):
    folder, _, _ = trained
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["defense"]["alpha"] == 1.0
    assert {"python", "jax", "immunax"} <= manifest["versions"].keys()
    assert any(name.endswith(".safetensors") for name in manifest["digests"])
    assert manifest["data"]["safe"]["kept"] > 0
    assert manifest["attack_data"] == "own"
    assert {"start model", "immunized"} == manifest["results"].keys()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert len([line for line in lines if line["phase"] == "attack/immunized"]) == 4
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "attack.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / ".hydra" / "config.yaml").exists()


def test_the_main_job_tells_how_fast_each_phase_was_on_the_screen_in_metrics_and_in_the_manifest(trained):
    folder, _, err = trained
    said = json.loads((folder / "manifest.json").read_text())["performance"]
    assert said.keys() == {"guard", "train", "attack", "evaluate"}
    # Of both models: four steps of an attack, and what either is asked before, along and after it.
    assert {name: each.get("steps") for name, each in said.items()} == {
        "guard": 2,
        "train": 6,
        "attack": 8,
        "evaluate": None,
    }
    lines = {line["phase"]: line for line in read(folder / "metrics.jsonl")}
    for name, each in said.items():
        assert each["tokens_per_second"] > 0
        assert 0 < each["tokens"] <= each["computed_tokens"]
        assert 0 < each["measured_seconds"] <= each["seconds"]
        assert each["host_memory_peak"] > 2**27
        assert each["device_memory_peak"] is each["mfu"] is each["hfu"] is None  # of a CPU
        assert lines[f"performance/{name}"]["values"]["compile_seconds"] == each["compile_seconds"]
        assert any(
            re.match(rf"{name}( start model| immunized)?: \d+ (step|sequence)s in .* tokens/s", text)
            for text in err.splitlines()
        )
    assert said["train"]["programs"] > 0
    assert said["train"]["measured_steps"] == 5
    # A step's rate is logged once it is there, but for the first, which compiles.
    rated = [line for line in read(folder / "metrics.jsonl") if line["phase"] == "train/rate"]
    assert [line["step"] for line in rated] == [2, 3, 4, 5, 6]
    seconds = sum(line["values"]["seconds"] for line in rated)
    assert seconds == pytest.approx(said["train"]["measured_seconds"], abs=0.01)
    done = sum(line["values"]["seconds"] * line["values"]["tokens_per_second"] for line in rated)
    assert done / seconds == pytest.approx(said["train"]["tokens_per_second"], rel=1e-3)


def test_the_main_job_leaves_the_profile_that_it_was_asked_for(trained):
    folder, _, err = trained
    assert annotated(folder) == {"train": [3, 4]}
    assert "/host:CPU" in planes(folder)
    assert "trace: steps 3 to 4 of the train loop are in " in err


def test_records_hold_every_score_and_no_text(trained):
    folder, _, _ = trained
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert len(records) == 2 * 2 * (4 + 4 + 4)
    for record in records:
        texts = [value for value in record.values() if isinstance(value, str)]
        assert all(re.fullmatch(r"[0-9a-f]{16}|[a-z ]{4,12}", text) for text in texts)


def test_the_export_is_the_trained_model(trained, home):
    folder, _, _ = trained
    before, after = resolve(str(home / "model")).load(), resolve(str(folder / "model")).load()
    assert after.config == before.config
    assert not np.array_equal(after.params["norm"]["scale"], before.params["norm"]["scale"])


@pytest.mark.slow
def test_a_sharded_run_has_the_losses_of_a_run_on_one_device(run, trained, home):
    sizes = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    status, _, err = run(home, "train", "+defense=rep_noise", "model=model", "run=sharded", *TRAIN, *sizes, devices=8)
    assert status == 0, err
    one, other = (
        [line["values"]["loss"] for line in read(home / "outputs" / name / "metrics.jsonl") if line["phase"] == "train"]
        for name in ("main", "sharded")
    )
    np.testing.assert_allclose(one, other, rtol=2e-3)


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_bit_identical_to_one_that_was_not(run, trained, home):
    longer = (*TRAIN, "trainer.steps=60", "trainer.checkpoint_every=5", "trainer.keep_last=2")
    whole = run(home, "train", "+defense=rep_noise", "model=model", "run=whole", *longer)
    assert whole[0] == 0, whole[2]
    process = start(home, "train", "+defense=rep_noise", "model=model", "run=cut", *longer)
    metrics = home / "outputs" / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.exists() or len(metrics.read_text().splitlines()) < 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (home / "outputs" / "cut" / "model").exists()
    status, _, err = run(home, "train", "+defense=rep_noise", "model=model", "run=cut", *longer)
    assert status == 0, err
    assert re.search(r"resuming from step \d+ of 60", err)
    names = ("model/model.safetensors", "records.jsonl")
    one, other = (
        [(home / "outputs" / run_name / name).read_bytes() for name in names] for run_name in ("whole", "cut")
    )
    assert one == other
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"train"' in line]
    assert steps == list(range(1, 61))


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(home):
    arguments = (
        "+defense=rep_noise",
        "model=model",
        "run=asked",
        *TRAIN,
        "trainer.steps=2000",
        "trainer.checkpoint_every=2000",
    )
    process = start(home, "train", *arguments)
    metrics = home / "outputs" / "asked" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.exists() or len(metrics.read_text().splitlines()) < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "run=asked" in err
    assert "Traceback" not in err
    assert [entry.name for entry in (home / "outputs" / "asked" / "checkpoints").iterdir() if entry.name.isdigit()]


@pytest.mark.slow
def test_a_run_that_was_killed_tells_of_both_starts_and_of_the_steps_that_were_in_vain(run, trained, home):
    longer = (*TRAIN, "trainer.steps=40", "trainer.checkpoint_every=30", "run=twice")
    process = start(home, "train", "+defense=rep_noise", "model=model", *longer)
    folder = home / "outputs" / "twice"
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.exists() or len(metrics.read_text().splitlines()) < 10):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    logged = [line["step"] for line in read(metrics) if line["phase"] == "train"]
    saved = max((int(each.name) for each in (folder / "checkpoints").iterdir() if each.name.isdigit()), default=0)
    status, _, err = run(home, "train", "+defense=rep_noise", "model=model", *longer)
    assert status == 0, err
    found = json.loads((folder / "manifest.json").read_text())["goodput"]
    assert (found["starts"], found["redone_steps"]) == (2, max(logged) - saved)
    assert sum(found["seconds"].values()) == pytest.approx(found["wall"])
    assert min(found["seconds"].values()) >= 0
    useful = sum(found["seconds"][name] for name in ("step", "attack", "evaluate"))
    assert found["share"] == pytest.approx(useful / found["wall"], abs=1e-4)
    for name in ("step", "attack", "evaluate", "compile", "load", "save", "startup"):
        assert found["seconds"][name] > 0, name
    assert found["compile_saved"] > 0
    [line] = [line for line in err.splitlines() if line.startswith("goodput: ")]
    assert f"{found['share']:.0%} of " in line
    assert "2 starts" in line
    assert f"{found['redone_steps']} steps taken again" in line


@pytest.mark.slow
def test_a_finished_run_is_not_made_again_and_leaves_its_export_alone_where_that_is_asked(run, trained, home):
    folder = home / "outputs" / "alone"
    shutil.copytree(trained[0], folder)
    before = (folder / "manifest.json").read_bytes()
    again = ("+defense=rep_noise", "model=model", "run=alone", *TRAIN)
    for more, kept in (
        (("trainer.keep=all",), {"4", "6"}),
        (("trainer.keep=last", "trainer.keep_last=5"), {"6"}),
        ((), set()),
    ):
        status, out, err = run(home, "train", *again, *more)
        assert (status, out) == (0, ""), err
        assert re.search(
            r"^ended at 20\S+: the results are in \S+/alone; to make them anew, delete it$", err, re.MULTILINE
        )
        assert (folder / "manifest.json").read_bytes() == before
        assert {each.name for each in (folder / "checkpoints").glob("[0-9]*")} == kept
    assert not (folder / "checkpoints").exists()
    status, _, err = run(home, "train", *again, "export_dtype=bfloat16")
    assert status == 2
    assert "finished run without its checkpoints, which export_dtype=bfloat16 would be made from" in err
    from immunax.stages.setup import load

    left, exported = load(resolve(str(folder))), resolve(str(folder / "model")).load()
    np.testing.assert_array_equal(left.params["norm"]["scale"], exported.params["norm"]["scale"])


@pytest.mark.slow
def test_a_run_that_is_to_leave_numbers_alone_leaves_no_weights_and_no_model_for_others(run, trained, home):
    line = ("+defense=rep_noise", "model=model", "run=numbers", *TRAIN, "trainer.keep=results")
    status, _, err = run(home, "train", *line)
    assert status == 0, err
    folder = home / "outputs" / "numbers"
    assert not list(folder.rglob("*.safetensors"))
    assert not (folder / "checkpoints").exists()
    assert "export ..." not in err
    before = json.loads((folder / "manifest.json").read_text())
    assert before["results"].keys() == {"start model", "immunized"}
    status, out, err = run(home, "train", *line)
    assert (status, out) == (0, ""), err
    assert "ended at " in err
    status, _, err = run(home, "attack", "+attack=harmful_sft", "model=outputs/numbers", *SMALL)
    assert status == 2
    assert err.splitlines()[-1].endswith(
        "outputs/numbers leaves no weights (trainer.keep=results): make it again under another run=NAME with "
        "trainer.keep=export, or give another model."
    )
    status, _, err = run(home, "train", *line, "trainer.keep=export")
    assert status == 2
    assert "finished run without its checkpoints, which model/ would be made from" in err


def test_a_signal_outside_the_training_loop_ends_a_command_in_one_line(home):
    process = start(home, "attack", "+attack=harmful_sft", "model=model", "run=cut", *SMALL)
    said = ""
    while "load model: " not in said and (line := process.stderr.readline()):
        said += line
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert (
        err.splitlines()[-1] == "stopped by SIGTERM: what is finished is kept, and the same command goes on from there"
    )
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("model", "attack", "whose"),
    [
        ("outputs/main", "harmful_sft", "own"),
        pytest.param("outputs/main/model", "harmful_sft_lora", "shared", marks=pytest.mark.slow),
        pytest.param("model", "identity_shift", "own", marks=pytest.mark.slow),
        pytest.param("model", "benign_sft", "own", marks=pytest.mark.slow),
    ],
)
def test_the_attack_command_takes_any_checkpoint_and_marks_shared_data(run, trained, home, model, attack, whose):
    budget = (
        "attack.tuning.epochs=2",
        "attack.tuning.batch_size=5",
        "attack.tuning.max_length=512",
        "attack.tuning.probes=1",
    )
    samples = (f"data.attacker={whose}", *(() if attack == "identity_shift" else ("attack.samples=5",)))
    adapters = attack == "harmful_sft_lora"
    named = f"+attack={attack}", f"model={model}", f"run={attack}", f"export_adapter={adapters}"
    status, out, err = run(home, "attack", *named, *SMALL, *budget, *samples)
    assert status == 0, err
    assert "attack steps" in out
    folder = home / "outputs" / attack
    assert len((folder / "records.jsonl").read_text().splitlines()) == 2 * (4 + 4 + 4)
    found = json.loads((folder / "manifest.json").read_text())
    assert found["results"]
    assert found["attack_data"] == whose
    spent = found["goodput"]["seconds"]
    assert sum(spent.values()) == pytest.approx(found["goodput"]["wall"])
    assert min(spent["attack"], spent["evaluate"], spent["load"]) > 0 == spent["step"]
    assert len(found["taught_before"]) == model.startswith("outputs/main")
    assert ("(attack data shared)" in out) == (whose == "shared")
    assert (folder / "adapter").exists() == (folder / "start").exists() == adapters
    if adapters:
        start, attacked = (resolve(str(folder / name)).load().params for name in ("start", "adapter"))
        before, after = (tree["layers"]["mlp"]["up_proj"]["kernel"] for tree in (start, attacked))
        assert 0 < np.abs(before - after).max() < 1
        np.testing.assert_array_equal(
            before, resolve(f"{home}/{model}").load().params["layers"]["mlp"]["up_proj"]["kernel"]
        )


@pytest.mark.slow
def test_attacks_of_a_sweep_that_are_one_program_leave_what_each_leaves_alone(run, home):
    fields = ("samples=5", "tuning.epochs=4", "tuning.batch_size=5", "tuning.max_length=512", "tuning.probes=2")
    line = ("-m", "+attack=harmful_sft", "model=model", *SMALL, *(f"attack.{field}" for field in fields), "seed=1,2")
    rates = "attack.tuning.optimizer.learning_rate"
    status, _, said = run(home, "attack", *line, f"{rates}=1e-3", "run=apart")
    assert status == 0, said
    status, _, said = run(home, "attack", *line, f"{rates}=1e-3,1e39", "run=fused", "hydra.sweeper.fuse=true")
    assert status == 2
    assert said.count("load model ...") == 1
    assert "2 of the sweep's jobs failed" in said
    for seed in (1, 2):
        apart, fused = home / f"outputs/apart/seed={seed}", home / f"outputs/fused/learning_rate=0.001+seed={seed}"
        assert {each.name for each in apart.iterdir()} == {each.name for each in fused.iterdir()}
        assert f"seed={seed}" in (fused / ".hydra" / "overrides.yaml").read_text()
        one, other = (
            [json.loads(text) for text in (folder / "records.jsonl").read_text().splitlines()]
            for folder in (apart, fused)
        )
        nats = [[record.pop("nll", 0.0) for record in records] for records in (one, other)]
        assert one == other
        np.testing.assert_allclose(*nats, rtol=1e-4)
        one, other = (json.loads((folder / "manifest.json").read_text()) for folder in (apart, fused))
        assert one["digests"] == other["digests"]
        assert one["config"] == {**other["config"], "run": "apart"}
        failed = json.loads((home / f"outputs/fused/learning_rate=1e_39+seed={seed}/failure.json").read_text())
        assert failed["diverged"]


def test_an_attack_without_adapters_has_none_to_export(run, home):
    status, _, err = run(
        home, "attack", "+attack=harmful_sft", "model=model", "export_adapter=true", "run=none", *SMALL
    )
    assert status == 2
    assert "+attack=harmful_sft_lora" in err


@pytest.mark.parametrize("attack", ["search", "prune"])
def test_what_takes_no_steps_of_its_own_is_not_traced(run, home, attack):
    status, _, err = run(home, "attack", f"+attack={attack}", "model=model", "trace=2", f"run=traced-{attack}", *SMALL)
    assert status == 2
    assert "error: trace=2: steps of a fine-tuning are recorded" in err


@pytest.mark.slow
def test_a_search_reports_the_best_attack_and_what_it_spent(run, home):
    short = [
        f"attack.populations.{name}.attack.{field}"
        for name in ("full", "lora")
        for field in ("samples=4", "tuning.epochs=3", "tuning.batch_size=4", "tuning.max_length=512")
    ]
    options = ["+attack=search", "mesh=attack", "model=model", "run=search", *SMALL, *short]
    status, out, err = run(home, "attack", *options, devices=2)
    assert status == 0, err
    assert "utility" in out
    manifest = json.loads((home / "outputs" / "search" / "manifest.json").read_text())
    search, streams = manifest["search"], ("harmful", "retain")
    known = {
        "attack full",
        "attack lora",
        *(f"{split} {stream}" for split in ("validation", "held-out") for stream in streams),
    }
    assert manifest["data"].keys() == known
    # Of 8 members in each of two programs, 2 steps each; half of them go on for the third.
    assert search["budget"]["steps"] == 2 * (8 * 2 + 4)
    assert len(search["trials"]) == 2 * (8 + 4)
    assert search["budget"]["flops"] > 0


def test_an_orbax_run_and_its_export_are_the_same_model(trained, home):
    folder, _, _ = trained
    from immunax.stages.setup import load

    run_params = load(resolve(str(folder))).params
    exported = resolve(str(folder / "model")).load().params
    np.testing.assert_array_equal(run_params["norm"]["scale"], exported["norm"]["scale"])
    np.testing.assert_array_equal(
        run_params["layers"]["mlp"]["up_proj"]["kernel"], exported["layers"]["mlp"]["up_proj"]["kernel"]
    )


def _truncated(home: Path) -> str:
    tiny_model.write(home / "truncated")
    weights = home / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return "model=truncated"


def _without_weights(home: Path) -> str:
    tiny_model.write(home / "bare")
    (home / "bare" / "model.safetensors").unlink()
    return "model=bare"


def _another_architecture(home: Path) -> str:
    tiny_model.write(home / "other")
    config = json.loads((home / "other" / "config.json").read_text())
    (home / "other" / "config.json").write_text(json.dumps({**config, "model_type": "gpt2", "architectures": ["GPT2"]}))
    return "model=other"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=model",), "defense"),
        (("+defense=rep_nose", "model=model"), "rep_noise"),
        (("+defense=rep_noise", "model=modle"), "modle"),
        (("+defense=rep_noise", "model=model", "defense.alfa=2"), "alpha"),
        (("+defense=rep_noise", "model=model", "trace=1000"), "trace=1000: expected a number of steps"),
        (("+defense=rep_noise", "model=model", "compute.peak=0"), "compute.peak=0"),
        (("+defense=rep_noise", "model=model", "trainer.steps=many"), "trainer.steps"),
        (("+defense=rep_noise", _truncated), "truncated"),
        (("+defense=rep_noise", _without_weights), "no weights"),
        (("+defense=rep_noise", _another_architecture), "gpt2"),
        pytest.param(
            ("+defense=rep_noise", "model=model", *TRAIN, "judge.max_length=40"), "40", marks=pytest.mark.slow
        ),
        pytest.param(
            ("+defense=rep_noise", "model=model", *TRAIN, "trainer.max_length=513"),
            "context of 512",
            marks=pytest.mark.slow,
        ),
        (("+defense=rep_noise", "model=model", *TRAIN, "judge.max_length=510"), "context of 512"),
        (
            ("+defense=rep_noise", "model=model", *TRAIN, "trainer.optimizer.learning_rate=1e30", "run=nan"),
            "learning_rate",
        ),
        pytest.param(
            ("+defense=rep_noise", "model=model", *TRAIN, "red_team.tuning.optimizer.learning_rate=1e30", "run=burst"),
            "learning rate",
            marks=pytest.mark.slow,
        ),
        (("+defense=rep_noise", "model=model", *TRAIN, "run=main", "seed=5"), "seed"),
        *(
            pytest.param(("+defense=rep_noise", "model=model", *TRAIN, *given), told, marks=pytest.mark.slow)
            for given, told in (
                (("export_dtype=bf16",), "bfloat16"),
                (("start.defense=null", "run=half"), "start=base"),
            )
        ),
        (("+defense=rep_noise", "model=model", "red_team=identity_shift"), "attack@red_team=identity_shift"),
        (("+defense=rep_noise", "model=model", "data=beavertails", "data.root=nowhere"), "nowhere"),
    ],
)
def test_a_mistake_ends_with_one_clear_line(run, trained, home, overrides, message):
    given = [part if isinstance(part, str) else part(home) for part in overrides]
    status, out, err = run(home, "train", *given)
    assert status == 2, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert message in errors[0]
    assert "Traceback" not in err + out
    assert not (home / "outputs" / "nan" / "model").exists()
    if any("1e30" in part for part in given):
        (named,) = [part.removeprefix("run=") for part in given if part.startswith("run=")]
        assert json.loads((home / "outputs" / named / "failure.json").read_text())["diverged"] is True
        assert not (home / "outputs" / named / "checkpoints").exists()


def test_importing_the_commands_starts_no_device():
    code = (
        "import immunax.train, immunax.attack, immunax.certify, immunax.compile\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["verify", "leaderboard", "results"])
def test_commands_about_strangers_files_take_no_module_from_the_folder_they_are_started_in(tmp_path, module):
    for name in ("yaml", "json", "argparse", "numpy"):
        (tmp_path / f"{name}.py").write_text("print('foreign code')")
    (tmp_path / "certificate.json").write_text("{}")
    command = [sys.executable, "-m", f"immunax.{module}", "certificate.json"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=120)
    assert "foreign" not in done.stdout + done.stderr
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
