import shutil
import signal
import subprocess
import sys
import time

import buckets
import processes
import pytest
import tiny_model
from processes import TRAIN

from immunax.runtime import bucket

LONG = ("trainer.steps=12", "trainer.checkpoint_every=2")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with buckets.served(tmp_path_factory.mktemp("served")) as url:
        yield url


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


def test_a_run_in_a_bucket_that_is_killed_goes_on_on_another_machine_and_ends_as_one_on_a_disk(home, server):
    runs = f"{buckets.made(server)}/runs"
    ended(home, *TRAIN, *LONG, "run=one")
    killed = start(home, *TRAIN, *LONG, f"outputs={runs}", "run=one")
    until_there(f"{runs}/one/checkpoints/2/commit_success.txt", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    shutil.rmtree(home / "machine")
    done = ended(home, *TRAIN, *LONG, f"outputs={runs}", "run=one")
    assert "resuming from step" in done.err
    assert not (home / "gs:").exists()
    for name in ("metrics.jsonl", "records.jsonl", "model/model.safetensors", "model/config.json"):
        assert bucket.read(f"{runs}/one/{name}") == (home / "outputs" / "one" / name).read_bytes(), name
    assert {".hydra/config.yaml", "attack.png", "manifest.json", "model/.complete"} <= bucket.below(
        f"{runs}/one"
    ).keys()
    assert f"the results are in {runs}/one" in ended(home, *TRAIN, *LONG, f"outputs={runs}", "run=one").err


def test_a_bucket_that_is_not_there_is_told_in_one_line_before_anything_is_computed(home, server):
    done = ended(home, *TRAIN, "outputs=gs://no-such-bucket/runs", status=2)
    assert done.err.strip().endswith("there is no bucket gs://no-such-bucket, or no such object in it; check the name.")
    assert "load data" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error")]) == 1
