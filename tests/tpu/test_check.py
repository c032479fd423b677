"""What is told and refused before money is spent."""

import importlib.util
import json
import re
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from immunax.runtime import overrides
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.overrides import ConfigSource
from tpu import check, composed, package, prices, slices
from tpu.slices import ROOT, Shape

PLACE = ("--zone", "us-west4-a", "--spot")
OUT = "outputs=gs://bucket/runs"
SWEEP = ("mesh=v5e_16", "model=organism", "+defense=tar,rep_noise", "run=s", OUT)


@pytest.fixture
def interpreter(tmp_path):
    """A python that answers as the package does, quickly: a run takes an hour, a hundred steps of 36 s."""
    path = tmp_path / "python"
    path.write_text(
        f"""#!{sys.executable} -SE
import json, os, sys
home = {str(tmp_path)!r}
with open(home + "/asked", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
answer = json.load(open(home + "/answer")) if os.path.exists(home + "/answer") else {{}}
if sys.argv[2] == "tpu.composed":
    given = json.load(sys.stdin)
    if "mistake" in answer:
        sys.exit(print("error: " + answer["mistake"], file=sys.stderr) or 2)
    swept = [text for text in given["overrides"] if "," in text and "{{" not in text]
    rest = [text for text in given["overrides"] if text not in swept]
    jobs = [rest]
    for text in swept:
        key, _, values = text.partition("=")
        jobs = [[*job, key + "=" + value] for job in jobs for value in values.split(",")]
    def program(job):
        return [text for text in job if not text.startswith(("seed", "outputs", "run"))]
    names = ["+".join(text.lstrip("+") for text in job[len(rest):]) or None for job in jobs]
    found = [dict(sweep=None, folder=name, overrides=job, compile=program(job)) for name, job in zip(names, jobs)]
    print(json.dumps([{{**each, **{{key: answer[key] for key in answer if key == "compile"}}}} for each in found]))
else:
    folder = next(each.partition("=")[2] for each in sys.argv if each.startswith("outputs="))
    os.makedirs(folder + "/fit")
    fits = answer.get("fits", True)
    slices = next((int(each.partition("=")[2]) for each in sys.argv if each.startswith("mesh.slices=")), 1)
    record = dict(fits=fits, memory={{}}, seconds=dict(compute=36.0, HBM=1.0), bound="compute", run_seconds=3600.0,
                  devices=answer.get("devices", 16 * slices),
                  refusal=None if fits else "RESOURCE_EXHAUSTED: 17 GiB of 16")
    json.dump(record, open(folder + "/fit/compile.json", "w"))
    if "broken" in answer:
        print("error: " + answer["broken"], file=sys.stderr)
        sys.exit(2)
    if not fits:
        print("what would help most: mesh.fsdp=32 (about 6 GiB a device)", file=sys.stderr)
        sys.exit(3)
"""
    )
    path.chmod(0o755)
    return path


def asked(interpreter):
    return [json.loads(line) for line in (interpreter.parent / "asked").read_text().splitlines()]


def answering(interpreter, **answer):
    (interpreter.parent / "answer").write_text(json.dumps(answer))


def plan(outside, interpreter, *words, flags=PLACE):
    return outside.launch("plan", *flags, "--python", interpreter, "--", *words)


ONE = ("immunax.train", "mesh=v5e_16", "+defense=tar", OUT)


def test_a_plan_says_hours_and_price_of_a_run(outside, interpreter):
    status, out, err = plan(outside, interpreter, *ONE)
    assert (status, out) == (0, "")
    assert "fits v5litepod-16" in err
    # A hundred steps of 36 s are an hour; sixteen chips at $0.48.
    assert "1 run of 1 hours at least" in err
    assert "16 chips at $0.48 an hour each (spot, us-west4, as of 2026-11-27), $7.68" in err
    assert outside.log == []


def test_a_sweep_is_compiled_once_a_program_and_its_sum_is_told(outside, interpreter):
    words = ("immunax.train", "-m", "mesh=v5e_16", "+defense=tar,lat", "seed=0,1,2", "run=s", OUT)
    status, _, err = plan(outside, interpreter, *words)
    assert status == 0, err
    assert "6 runs of 1 hours" in err
    assert "$46.08" in err
    assert len([argv for argv in asked(interpreter) if argv[1] == "immunax.compile"]) == 2


