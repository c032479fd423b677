import json
import shutil
import signal
import subprocess
import sys
import time

import buckets
import processes
import pytest
import tiny_model
from logged import computed_lines
from processes import SMALL, TRAIN

from immunax.runtime import bucket

SHORT = (
    "attack.samples=10",
    "attack.tuning.epochs=2",
    "attack.tuning.probes=1",
    "attack.tuning.max_length=256",
)
LONG = ("trainer.steps=12", "trainer.checkpoint_every=2")


@pytest.fixture
def home(tmp_path):
    tiny_model.write(tmp_path / "model")
    return tmp_path


def start(home, *command):
    module, *arguments = command
    environment = {**processes.environment(home, 1), "XDG_CACHE_HOME": str(home / "machine")}
    return subprocess.Popen(
        [sys.executable, "-m", f"immunax.{module}", *arguments],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(home, *command, status=0):
    [done] = processes.ends([start(home, *command)])
    assert done.status == status, done.err
    return done


def until_there(address, process, seconds=120):
    end = time.monotonic() + seconds
    while bucket.about(address) is None:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_in_a_bucket_that_is_killed_goes_on_on_another_machine_and_ends_as_one_on_a_disk(home, bucket_server):
    runs = f"{buckets.made(bucket_server)}/runs"
    ended(home, *TRAIN, *LONG, "run=one")
    killed = start(home, *TRAIN, *LONG, f"outputs={runs}", "run=one")
    until_there(f"{runs}/one/checkpoints/2/commit_success.txt", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    shutil.rmtree(home / "machine")
    done = ended(home, *TRAIN, *LONG, f"outputs={runs}", "run=one")
    assert "resuming from step" in done.err
    assert not (home / "gs:").exists()
    for name in ("records.jsonl", "model/model.safetensors", "model/config.json"):
        assert bucket.read(f"{runs}/one/{name}") == (home / "outputs" / "one" / name).read_bytes(), name
    there, here = bucket.read(f"{runs}/one/metrics.jsonl"), (home / "outputs" / "one" / "metrics.jsonl").read_bytes()
    assert computed_lines(there) == computed_lines(here)
    assert {".hydra/config.yaml", "attack.png", "manifest.json", "model/.complete"} <= bucket.below(
        f"{runs}/one"
    ).keys()
    assert f"the results are in {runs}/one" in ended(home, *TRAIN, *LONG, f"outputs={runs}", "run=one").err


def test_a_bucket_that_is_not_there_is_told_in_one_line_before_anything_is_computed(home, bucket_server):
    done = ended(home, *TRAIN, "outputs=gs://no-such-bucket/runs", status=2)
    assert done.err.strip().endswith("there is no bucket gs://no-such-bucket, or no such object in it; check the name.")
    assert "load data" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error")]) == 1


@pytest.mark.slow
def test_two_processes_of_which_each_has_a_disk_of_its_own_meet_in_the_bucket_alone(home, bucket_server):
    place = buckets.made(bucket_server)
    command = (*TRAIN, "mesh.data=2", "mesh.fsdp=2", f"outputs={place}/runs")
    one = processes.alone(home, 4, *command, "run=one")
    assert one.status == 0, one.err
    disks = [{"XDG_CACHE_HOME": str(home / f"disk{index}"), "IMMUNAX_CACHE": f"{place}/cache"} for index in range(2)]
    started = processes.start(home, 2, *command, "run=two", variables=disks)
    until_there(f"{place}/runs/two/checkpoints/4/commit_success.txt", started[0], 300)
    started[1].send_signal(signal.SIGTERM)
    assert [each.status for each in processes.ends(started)] == [143, 143]
    shutil.rmtree(home / "disk0")
    found = processes.ends(processes.start(home, 2, *command, "run=two", variables=disks))
    assert [each.status for each in found] == [0, 0], "\n".join(each.err for each in found)
    assert "resuming from step" in found[0].err
    ours, theirs = (
        [json.loads(line) for line in computed_lines(bucket.read(f"{place}/runs/{run}/metrics.jsonl")).splitlines()]
        for run in ("one", "two")
    )
    assert [(each["phase"], each["step"]) for each in ours] == [(each["phase"], each["step"]) for each in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["values"] == pytest.approx(other["values"], rel=1e-5, abs=1e-6)
    subject = f"model={place}/runs/two"
    attack = ("attack", "+attack=harmful_sft", *(each for each in SMALL if not each.startswith("model=")), subject)
    found = processes.ends(
        processes.start(home, 2, *attack, *SHORT, f"outputs={place}/runs", "run=attack", "mesh.fsdp=4", variables=disks)
    )
    assert [each.status for each in found] == [0, 0], "\n".join(each.err for each in found)
