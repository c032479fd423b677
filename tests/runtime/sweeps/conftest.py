import runpy
import sys

import absl.logging
import pytest
import sweeping

from immunax.runtime import signals
from immunax.runtime.sweeps import outcome


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs the command: its exit status, and what it said."""
    sweeping.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signals, "end", sys.exit)
    # Hydra closes every handler of logs, and absl's then closes the stream that it was imported with, which is pytest's.
    monkeypatch.setattr(absl.logging.PythonHandler, "close", lambda handler: None)

    def run(*overrides):
        monkeypatch.setattr(sys, "argv", ["program.py", *overrides])
        outcome._files.cache_clear()  # a line of its own is a process of its own
        try:
            runpy.run_path("program.py", run_name="__main__")
        except SystemExit as end:
            return end.code, capfd.readouterr().err
        return 0, capfd.readouterr().err

    return run


@pytest.fixture
def sweep(command):
    """Runs a sweep: its exit status, and what it said."""
    return lambda *overrides: command("-m", "defense=tar", "run=one", *overrides)