def test_no_more_programs_are_compiled_than_the_user_wants(outside, interpreter):
    words = ("immunax.train", "-m", "mesh=v5e_16", "+defense=tar,lat,rmu", "run=s", OUT)
    status, _, err = plan(outside, interpreter, *words, flags=(*PLACE, "--checks", "2"))
    assert (status, "of 3 programs 2 are compiled" in err) == (0, True)
    assert len([argv for argv in asked(interpreter) if argv[1] == "immunax.compile"]) == 2


def test_of_many_programs_each_choice_is_compiled_before_the_second_of_any(outside, interpreter):
    words = ("immunax.train", "-m", "mesh=v5e_16", "+defense=tar,lat", "defense.alpha=1,2,3", "run=s", OUT)
    status, _, err = plan(outside, interpreter, *words, flags=(*PLACE, "--checks", "3"))
    assert status == 0, err
    compiled = [argv for argv in asked(interpreter) if argv[1] == "immunax.compile"]
    chosen = [{word.partition("=")[2] for word in argv if "defense" in word} for argv in compiled]
    assert chosen == [{"tar", "1"}, {"lat", "1"}, {"tar", "2"}]
    uneven = [("+defense=tar", "x=1"), ("+defense=lat", "x=1"), ("+defense=tar", "x=2")]
    assert check.spread(uneven, 1) == uneven[:1]


def test_of_programs_that_differ_by_fields_each_value_comes_before_any_comes_again():
    fields = [
        ("+attack=sft", f"attack.samples={count}", f"attack.rate={rate}") for count in (10, 1000) for rate in (1, 2, 3)
    ]
    assert check.spread(fields, 3) == [fields[0], fields[4], fields[2]]
    assert check.spread(fields, 9) == [fields[0], fields[4], fields[2], fields[1], fields[3], fields[5]]


def test_hours_of_runs_that_were_not_compiled_are_those_of_their_own_choice(monkeypatch):
    hours = {"+defense=tar": 9.0, "+defense=lat": 1.0}
    monkeypatch.setattr(check, "_compiled", lambda _, arguments, *rest: hours[arguments[0]])
    programs = [("+defense=tar", "defense.alpha=1"), *(("+defense=lat", f"defense.alpha={each}") for each in (1, 2, 3))]
    runs = [package.Run("sweep", "run", [], list(arguments)) for arguments in programs]
    found = check.check("", runs, slices.of_type("v5litepod-16"), 1, None, 2)
    assert (found.runs, found.hours) == (4, 3.0)


@pytest.mark.parametrize(
    ("runs", "parts", "at_once", "lasts"), [(1, 1, 16, 1.5), (10, 1, 4, 4.5), (17, 4, 2, 4.5), (16, 4, 4, 1.5)]
)
def test_hours_on_the_clock_are_whole_turns(runs, parts, at_once, lasts):
    forecast = check.Forecast(runs, 1.5, "as given", parts)
    assert forecast.lasts(at_once) == lasts
    assert f"{lasts:.3g} hours on the clock with {at_once} at a time" in forecast.line(prices.Price(1.0, ""), at_once)


def test_what_was_compiled_once_is_not_compiled_again(outside, interpreter):
    plan(outside, interpreter, *ONE)
    plan(outside, interpreter, *ONE, "seed=1")
    assert len([argv for argv in asked(interpreter) if argv[1] == "immunax.compile"]) == 1


def test_what_does_not_fit_is_refused_with_what_would_help_and_nobody_is_asked_for_a_slice(outside, interpreter):
    answering(interpreter, fits=False)
    flags = ("pod1", *PLACE, "--bucket", "gs://bucket", "--python", interpreter)
    status, _, err = outside.launch("run", *flags, "--", *ONE)
    assert status == 3
    assert err.splitlines()[-1].startswith("error: does not fit v5litepod-16: RESOURCE_EXHAUSTED: 17 GiB of 16")
    assert "mesh.fsdp=32" in err
    assert outside.log == []


def test_more_than_the_budget_is_refused(outside, interpreter):
    assert plan(outside, interpreter, *ONE, flags=(*PLACE, "--budget", "8"))[0] == 0
    status, _, err = plan(outside, interpreter, *ONE, flags=(*PLACE, "--budget", "7"))
    assert status == 3
    assert err.splitlines()[-1] == "error: --budget 7: at least $7.68 is predicted."


def test_a_budget_that_nothing_can_be_compared_with_is_refused(outside, interpreter):
    status, _, err = plan(outside, interpreter, *ONE, flags=(*PLACE, "--unchecked", "--budget", "7"))
    assert (status, err.splitlines()[-1]) == (
        2, "error: --budget 7: nothing is predicted with --unchecked; give --hours too."
    )  # fmt: skip


