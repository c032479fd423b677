"""A model on its way to a Hub and back, by the commands as a user runs them."""

import shutil
import subprocess
import sys

import certified
import pytest
import stub_hub
import tiny_model
from processes import SMALL, environment
from stub_hub import Hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model and a certificate of it, made by hand."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model.write(folder / "model")
    certified.of_files(folder / "certificate", folder / "model")
    return folder


@pytest.fixture(scope="module")
def hub():
    with stub_hub.opened(Hub()) as hub:
        yield hub


@pytest.fixture(scope="module")
def run(home, hub):
    """Runs a command where the Hub is the one of this test: its status, what it printed and its errors."""
    variables = {**environment(home, 1), "HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hf")}
    variables |= {"HF_TOKEN": stub_hub.TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def run(module, *arguments, **more):
        # A process of its own: the Hub's client reads the address once, when it is imported.
        command = [sys.executable, "-m", f"immunax.{module}", *arguments]
        done = subprocess.run(command, cwd=home, env={**variables, **more}, text=True, capture_output=True)
        assert stub_hub.TOKEN not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def pushed(run):
    """What the push of the model has printed."""
    status, out, err = run("push", "model", "repo=owner/name", "certificate=certificate", "license=apache-2.0")
    assert status == 0, err
    return out


def test_a_model_is_sent_verified_and_attacked_by_its_name_on_the_hub(home, pushed, run):
    assert "sent to owner/name" in pushed.splitlines()[-1]
    shutil.move(home / "model", home / "elsewhere")
    try:
        status, out, err = run("verify", "owner/name")
        assert status == 0, err
        assert "passed       weights: " in out
        assert "passed       folder: it holds nothing else" in out
        short = (
            "attack.samples=4",
            "attack.tuning.epochs=1",
            "attack.tuning.batch_size=4",
            "attack.tuning.max_length=256",
        )
        small = ("probes.prompts=2" if each.startswith("probes.prompts") else each for each in SMALL[1:])
        status, _, err = run("attack", "model=owner/name", "+attack=harmful_sft", "run=pushed", *small, *short)
        assert status == 0, err
        assert (home / "outputs" / "pushed" / "manifest.json").is_file()
    finally:
        shutil.move(home / "elsewhere", home / "model")


def test_a_model_that_was_changed_on_the_hub_fails_its_check(hub, pushed, run):
    commit = hub.repos["owner/name"].branches["main"][-1]
    changed = {**commit.files, "config.json": commit.files["config.json"] + b" "}
    hub.repos["owner/name"].branches["changed"] = [stub_hub.Commit(changed)]
    status, out, _ = run("verify", "owner/name@changed")
    assert status == 1
    assert "failed       weights: config.json is not what was certified" in out


def test_a_model_of_the_hub_without_a_certificate_is_told(hub, run):
    hub.repos["owner/plain"] = stub_hub.Repo()
    status, _, err = run("verify", "owner/plain")
    assert status == 2
    assert "has no certificate/certificate.json" in err
