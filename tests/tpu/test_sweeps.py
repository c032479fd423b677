"""A sweep's runs for Kueue, SLURM and Ray, and the path through xpk."""

import hashlib
import json
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml

from tpu import composed, package
from tpu.slices import ROOT

OUT = "outputs=gs://bucket/runs"
LORA = "defense.attacker.lora={_target_: immunax.models.lora.LoraSpec, rank: 8}"
SWEEP = ("immunax.train", "-m", "mesh=v5e_16", "+defense=tar,sophon", "seed=0,1", LORA, "run=s", OUT)
FLAGS = ("--zone", "us-west4-a", "--unchecked")
IMAGE = ("--image", "registry/immunax:1")
NAMES = [f"defense={defense}+seed={seed}" for defense in ("tar", "sophon") for seed in (0, 1)]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """The package is asked here: its import takes seconds in a process of its own."""
    monkeypatch.setattr(package, "runs", lambda _, job: [package.Run(**each) for each in jobs(job)])


@cache
def jobs(job):
    return composed.composed(job.module, job.overrides)


def sweep(outside, *flags, words=SWEEP):
    return outside.launch("sweep", "s1", *FLAGS, *flags, "--", *words)


def parsed(out):
    return [shlex.split(line) for line in out.splitlines()]


def test_a_line_a_run_is_printed_with_a_folder_of_its_own(outside):
    status, out, err = sweep(outside)
    assert status == 0, err
    assert parsed(out) == [
        [
            "immunax.train",
            "mesh=v5e_16",
            f"+defense={name.split('+')[0][8:]}",
            name.split("+")[1],
            LORA,
            OUT,
            f'run="s/{name}"',
        ]
        for name in NAMES
    ]


def test_each_line_composes_to_the_run_that_the_sweep_would_have(outside):
    from immunax.runtime.launch import composed as whole

    _, out, _ = sweep(outside)
    module, *overrides = parsed(out)[3]
    config = whole("train", overrides)
    assert module == "immunax.train"
    assert config.run == "s/defense=sophon+seed=1"
    assert config.plain["seed"] == 1
    assert config.plain["defense"]["attacker"]["lora"]["rank"] == 8


def test_a_sweep_without_a_name_is_refused_and_so_is_one_whose_jobs_are_the_same(outside):
    status, _, err = sweep(outside, words=[word for word in SWEEP if not word.startswith("run=")])
    assert (status, "give the command run=NAME" in err) == (2, True)
    status, _, err = sweep(outside, words=("immunax.train", "-m", "mesh=v5e_16", "+defense=tar,tar", "run=s", OUT))
    assert (status, "two jobs of the sweep are the same" in err) == (2, True)