def test_hours_and_prices_that_the_user_knows_go_first(outside, interpreter):
    status, _, err = plan(outside, interpreter, *ONE, flags=("--price", "2", "--hours", "3"))
    assert status == 0
    assert "1 run of 3 hours as given: 3 hours of 16 chips at $2 an hour each, as given, $96.00" in err


@pytest.mark.parametrize(
    ("answer", "words", "told"),
    [
        ({"mistake": "unknown defense 'tarr'. Did you mean 'tar'?"}, ONE, "unknown defense 'tarr'"),
        ({"broken": "seam refuses bfloat16"}, ONE, "seam refuses bfloat16"),
        ({"devices": 8}, ONE, "the command's mesh has 8 devices, v5litepod-16 has 16"),
        ({"compile": None}, ("immunax.verify", "mesh=v5e_16", OUT), "knows trainings, attacks and certificates"),
        ({}, (*ONE, "seed=0,1"), "several values need -m"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(outside, interpreter, answer, words, told):
    answering(interpreter, **answer)
    status, _, err = plan(outside, interpreter, *words)
    assert status == 2
    assert told in err.splitlines()[-1]


def test_a_python_without_the_package_is_told_with_what_to_do(outside, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    status, _, err = plan(outside, bare, *ONE)
    assert status == 2
    assert "uv sync --extra tpu" in err.splitlines()[-1]
    status, _, err = plan(outside, tmp_path / "none", *ONE)
    assert (status, "No such file" in err.splitlines()[-1]) == (2, True)


def test_several_slices_are_compiled_together_and_each_is_paid(outside, interpreter):
    status, _, err = plan(outside, interpreter, *ONE, flags=(*PLACE, "--slices", "2"))
    assert status == 0, err
    (compiled,) = [argv for argv in asked(interpreter) if argv[1] == "immunax.compile"]
    assert "mesh.slices=2" in compiled
    assert "$15.36" in err
    answering(interpreter, devices=16)
    status, _, err = plan(outside, interpreter, *ONE, "mesh.fsdp=16", flags=(*PLACE, "--slices", "2"))
    assert (status, "2 slices of v5litepod-16 have 32: change mesh.*" in err) == (2, True)


def test_prices_have_a_date_and_a_source_and_spot_is_never_dearer():
    table = prices.table()
    assert len(table["read"]) == 10
    assert table["source"].startswith("https://")
    assert "to be checked" in table["status"]
    for generation in slices.GENERATIONS:
        for region, (demand, spot) in table[generation].items():
            assert 0 < spot < demand, region


@pytest.mark.parametrize(
    ("capacity", "hour"), [("on-demand", 307.2), ("spot", 122.88), ("reserved", 307.2), ("flex-start", 307.2)]
)
def test_a_price_is_chips_times_its_regions_own(capacity, hour):
    shape = slices.of_type("v5litepod-256")
    assert prices.of(shape, 1, "us-west4-a", capacity).hour == pytest.approx(hour)
    assert prices.of(shape, 2, "us-west4-a", capacity).hour == pytest.approx(2 * hour)


# What follows asks the package itself.


def test_a_sweep_comes_to_jobs_that_are_named_by_what_differs():
    found = composed.composed("immunax.train", SWEEP)
    assert [(each["sweep"], each["folder"]) for each in found] == [("s", "defense=tar"), ("s", "defense=rep_noise")]
    one = found[1]
    assert one["overrides"] == ["mesh=v5e_16", "model=organism", "+defense=rep_noise", "run=s", OUT]
    # As the run itself has them: the model chooses its trainer, and what is made again.
    assert one["compile"] == [
        *("mesh=v5e_16", "model=organism", "+defense=rep_noise", "trainer=organism", "compute.remat=none")
    ]


def test_an_experiment_comes_to_its_runs_where_it_would_have_them_itself():
    words = ("+experiment=qi2024_durability", "tuned=organism_tar", "seed=0", "mesh=v5e_16")
    (one,) = composed.composed("immunax.train", words)
    # It shares its folder with another experiment, and what it varies is named where the line gives one value.
    assert (one["sweep"], one["folder"]) == ("league-organism-train", "seed=0+tuned=organism_tar")
    assert one["overrides"][0] == "+experiment/qi2024_durability/train=organism"
    # Each is a command by itself, and so is its check: neither varies anything.
    for name, line in (("train", one["overrides"]), ("compile", one["compile"])):
        assert overrides.prepare(ConfigSource(configuration_folder(), name), line, ()).sweeps == ()


def test_attacks_and_certificates_come_to_what_compiles_their_populations():
    words = ("mesh=v5e_16", "model=organism", "+attack=search", "export_adapter=false", OUT)
    (attack,) = composed.composed("immunax.attack", words)
    assert attack["compile"] == [
        *("mesh=v5e_16", "model=organism", "+attack=search", "trainer=organism", "compute.remat=none")
    ]
    (certificate,) = composed.composed("immunax.certify", ("model=organism", "policy=standard", "key=k.pem", OUT))
    assert certificate["compile"] == [
        *("model=organism", "mesh=single", "trainer=organism", "suite=standard", "compute.remat=none")
    ]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        pytest.param("train", "+defense=tar", marks=pytest.mark.slow),
        ("attack", "+attack=harmful_sft"),
        pytest.param("certify", "suite=smoke", marks=pytest.mark.slow),
    ],
)
def test_whatever_a_command_takes_its_check_takes_too(module, words):
    source = ConfigSource(configuration_folder(), module)
    line = [words, "mesh=v5e_16", "model=smollm2"]
    config = OmegaConf.to_container(overrides.prepare(source, line, ()).config)
    assert isinstance(config, dict)
    del config["hydra"]
    fields = [f"{path}={'null' if value is None else value}" for path, value in _leaves(config)]
    assert len(fields) > 50
    assert {field.partition(".")[0] for field in fields} >= {"distributed", "compute", "data", "mesh"}
    (one,) = composed.composed(f"immunax.{module}", [*line, *fields])
    overrides.prepare(ConfigSource(configuration_folder(), "compile"), one["compile"], ("defense|attack|suite",))


def _leaves(node, path=""):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")
        elif value is None or isinstance(value, (bool, int, float)) or re.fullmatch(r"[A-Za-z]\w*", str(value)):
            yield f"{path}{name}", value


def test_an_odd_value_is_left_as_it_was_written():
    lora = "defense.attacker.lora={_target_: immunax.models.lora.LoraSpec, rank: 8}"
    words = ["+defense=tar", lora, "export_dtype=bfloat16", "trainer=pod", "compute.remat=full"]
    (one,) = composed.composed("immunax.train", words)
    assert (one["folder"], one["overrides"]) == (None, words)
    assert one["compile"] == ["+defense=tar", lora, "trainer=pod", "compute.remat=full", "mesh=single"]


def test_every_mesh_of_a_slice_is_one_that_can_be_had():
    for path in sorted((ROOT / "conf" / "mesh").glob("*.yaml")):
        topology = yaml.safe_load(path.read_text())["topology"]
        found = slices.of_mesh(path.stem)
        assert (found.mesh if isinstance(found, Shape) else None) == topology


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed")
def test_a_plan_asks_the_compiler_itself(outside):
    words = ("immunax.train", "mesh=v5e_16", "model=organism", "+defense=rep_noise", OUT)
    status, _, err = outside.launch("plan", *PLACE, "--python", sys.executable, "--", *words)
    assert status == 0, err
    assert "fits v5litepod-16" in err
    assert package.python(None)


def test_parts_of_a_slice_are_checked_as_slices_of_their_size_and_share_its_hours(outside, interpreter):
    words = ("immunax.train", "-m", "mesh=v5e_16", "mesh.part=each/16", "+defense=tar", "seed=0,1,2", OUT)
    status, out, err = plan(outside, interpreter, *words)
    assert status == 0, err
    assert "16 runs at once fit v5litepod-256" in out + err
    assert "3 runs of 1 hours, 16 at once, at least" in out + err
    assert ": 1 hours of 256 chips at " in out + err
    answering(interpreter, devices=256)
    assert (
        "the command's mesh has 256 devices, v5litepod-16 has 16"
        in plan(outside, interpreter, *words, "+defense=lat")[2]
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mesh=v5e_16", "mesh.part=each/3"), "no v5e slice has 3 parts of v5e:4x4; it has 1, 2, 4, 8, 16."),
        (("mesh=v5e_16", "mesh.part=3"), "mesh.part=3: expected I/N"),
        (("mesh=fsdp", "mesh.part=0/3"), "mesh.part: v5litepod-16 does not make 3 equal parts"),
    ],
)
def test_parts_that_a_slice_does_not_have_are_told_before_anything_is_compiled(outside, interpreter, words, told):
    flags = (*PLACE, *(("--type", "v5litepod-16") if "mesh=fsdp" in words else ()))
    status, _, err = plan(outside, interpreter, "immunax.train", *words, "+defense=tar", OUT, flags=flags)
    assert status == 2
    assert told in err
