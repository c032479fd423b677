"""The scripts that run on machines: for real, with stubs of what they call."""

import json
import os
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from tpu.slices import ROOT

START = ROOT / "tpu" / "start.sh"
SECONDS = 20


@pytest.mark.parametrize("script", ["start.sh", "ssh.sh", "slurm.sbatch"])
def test_shellcheck_finds_nothing(script):
    done = subprocess.run(["shellcheck", str(ROOT / "tpu" / script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


class Machine:
    """A machine with the code, and a python that does what a file says."""

    def __init__(self, home, bin_):
        self.home, self.bin = home, bin_
        self.code = home / "code"
        (self.code / "tpu").mkdir(parents=True)
        (self.code / "tpu" / "start.sh").write_text(START.read_text())
        (self.code / "uv.lock").write_text("locked")
        (self.code / ".venv" / "bin").mkdir(parents=True)
        self.environment = {
            "PATH": f"{bin_}:/usr/bin:/bin",
            "HOME": str(home),
            "IMMUNAX_WORKER": "w-0",
            "IMMUNAX_AGAIN_SECONDS": "0",
            "STUB_HOME": os.environ["STUB_HOME"],
        }

    def python(self, text):
        self.program(self.code / ".venv" / "bin" / "python", text)

    @staticmethod
    def program(path, text):
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def call(self, *words, **more):
        argv = ["bash", str(self.code / "tpu" / "start.sh"), *words]
        return subprocess.run(
            argv, env=self.environment | more, cwd=self.home, capture_output=True, text=True, timeout=SECONDS
        )

    def ended(self):
        """The status of the command, as followed from the first line; and its log."""
        lines = self.call("follow", "1", "mark").stdout.splitlines()
        lines.remove("immunax: mark now")
        assert lines[-1].startswith("immunax: mark ended ")
        assert [line.partition("\t")[0] for line in lines[:-1]] == [str(each + 1) for each in range(len(lines) - 1)]
        status, *self.given_up = lines[-1].removeprefix("immunax: mark ended ").split()
        return int(status), [line.partition("\t")[2] for line in lines[:-1]]


@pytest.fixture
def machine(on_path, tmp_path):
    return Machine(tmp_path / "machine", on_path.home / "bin")


def test_a_command_runs_with_its_variables_and_its_end_is_told(machine):
    machine.python('printf "%s\\n" "$WORD" "$JAX_COORDINATOR_PORT" "$@"; exit 2')
    done = machine.call("run", "WORD=two words", "--", "python", "-m", "immunax.train", "a={b: c, d: 8}")
    assert (done.returncode, done.stdout) == (0, "immunax: started 0\n")
    assert machine.ended() == (2, ["two words", "8476", "-m", "immunax.train", "a={b: c, d: 8}"])
    assert machine.call("state").stdout == "worker 0: ended with 2\n"


@pytest.mark.parametrize(("first", "times"), [(143, 2), (142, 2), (137, 2), (134, 2), (2, 1), (1, 1), (130, 1), (0, 1)])
def test_what_was_stopped_or_killed_or_lost_a_process_starts_again_and_nothing_else(machine, first, times):
    machine.python(f"echo run >>{machine.home}/runs; [ $(wc -l <{machine.home}/runs) -gt 1 ] || exit {first}")
    machine.call("run", "--", "python")
    status, log = machine.ended()
    assert len((machine.home / "runs").read_text().splitlines()) == times
    assert status == (0 if times == 2 else first)
    assert log == ([f"immunax: ended with {first}, starting again (1) in 0 s"] if times == 2 else [])


def test_the_log_is_on_the_bucket_at_every_start_again_and_at_the_end(machine, on_path):
    machine.python(f"echo run >>{machine.home}/runs; [ $(wc -l <{machine.home}/runs) -gt 1 ] || exit 143")
    machine.call("run", "IMMUNAX_LOGS=gs://bucket/logs/pod1", "--", "python")
    assert machine.ended()[0] == 0
    assert [each[-1] for each in on_path.calls("storage cp")] == ["gs://bucket/logs/pod1/w-0.log"] * 2


def test_what_ends_so_again_and_again_is_given_up(machine):
    machine.python("exit 142")
    machine.call("run", "--", "python", IMMUNAX_AGAIN_MOST="3")
    status, log = machine.ended()
    assert (status, len(log), machine.given_up) == (142, 3, ["given", "up"])
    assert machine.call("rerun", "--", "python", IMMUNAX_AGAIN_MOST="3").stdout == "immunax: started 0\n"
    machine.python("exit 0")
    machine.call("stop")
    machine.call("run", "--", "python")
    assert (machine.ended()[0], machine.given_up) == (0, [])


def test_what_lasts_each_time_is_given_up_too_in_the_end(machine):
    machine.python("exit 142")
    machine.call("run", "--", "python", IMMUNAX_AGAIN_MOST="1", IMMUNAX_LASTING="0")
    status, log = machine.ended()
    assert (status, len(log), machine.given_up) == (142, 10, ["given", "up"])


def test_what_has_lasted_does_not_count_among_those_that_end_again_and_again(machine):
    machine.python(f"echo run >>{machine.home}/runs; [ $(wc -l <{machine.home}/runs) -gt 5 ] || exit 143")
    machine.call("run", "--", "python", IMMUNAX_AGAIN_MOST="1", IMMUNAX_LASTING="0")
    assert machine.ended()[0] == 0


def test_a_command_is_alive_in_no_other_boot_of_its_machine(machine):
    machine.python(f"echo run >>{machine.home}/runs; exec sleep 60")
    machine.call("run", "--", "python")
    while not (machine.home / "runs").exists():
        time.sleep(0.02)
    assert machine.call("state").stdout.startswith("worker 0: running")
    pid = int((machine.home / "immunax" / "job" / "pid").read_text())
    (machine.home / "immunax" / "job" / "boot").write_text("another\n")
    assert machine.call("state").stdout == "worker 0: nothing runs\n"
    assert machine.ended() == (142, [])
    os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "said"), [("exit 0", "left"), ("exit 2", "left"), ("exit 130", "left"), ("kill -9 $PPID", "started")]
)
def test_where_a_command_is_gone_it_is_started_again_with_the_others_and_where_it_has_ended_it_is_not(
    machine, end, said
):
    machine.python(end)
    machine.call("run", "--", "python")
    while machine.call("state").stdout.startswith("worker 0: running"):
        time.sleep(0.02)
    assert machine.call("rerun", "--", "python").stdout == f"immunax: {said} 0\n"


def test_where_somebody_has_stopped_a_command_it_is_not_started_with_the_others(machine):
    machine.python(f"trap 'exit 143' TERM; echo run >>{machine.home}/runs; sleep 60 & wait")
    machine.call("run", "--", "python")
    while not (machine.home / "runs").exists():
        time.sleep(0.02)
    assert machine.call("rerun", "--", "python").stdout == "immunax: running 0\n"
    machine.call("stop")
    assert machine.call("rerun", "--", "python").stdout == "immunax: left 0\n"


def test_a_second_start_of_the_same_command_does_nothing_and_of_another_one_is_refused(machine):
    machine.python(f"echo run >>{machine.home}/runs; sleep 60")
    machine.call("run", "--", "python", "one")
    again = machine.call("run", "--", "python", "one")
    other = machine.call("run", "--", "python", "two")
    assert (again.returncode, again.stdout) == (0, "immunax: running 0\n")
    assert other.returncode == 2
    assert other.stdout.startswith("immunax: refused: worker 0 runs another command")
    machine.call("stop")
    assert (machine.home / "runs").read_text() == "run\n"


def test_stop_hands_sigterm_to_the_command_which_saves_and_is_not_started_again(machine):
    machine.python(f"trap 'echo saved; exit 143' TERM; echo run >>{machine.home}/runs; sleep 60 & wait")
    machine.call("run", "--", "python")
    while not (machine.home / "runs").exists():
        time.sleep(0.02)
    stopped = machine.call("stop")
    assert stopped.stdout == "worker 0: ended with 143\n"
    assert machine.ended() == (130, ["saved"])
    assert (machine.home / "runs").read_text() == "run\n"


def test_a_machine_that_goes_down_has_the_command_save_and_says_143(machine):
    machine.python(f"trap 'sleep 0.2; echo saved; exit 143' TERM; echo run >>{machine.home}/runs; sleep 60 & wait")
    machine.call("run", "--", "python")
    while not (machine.home / "runs").exists():
        time.sleep(0.02)
    os.kill(int((machine.home / "immunax" / "job" / "pid").read_text()), signal.SIGTERM)
    assert machine.ended() == (143, ["saved"])


def test_what_is_killed_with_no_word_is_said_to_be_lost(machine):
    machine.python(f"echo run >>{machine.home}/runs; exec sleep 60")
    machine.call("run", "--", "python")
    while not (machine.home / "runs").exists():
        time.sleep(0.02)
    pid = int((machine.home / "immunax" / "job" / "pid").read_text())
    os.killpg(pid, signal.SIGKILL)
    assert machine.ended() == (142, [])


def test_packages_are_installed_once_and_kept_on_the_bucket_by_the_first_machine(machine, on_path):
    machine.program(machine.bin / "uv", f'echo "$@" >>{machine.home}/uv-calls; mkdir -p "$UV_CACHE_DIR"')
    for _ in range(2):
        done = machine.call("install", "gs://bucket/wheels")
        assert (done.returncode, done.stdout) == (0, "immunax: installed 0\n"), done.stderr
    assert (
        machine.home / "uv-calls"
    ).read_text() == "sync --frozen --no-dev --no-group docs --extra tpu --extra bucket --quiet\n"
    (kept,) = on_path.calls("storage cp - gs://bucket/wheels/")
    assert kept[-1] == "--if-generation-match=0"
    other = Machine(machine.home / "other", machine.bin)
    assert other.call("install", "gs://bucket/wheels", IMMUNAX_WORKER="w-3").stdout == "immunax: installed 3\n"
    assert len(on_path.calls("storage cp - gs://bucket/wheels/")) == 1
    (machine.code / "uv.lock").write_text("locked otherwise")
    machine.call("install", "gs://bucket/wheels")
    assert len((machine.home / "uv-calls").read_text().splitlines()) == 3


def test_a_lock_file_that_cannot_be_installed_is_no_success(machine):
    machine.program(machine.bin / "uv", "echo no such package >&2; exit 1")
    done = machine.call("install", "gs://bucket/wheels")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no such package" in done.stderr


def test_start_says_what_it_takes(machine):
    done = machine.call("begin")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: start.sh install")


class Hosts:
    """Hosts of a list, which are folders of this machine."""

    def __init__(self, home, bin_):
        self.home = home
        (home / ".venv" / "bin").mkdir(parents=True)
        (home / "tpu").mkdir()
        (home / "tpu" / "start.sh").write_text(START.read_text())
        self.environment = {
            **os.environ,
            "PATH": f"{bin_}:/usr/bin:/bin",
            "IMMUNAX_CHECKOUT": str(home),
            "IMMUNAX_HOME": str(home / "hosts"),
            "IMMUNAX_AGAIN_SECONDS": "0",
            "IMMUNAX_AGAIN_MOST": "3",
            "IMMUNAX_TRIES": "3",
        }

    def python(self, text):
        Machine.program(self.home / ".venv" / "bin" / "python", text)

    def start(self, *words):
        argv = ["bash", str(ROOT / "tpu" / "ssh.sh"), *words]
        return subprocess.Popen(argv, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, *words):
        process = self.start(*words)
        out, err = process.communicate(timeout=SECONDS)
        return process.returncode, out, err

    def file(self, index, name):
        return self.home / "hosts" / str(index) / name


@pytest.fixture
def hosts(on_path, tmp_path):
    return Hosts(tmp_path / "hosts", on_path.home / "bin")


ODD = ("immunax.train", "a={b: c, d: 8}", 'run="it\'s"')


def test_plain_ssh_starts_a_process_on_every_host_and_tells_each_its_number(hosts, on_path):
    hosts.python('echo "$@"; printf "%s\\n" "$@" >seen')
    status, out, err = hosts.call("me@one", "two", "three", "--", *ODD)
    assert status == 0, err
    assert out.count("immunax.train") == 1  # of the first host alone
    for index in range(3):
        where = ["distributed.coordinator=one:8476", "distributed.processes=3", f"distributed.process_id={index}"]
        while not hosts.file(index, "seen").exists():
            time.sleep(0.02)
        assert hosts.file(index, "seen").read_text().splitlines() == ["-m", *ODD, *where]
    assert [argv[7] for argv in on_path.log] == ["me@one", "two", "three", "me@one"]


@pytest.mark.parametrize("ended", [2, 1])
def test_plain_ssh_ends_with_the_status_of_the_first_host(hosts, ended):
    hosts.python(f"echo run >>runs; [ $(wc -l <runs) -gt 1 ] && exit {ended}; exit 142")
    status, out, _ = hosts.call("one", "two", "--", "immunax.train")
    assert (status, out) == (ended, "immunax: ended with 142, starting again (1) in 0 s\n")


def test_plain_ssh_ends_with_the_status_of_what_its_host_gives_up(hosts):
    hosts.python("exit 142")
    status, out, _ = hosts.call("one", "--", "immunax.train")
    assert (status, out.count("starting again")) == (142, 3)


def test_plain_ssh_connects_again_where_the_log_is_cut_and_prints_no_line_twice(hosts, on_path):
    hosts.python("echo one; sleep 1; echo two")
    ssh = on_path.home / "bin" / "ssh"
    Machine.program(ssh, 'case ${*: -1} in *follow*) timeout 0.5 bash -c "${*: -1}" ;; *) bash -c "${*: -1}" ;; esac')
    status, out, err = hosts.call("one", "--", "immunax.train")
    assert (status, out) == (0, "one\ntwo\n"), err
    Machine.program(ssh, 'case ${*: -1} in *follow*) exit 255 ;; *) bash -c "${*: -1}" ;; esac')
    status, _, err = hosts.call("one", "--", "immunax.train")
    assert status == 4
    assert "one does not say how the command stands" in err


def test_plain_ssh_has_a_host_that_is_gone_start_again_with_the_first(hosts):
    hosts.python(
        'echo run >>runs; [ "$(wc -l <runs)" = 1 ] || exit 0\n'
        "case $PWD in */1) kill -9 $PPID; touch gone; exit 0 ;; esac\n"
        "until [ -f ../1/gone ]; do sleep 0.02; done; exit 142"
    )
    status, out, err = hosts.call("one", "two", "--", "immunax.train")
    assert (status, out) == (0, "immunax: ended with 142, starting again (1) in 0 s\n"), err
    while hosts.file(1, "runs").read_text() != "run\nrun\n":
        time.sleep(0.02)


def test_plain_ssh_says_which_host_did_not_start(hosts, on_path):
    hosts.python("sleep 60")
    Machine.program(on_path.home / "bin" / "ssh", 'case $* in *two*) exit 255 ;; *) bash -c "${*: -1}" ;; esac')
    status, _, err = hosts.call("one", "two", "--", "immunax.train")
    assert status == 4
    assert "error: two did not start it; 1 hosts before it did" in err
    Machine.program(on_path.home / "bin" / "ssh", 'bash -c "${*: -1}"')
    os.kill(int(hosts.file(0, "job/pid").read_text()), signal.SIGTERM)


def test_plain_ssh_hands_a_signal_to_every_host_which_saves_and_does_not_start_again(hosts):
    hosts.python("trap 'echo saved; exit 143' TERM; echo run >>runs; sleep 60 & wait")
    process = hosts.start("one", "two", "--", "immunax.train")
    while not all(hosts.file(index, "runs").exists() for index in range(2)):
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 143, err
    for index in range(2):
        assert hosts.file(index, "runs").read_text() == "run\n"
        assert hosts.file(index, "job/log").read_text() == "saved\n"


def test_plain_ssh_prints_its_calls_and_refuses_half_a_command(hosts, on_path):
    status, out, err = hosts.call("--dry-run", "one", "two", "--", *ODD)
    assert status == 0
    assert [line.count("start.sh") for line in (err + out).splitlines()] == [1, 1, 1]
    assert on_path.log == []
    for words in ((), ("one",), ("one", "--"), ("--", "immunax.train"), ("--frob", "one", "--", "x")):
        status, _, err = hosts.call(*words)
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith("error: ")


def sbatch(on_path, tmp_path, task, python):
    lines = tmp_path / "lines"
    lines.write_text("immunax.train seed=0\nimmunax.train 'a={b: c, d: 8}' seed=1\n")
    Machine.program(on_path.home / "bin" / "srun", 'while [[ $1 == -* ]]; do shift; done; exec "$@"')
    Machine.program(tmp_path / "python", python)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": "7"}
    environment["IMMUNAX_PYTHON"] = str(tmp_path / "python")
    argv = ["bash", str(ROOT / "tpu" / "slurm.sbatch"), str(lines)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SECONDS)


def test_an_element_of_a_slurm_array_runs_its_own_line(on_path, tmp_path):
    done = sbatch(on_path, tmp_path, 2, 'printf "%s\\n" "$@"')
    assert (done.returncode, done.stdout.splitlines()) == (0, ["-m", "immunax.train", "a={b: c, d: 8}", "seed=1"])
    assert sbatch(on_path, tmp_path, 3, "exit 0").returncode == 2


@pytest.mark.parametrize(("status", "again"), [(143, True), (142, True), (2, False), (1, False), (0, False)])
def test_an_element_that_was_stopped_is_queued_again_and_one_that_failed_is_not(on_path, tmp_path, status, again):
    done = sbatch(on_path, tmp_path, 1, f"exit {status}")
    assert done.returncode == (0 if again else status)
    assert requeued(on_path) == ("7_1" if again else None)


def requeued(on_path):
    path = on_path.home / "requeued.json"
    return json.loads(path.read_text()) if path.exists() else None


ENDING = "JobState=COMPLETING Reason=None Dependency=(null)\n   PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime="


# As slurmctld shows a job whose script lives for some seconds more.
@pytest.mark.parametrize(
    ("state", "shown", "again"),
    [
        ("CANCELLED", f"{ENDING}None", None),
        ("CANCELLED", "JobState=COMPLETING Reason=None Dependency=(null)", None),
        ("CANCELLED", "", None),
        ("PREEMPTED", f"{ENDING}2026-01-01T00:00:01", "7_1"),
        ("TIMEOUT", f"{ENDING}None".replace("Reason=None", "Reason=TimeLimit"), "7_1"),
    ],
)
def test_an_element_that_was_cancelled_stays_so_and_one_that_was_taken_as_it_saved_is_queued_again(
    on_path, tmp_path, state, shown, again
):
    on_path.scenario(job=[state, shown])
    done = sbatch(on_path, tmp_path, 1, "exit 143")
    assert (done.returncode, requeued(on_path)) == (0, again), done.stderr


def test_an_element_that_is_stopped_a_hundred_times_is_given_up(on_path, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "100")
    assert sbatch(on_path, tmp_path, 1, "exit 142").returncode == 142
    assert on_path.calls("scontrol") == []


def test_the_image_runs_the_command_itself_as_process_one():
    text = Path(ROOT, "tpu", "Dockerfile").read_text()
    assert 'ENTRYPOINT ["python", "-m"]' in text
    assert text.count("uv sync --frozen") == text.count("uv sync") == 2
    kept = Path(ROOT, "tpu", "Dockerfile.dockerignore").read_text().split()
    copied = {
        word
        for line in text.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {f"!{each}" for each in copied} <= set(kept)
    packages = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*packages["packages"], *packages["force-include"]} <= copied
