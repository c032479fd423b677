"""The compile command as a user runs it, for real TPU topologies, with no TPU present."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed: uv sync --extra tpu"
)


def environment():
    # As a newcomer's shell has them: the command itself has to say that there is no TPU.
    kept = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    return {**kept, "COLUMNS": "200"}


def run(home, *overrides, timeout=300):
    command = [sys.executable, "-m", "immunax.compile", "run=fit", *overrides]
    return subprocess.run(command, cwd=home, env=environment(), text=True, capture_output=True, timeout=timeout)


def test_a_step_that_fits_is_reported_with_its_memory_traffic_and_bound(tmp_path):
    done = run(tmp_path, "mesh=v5e_16", "model=organism", "+defense=rep_noise")
    assert done.returncode == 0, done.stderr
    assert "16 GiB" in done.stdout
    assert "bounds the step" in done.stdout
    assert "at most 12.5%" in done.stdout
    assert "12.5% of the tokens computed are real" in done.stderr
    assert "raise the examples of defense.mixture to 16" in done.stderr
    record = json.loads((tmp_path / "outputs" / "fit" / "compile.json").read_text())
    assert record["fits"]
    assert record["devices"] == 16
    # Nothing of this step is left to one device: together they multiply what the mathematics asks for.
    assert record["device_flops"] * 16 == pytest.approx(record["flops"] + record["recomputed_flops"], rel=0.05)
    assert record["device_sent_by_axis"]["fsdp"] > 0
    assert record["real_tokens"] == {"safe": 0.125, "harmful": 0.125, "retain": 0.125, "all": 0.125}
    assert record["bound"] in record["seconds"]
    manifest = json.loads((tmp_path / "outputs" / "fit" / "manifest.json").read_text())
    assert manifest["results"] == record


@pytest.mark.slow
def test_a_step_that_does_not_fit_says_what_would_help(tmp_path):
    replicated = ("mesh=v5e_16", "mesh.data=16", "mesh.fsdp=1", "model=llama3_8b", "model.decoder.n_layers=2")
    done = run(tmp_path, *replicated, "+defense=safety_tuning", "trainer.max_length=128")
    assert done.returncode == 3, done.stderr
    assert "does not fit" in done.stdout
    assert "help most: more sharding, mesh.data=1 mesh.fsdp=16" in done.stderr
    record = json.loads((tmp_path / "outputs" / "fit" / "compile.json").read_text())
    assert not record["fits"]
    assert record["memory"]["peak"] > 16 * 2**30


@pytest.mark.slow
def test_a_population_on_two_slices_is_reported_with_what_crosses_its_members(tmp_path):
    tuning = ("attack.tuning.max_length=80", "attack.tuning.batch_size=8", "compute.remat=dots")
    sizes = ("mesh=v5e_16", "mesh.slices=2", "mesh.attack=4", "mesh.fsdp=8", "members=8")
    done = run(tmp_path, *sizes, "model=organism", "+attack=harmful_sft_lora", *tuning)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 members at once" in done.stdout
    assert "none" in next(line for line in done.stdout.splitlines() if "collectives over attack" in line)
    record = json.loads((tmp_path / "outputs" / "fit" / "compile.json").read_text())
    assert (record["fits"], record["devices"], record["slices"]) == (True, 32, 2)
    assert not record["device_sent_over_dcn_by_axis"]
    assert [(each["together"], each["turns"]) for each in record["programs"]] == [(8, 1)]
    assert record["run_seconds"] == pytest.approx(record["programs"][0]["runs"] * record["step_seconds"])


@pytest.mark.slow
def test_parts_are_held_against_the_faster_mesh_of_all_of_the_slice(tmp_path):
    # Two rows of each stream: fsdp=64 pads them to 64, ours for 64 chips to 16.
    done = run(tmp_path, "mesh=v5e_16", "mesh.part=each/4", "model=organism", "+defense=safety_tuning")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fit on all of v5e:8x8") == 2
    record = json.loads((tmp_path / "outputs" / "fit" / "compile.json").read_text())
    found = record["sharing"]
    assert found["whole"]["mesh"] == {"attack": 1, "data": 1, "fsdp": 16, "tensor": 4}
    assert found["in_turn"] == 4 * found["whole"]["run_seconds"]
    assert (found["topology"], found["at_once"]) == ("v5e:8x8", record["run_seconds"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), "Or attack=NAME or suite=NAME."),
        (("+attack=search", "members=4"), "members: a search's are those of its populations"),
        (("+attack=prune",), "Prune is an edit"),
        (("+attack=harmful_sft", "+defense=tar"), "one program is compiled at a time"),
        (("+defense=tar", "trace=3"), "trace=3: nothing runs here that could be recorded"),
        *(
            pytest.param(overrides, told, marks=pytest.mark.slow)
            for overrides, told in (
                (("+attack=harmful_sft_lora", "mesh.attack=16", "mesh.fsdp=1"), "one model has no members"),
                (("+defense=tar", "mesh.slices=2", "mesh.fsdp=1", "mesh.tensor=32"), "tensor stays within a slice"),
            )
        ),
    ],
)
def test_what_cannot_be_compiled_is_told_in_one_line(commands, tmp_path, overrides, told):
    done = commands.run(tmp_path, environment(), "compile", "run=fit", "mesh=v5e_16", "model=organism", *overrides)
    assert done.returncode == 2
    assert told in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_whole_published_run_compiles_for_a_pod(tmp_path):
    done = run(tmp_path, "mesh=v5e_256", "+recipe=tar_bio", timeout=1500)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "outputs" / "fit" / "compile.json").read_text())
    assert record["fits"]
    assert record["devices"] == 256
    # Attention is the TPUs' kernel, and no weight is sent with more bits than products take.
    assert any(name.startswith("splash") for name in record["kernel_calls"])
    weights = record["device_gathered"]
    assert weights["bf16"] > 100 * sum(size for dtype, size in weights.items() if dtype != "bf16")
