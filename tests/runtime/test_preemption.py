import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from immunax.runtime import preemption as preemptions
from immunax.runtime.preemption import Preemption


def test_sigterm_raises_the_flag_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.stops(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.stops(0)
        assert preemption.signal_name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_interrupt_stops_at_once():
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert preemption.stops(0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_changes_nothing():
    with Preemption() as preemption:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert preemption.status() == 143


def test_a_signal_behind_the_last_step_ends_the_process_when_all_is_saved(capsys):
    saved = []

    def train():
        with Preemption() as preemption, ExitStack() as stack:
            stack.callback(saved.append, True)
            assert preemption.status() is None
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match="143"):
        train()
    assert saved
    assert capsys.readouterr().err.startswith("stopped by SIGTERM: what is finished is kept")


ASKED = """
import os, signal, sys
from immunax.runtime.signals import Leaving
with Leaving():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        print("closing", flush=True)
        signal.raise_signal(signal.SIGTERM)
        print("still closing", flush=True)
        signal.raise_signal(signal.SIGINT)
        print("too late")
"""


def test_who_does_not_wait_for_what_is_closed_presses_again():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "closing\nstill closing\n")
    assert re.fullmatch(r"stopped by SIGINT: .*\n", done.stderr)


IMPORTED = """
from immunax.runtime.signals import Leaving, tells
tells(lambda status: print("told", status, flush=True))
with Leaving():
    try:
        import stopped
    except BaseException as error:
        raise ImportError("a library's own") from error
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_what_a_library_makes_of_a_signal_in_its_import_is_no_error(tmp_path, name, status):
    (tmp_path / "stopped.py").write_text(f"import signal\nsignal.raise_signal(signal.{name})\n")
    where = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": where}
    )
    assert (done.returncode, done.stdout) == (status, f"told {status}\n")
    assert re.fullmatch(rf"stopped by {name}: .*\n", done.stderr)


COLLECTED = """
import gc, signal
from immunax.runtime.signals import Leaving, tells
tells(lambda status: print("told", status, flush=True))
with Leaving():
    gc.callbacks.append(lambda phase, about: signal.raise_signal(signal.SIGTERM))
    gc.collect()
    print("goes on")
"""


def test_a_signal_that_comes_while_garbage_is_collected_is_not_lost():
    done = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "told 143\n")
    assert re.fullmatch(r"stopped by SIGTERM: .*\n", done.stderr)


WITHIN_C = """
import ctypes, threading
from immunax.runtime.signals import Leaving, tells
tells(lambda status: print("told", status, flush=True))
system, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with Leaving():
    with Leaving():
        pass
    threading.Timer(0.5, lambda: print("at work", flush=True)).start()
    for _ in range(2):
        system.pthread_mutex_lock(lock)
"""
"""Waits for itself, in C, where a signal interrupts nothing."""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_process_that_is_within_a_library(number, status):
    started = subprocess.Popen(
        [sys.executable, "-c", WITHIN_C], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout.readline() == "at work\n"
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (status, f"told {status}\n")
    assert re.fullmatch(r"stopped by SIG\w+: .*\n", err)


FORKING = """
import os, signal, time
from immunax.runtime import overdue
from immunax.runtime.preemption import Preemption
from immunax.runtime.signals import Leaving
overdue.SECONDS = 0.1
signal.signal(signal.SIGUSR1, lambda *_: None)
with Leaving():
    signal.raise_signal(signal.SIGUSR1)
    child = os.fork()
    if child == 0:
        time.sleep(60)
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
    time.sleep(0.5)
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGTERM)
        assert preemption.status() == 143
    time.sleep(0.5)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.5)
    print("goes on")
"""


def test_a_signal_to_a_forked_process_or_to_one_that_saves_first_or_of_another_kind_ends_nothing():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_whose_imports_are_still_under_way_ends_in_one_line(number, status):
    started = subprocess.Popen([sys.executable, "-v", "-m", "immunax.train"], stderr=subprocess.PIPE, text=True)
    for line in started.stderr:
        if "import 'jax" in line:
            started.send_signal(number)
            break
    # The interpreter tells of each module, which is no word of the command's.
    said = [line for line in started.stderr if re.match(r"stopped|Traceback|error", line)]
    assert started.wait() == status
    assert len(said) == 1


def test_outside_the_main_thread_the_flag_stays_down():
    seen = []

    def work():
        with Preemption() as preemption:
            seen.append(preemption.stops(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_of_several_processes_one_that_is_asked_stops_all_behind_the_same_step(monkeypatch):
    told = []

    class Request:
        def make(self, value):
            told.append(value)

        def found(self):
            return told[0] if told else None

    monkeypatch.setattr(preemptions.together, "processes", lambda: 2)
    monkeypatch.setattr(preemptions.together, "Request", Request)
    with Preemption() as one, Preemption() as other:
        assert not other.stops(5)
        one.signal_name = "SIGTERM"
        assert not one.stops(5)
        other.signal_name = "SIGINT"  # a little later, by whoever ends the whole job
        assert [other.stops(step) for step in (6, 7, 8)] == [False, False, True]
        assert [one.stops(step) for step in (6, 7, 8)] == [False, False, True]
        monkeypatch.setattr(preemptions.together, "gathered", lambda name: ["SIGTERM", "SIGINT"])
        assert (one.status(), other.status()) == (143, 143)