def test_kueue_gets_a_jobset_a_run_by_name_so_that_the_same_sweep_is_no_other_one(outside):
    status, out, err = sweep(outside, "--engine", "kueue", *IMAGE, "--queue", "q")
    assert status == 0, err
    every = list(yaml.safe_load_all(out))
    assert [each["metadata"]["annotations"]["immunax/run"] for each in every] == [f"s/{name}" for name in NAMES]
    names = [each["metadata"]["name"] for each in every]
    assert names == [f"s1-{hashlib.sha256(f's/{name}'.encode()).hexdigest()[:8]}" for name in NAMES]
    assert {each["metadata"]["labels"]["immunax/sweep"] for each in every} == {"s1"}
    assert {each["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for each in every} == {"q"}
    _, larger, _ = sweep(outside, "--engine", "kueue", *IMAGE, words=(*SWEEP[:4], "seed=0,1,2", *SWEEP[5:]))
    assert set(names) < {each["metadata"]["name"] for each in yaml.safe_load_all(larger)}


def test_a_manifest_is_handed_to_kubectl_whole(outside):
    status, out, err = sweep(outside, "--engine", "kueue", *IMAGE, "--apply", "--context", "mine")
    assert "python -m immunax.results gs://bucket/runs/s --watch runs=4" in err
    assert (status, out) == (0, "kubectl was asked\n")
    assert outside.log == [["kubectl", "--context=mine", "apply", "-f", "-"]]
    assert len(list(yaml.safe_load_all(outside.given[0]))) == 4
    outside.scenario(fail=[0, None], failure=[1, "", 'error: context "mine" does not exist'])
    status, _, err = sweep(outside, "--engine", "kueue", *IMAGE, "--apply", "--context", "mine")
    assert (status, err.splitlines()[-1]) == (
        4,
        'error: kubectl --context=mine apply: error: context "mine" does not exist',
    )


def test_slurm_gets_an_array_over_the_lines(outside, tmp_path):
    lines = tmp_path / "lines"
    status, out, _ = sweep(outside, "--engine", "slurm", "--at-once", "16", "--lines", lines, "--apply")
    assert (status, out) == (0, "sbatch was asked\n")
    script = str(ROOT / "tpu" / "slurm.sbatch")
    assert outside.log == [["sbatch", "--array=1-4%16", "--job-name=s1", script, str(lines)]]
    assert len(lines.read_text().splitlines()) == 4


def test_hosts_of_ones_own_need_no_type_of_slice_and_no_bucket(outside, tmp_path):
    words = ["mesh=fsdp" if word == "mesh=v5e_16" else word for word in SWEEP if word != OUT]
    flags = ("--unchecked", "--engine", "slurm", "--lines", tmp_path / "lines", "--apply")
    status, _, err = outside.launch("sweep", "s1", *flags, "--", *words, "outputs=/shared/runs")
    assert status == 0, err
    assert outside.log[0][:2] == ["sbatch", "--array=1-4"]
    status, _, err = outside.launch(
        "sweep", "s1", "--unchecked", "--engine", "ray", "--", *words, "outputs=/shared/runs"
    )
    assert (status, "own disk" in err) == (2, True)


def test_ray_gets_the_lines_and_the_type_of_slice_and_nothing_of_the_checkout(outside):
    flags = ("--engine", "ray", "--apply", "--address", "http://head:8265", "--env", "WORD=a b", "--at-once", "3")
    status, _, err = sweep(outside, *flags)
    assert status == 0, err
    (folder,) = [word.partition("=")[2] for word in outside.log[0] if word.startswith("--working-dir=")]
    assert not Path(folder).exists()
    uploaded = json.loads((outside.home / "uploaded.json").read_text())
    assert uploaded == {"lines": sweep(outside)[1], "ray_runs.py": (ROOT / "tpu" / "ray_runs.py").read_text()}
    assert outside.log == [
        [
            *(
                "ray",
                "job",
                "submit",
                "--address=http://head:8265",
                "--submission-id=s1",
                "--no-wait",
                '--runtime-env-json={"env_vars": {"IMMUNAX_CACHE": "gs://bucket/cache", "WORD": "a b"}}',
                f"--working-dir={folder}",
            ),
            *("--", "python", "ray_runs.py", "lines", "v5litepod-16", "4", "4", "3"),
        ]
    ]


def test_what_an_engine_would_pass_over_is_refused(outside):
    status, _, err = sweep(outside, "--engine", "ray", "--slices", "2")
    assert (status, "--slices: Ray gives each run one slice" in err) == (2, True)
    for engine in ("slurm", "lines"):
        status, _, err = sweep(outside, "--engine", engine, "--env", "WORD=1")
        assert (status, f"--env: --engine {engine} hands no environment on" in err) == (2, True)
    for engine, said in (
        ("kueue", "Kueue has as many at a time as its queue"),
        ("lines", "--engine lines starts none"),
    ):
        status, _, err = sweep(outside, "--engine", engine, *IMAGE, "--at-once", "4")
        assert (status, f"--at-once: {said}" in err) == (2, True)
    for engine in ("kueue", "lines", "ray"):
        status, _, err = sweep(outside, "--engine", engine, *IMAGE, "--lines", "s1.lines")
        assert (status, f"--lines: --engine {engine} reads no file" in err) == (2, True)
    assert outside.log == []


@pytest.mark.parametrize(
    ("flags", "clock"),
    [
        (("kueue", *IMAGE), "as many at a time as the engine has room for"),
        (("ray",), "as many at a time as the engine has room for"),
        (("ray", "--at-once", "3"), "4 hours on the clock with 3 at a time"),
    ],
)
def test_hours_on_the_clock_are_told_where_the_sweep_says_how_many_run_at_a_time(outside, flags, clock):
    status, _, err = sweep(outside, "--hours", "2", "--engine", *flags)
    assert (status, f"; {clock}\n" in err) == (0, True), err


def test_the_machines_of_a_run_share_a_cache_on_its_bucket_or_the_users_own(outside):
    def caches(*flags):
        status, out, err = sweep(outside, "--engine", "kueue", *IMAGE, *flags)
        assert status == 0, err
        pods = [each["spec"]["replicatedJobs"][0]["template"]["spec"]["template"] for each in yaml.safe_load_all(out)]
        every = [pod["spec"]["containers"][0]["env"] for pod in pods]
        return {each["value"] for env in every for each in env if each["name"] == "IMMUNAX_CACHE"}

    assert caches() == {"gs://bucket/cache"}
    assert caches("--env", "IMMUNAX_CACHE=/shared/cache") == {"/shared/cache"}


@pytest.mark.parametrize("engine", ["slurm", "ray", "kueue"])
def test_a_dry_run_of_an_engine_prints_its_runs_and_its_call_and_writes_nothing(outside, tmp_path, engine):
    lines = tmp_path / "lines"
    file = ("--lines", lines) if engine == "slurm" else ()
    status, out, _ = sweep(outside, "--engine", engine, *file, *IMAGE, "--apply", "--dry-run")
    assert status == 0
    assert out.splitlines()[-1].split()[0] == {"slurm": "sbatch", "ray": "ray", "kueue": "kubectl"}[engine]
    assert outside.log == []
    assert not lines.exists()


@pytest.mark.parametrize(("program", "engine"), [("sbatch", "slurm"), ("ray", "ray"), ("kubectl", "kueue")])
def test_an_engine_that_fails_or_is_not_there_is_one_line(on_path, tmp_path, monkeypatch, program, engine):
    monkeypatch.chdir(tmp_path)
    flags = ("--engine", engine, *IMAGE, "--apply")
    on_path.scenario(fail=[0, None], failure=[1, "", "error: no such partition"])
    status, _, err = sweep(on_path, *flags)
    assert status == 4
    assert err.splitlines()[-1].endswith("error: no such partition")
    (on_path.home / "bin" / program).unlink()
    monkeypatch.setenv("PATH", str(on_path.home / "bin"))
    status, _, err = sweep(on_path, *flags)
    assert (status, err.splitlines()[-1].startswith(f"error: {program} is not on PATH")) == (2, True)


def test_xpk_gets_a_command_that_its_signal_reaches_and_that_arrives_as_it_was_written(outside):
    job = ("immunax.train", "mesh=v5e_256", "+defense=tar", LORA, 'run="it\'s"', OUT)
    flags = (*FLAGS, *IMAGE, "--cluster", "c1", "--env", "WORD=two words", "--slices", "2")
    status, out, err = outside.launch("xpk", "pod1", *flags, "--", *job)
    assert (status, out) == (0, "xpk was asked\n")
    (argv,) = outside.log
    assert argv[:-1] == [
        *(
            "xpk",
            "workload",
            "create",
            "--workload=pod1",
            "--cluster=c1",
            "--zone=us-west4-a",
            "--tpu-type=v5litepod-256",
        ),
        *("--num-slices=2", "--docker-image=registry/immunax:1", "--max-restarts=100"),
        *("--termination-grace-period-seconds=120", "--env=IMMUNAX_CACHE=gs://bucket/cache", "--env=WORD=two words"),
    ]
    command = argv[-1].removeprefix("--command=")
    assert command.startswith("exec ")
    assert shlex.split(command)[1:] == ["python", "-m", *job]
    assert "xpk workload delete --workload=pod1 --cluster=c1" in err
    status, _, err = outside.launch("xpk", "pod1", *flags, "--env", 'WORD=a "b"', "--", *job)
    assert (status, err.splitlines()[-1].startswith("error: --env WORD: xpk cannot hand on")) == (2, True)
    outside.scenario(fail=[0, None], failure=[1, "", "[XPK] cluster c1 was not found"])
    status, _, err = outside.launch("xpk", "pod1", *flags, "--", *job)
    assert (status, err.splitlines()[-1]) == (4, "error: xpk workload create: [XPK] cluster c1 was not found")


def test_a_queue_is_printed_for_a_type_alone(outside):
    flags = ("--type", "v5litepod-256", "--at-once", "2", "--on-demand")
    status, out, _ = outside.launch("kueue", "q", *flags)
    assert status == 0
    flavor, cluster, _ = yaml.safe_load_all(out)
    assert "cloud.google.com/gke-spot" not in flavor["spec"]["nodeLabels"]
    assert cluster["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]["nominalQuota"] == 512
