"""Programs outside as stubs: on PATH, or asked within the test's own process, which is quicker."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tpu_stub import answer

from tpu import calls, launch

PROGRAMS = ("gcloud", "git", "kubectl", "xpk", "sbatch", "ssh", "ray", "scontrol", "srun")
MOST_WAITS = 200

# A shell starts what runs in its background with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Outside:
    """What the launcher calls, and what it is answered."""

    def __init__(self, home, capfd):
        self.home, self._capfd = home, capfd
        self.waited = []

    def scenario(self, **parts):
        for name in ("log", "life.json", "lives.json", "follows.json", "made.json"):
            (self.home / name).unlink(missing_ok=True)
        (self.home / "scenario.json").write_text(json.dumps(parts))

    def _sleep(self, seconds):
        self.waited.append(seconds)
        assert len(self.waited) < MOST_WAITS, "it waits for ever"

    def launch(self, *argv):
        """Status, standard output and standard error of the launcher."""
        self.waited.clear()
        status = launch.main([str(word) for word in argv], self._sleep)
        out, err = self._capfd.readouterr()
        return status, out, err

    @property
    def log(self):
        """Arguments of each call so far."""
        path = self.home / "log"
        return [json.loads(line)[0] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def given(self):
        """Standard input of each call so far."""
        return [json.loads(line)[1] for line in (self.home / "log").read_text().splitlines()]

    def calls(self, *words):
        """The calls that have all the words, in their order."""
        return [argv for argv in self.log if all(word in " ".join(argv) for word in words)]


def install(folder, programs=PROGRAMS):
    folder.mkdir()
    stub = folder / ".stub"
    text = (Path(__file__).parent.parent / "tpu_stub.py").read_text()
    stub.write_text(f"#!{sys.executable} -SE\n{text}")
    stub.chmod(0o755)
    for program in programs:
        shutil.copy(stub, folder / program)


class Asked:
    """A stub within this process, as ``subprocess`` shows a program."""

    DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE

    @staticmethod
    def run(argv, input=None, **_):
        status, out, err = answer(list(argv), input or "")
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)

    class Popen:
        def __init__(self, argv, **_):
            self.returncode, out, err = answer(list(argv), "")
            self.stdout = io.StringIO(out)
            sys.stderr.write(err)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def terminate(self):
            pass


@pytest.fixture
def outside(on_path, monkeypatch):
    """The stubs, asked within this process."""
    monkeypatch.setattr(calls, "subprocess", Asked)
    return on_path


@pytest.fixture
def on_path(tmp_path, monkeypatch, capfd):
    """The stubs on PATH."""
    home = tmp_path / "outside"
    home.mkdir()
    install(home / "bin")
    monkeypatch.setenv("STUB_HOME", str(home))
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = Outside(home, capfd)
    found.scenario()
    return found
