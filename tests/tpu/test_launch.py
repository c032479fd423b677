"""The launcher against stubs of the programs that it calls: no network, no waiting."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from tpu import calls, tending
from tpu.calls import Calls
from tpu.slices import ROOT

LORA = "defense.attacker.lora={_target_: x, rank: 8}"
JOB = ("immunax.train", "mesh=v5e_16", "+defense=tar", "outputs=gs://bucket/runs", LORA, 'run="it\'s one"')
PLACE = ("--zone", "us-west4-a", "--poll", "0", "--tries", "3")
RUN = ("run", "pod1", *PLACE, "--bucket", "gs://bucket", "--unchecked")
DELETION = "gcloud alpha compute tpus queued-resources delete pod1 --zone=us-west4-a --force --quiet"
QUEUED = ["gcloud", "alpha", "compute", "tpus", "queued-resources"]


def run(outside, *flags, job=JOB):
    return outside.launch(*RUN, *flags, "--", *job)


def created(outside):
    return outside.calls("queued-resources create")[-1]


def kinds(outside):
    """The calls, a word each."""
    words = (
        "status",
        "rev-parse",
        "archive",
        "objects describe",
        "start.sh install",
        "start.sh run",
        "start.sh follow",
    )
    words += ("storage cp", "create", "delete", "describe")
    return [next(word for word in words if word in " ".join(argv)) for argv in outside.log]


def test_a_slice_without_a_command_takes_a_price_where_the_table_has_none(outside):
    flags = ("--zone", "mars-north1-a", "--type", "v5litepod-16")
    status, _, err = outside.launch("create", "pod1", *flags)
    assert (status, "give --price" in err) == (2, True)
    assert outside.log == []
    status, _, err = outside.launch("create", "pod1", *flags, "--price", "0.5")
    assert status == 0, err
    assert "$8.00 an hour" in err


def test_a_run_asks_for_a_slice_installs_starts_follows_and_gives_it_back(on_path):
    on_path.scenario(lives=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    status, out, err = run(on_path, "--spot")
    assert (status, out) == (0, "step 1\ndone\n")
    assert kinds(on_path) == [
        *("status", "rev-parse", "objects describe", "archive", "storage cp"),
        *("describe", "create", "describe", "describe", "describe"),
        *("start.sh install", "start.sh run", "start.sh follow", "delete"),
    ]
    assert created(on_path)[:-2] == [
        *(*QUEUED, "create", "pod1", "--zone=us-west4-a", "--node-id=pod1"),
        *("--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"),
        "--autocheckpoint-enabled",
    ]
    assert "waiting for resources" in err
    assert "still standing" not in err
    assert "$7.68 an hour" in err


@pytest.mark.parametrize(
    ("mesh", "flags", "expected"),
    [
        ("v5p_64", (), ["--node-id=pod1", "--accelerator-type=v5p-64", "--runtime-version=v2-alpha-tpuv5"]),
        (
            "v6e_64",
            ("--reserved", "--reservation", "mine", "--service-account", "me@project"),
            [
                *("--node-id=pod1", "--accelerator-type=v6e-64", "--runtime-version=v2-alpha-tpuv6e", "--reserved"),
                *("--reservation=mine", "--service-account=me@project"),
            ],
        ),
        (
            "v6e_256",
            ("--flex-start", "--run-duration", "24h", "--internal-ips"),
            [
                *("--node-id=pod1", "--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e"),
                *("--provisioning-model=flex-start", "--max-run-duration=24h", "--internal-ips"),
            ],
        ),
        (
            "v5e_256",
            ("--slices", "2", "--project", "mine"),
            [
                *("--project=mine", "--node-count=2", "--node-prefix=pod1", "--accelerator-type=v5litepod-256"),
                *("--runtime-version=v2-alpha-tpuv5-lite", "--autocheckpoint-enabled"),
            ],
        ),
    ],
)
def test_each_kind_of_slice_is_asked_for_by_its_own_arguments(outside, mesh, flags, expected):
    place = ("--zone", "us-east5-a", "--poll", "0")
    job = ("immunax.train", f"mesh={mesh}", "+defense=tar", "outputs=gs://bucket/runs")
    outside.scenario(machines=64)
    status, _, err = outside.launch("run", "pod1", *place, "--bucket", "gs://bucket", "--unchecked", *flags, "--", *job)
    assert status == 0, err
    (made,) = outside.calls("queued-resources create")
    assert made[5:7] == ["create", "pod1"]
    assert [word for word in made[7:-2] if word != "--zone=us-east5-a"] == expected


def test_several_slices_are_installed_and_started_each_and_the_first_one_is_followed(outside):
    assert run(outside, "--slices", "2")[0] == 0
    nodes = [argv[6] for argv in outside.calls("tpu-vm ssh")]
    assert nodes == ["pod1-0", "pod1-1", "pod1-0", "pod1-1", "pod1-0"]


def test_a_command_arrives_through_ssh_as_it_was_written(on_path, tmp_path):
    """Every machine is a folder here, with the real script and a python that writes down what it is given."""
    code = tmp_path / "code"
    (code / "tpu").mkdir(parents=True)
    (code / "tpu" / "start.sh").write_text((ROOT / "tpu" / "start.sh").read_text())
    (code / "uv.lock").write_text("locked")
    seen = tmp_path / "seen"
    python = code / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$IMMUNAX_WORKER" "$WORD" "$@" >{seen}-$IMMUNAX_WORKER\necho heard\n'
    )
    python.chmod(0o755)
    uv = on_path.home / "bin" / "uv"
    uv.write_text("#!/bin/bash\n")
    uv.chmod(0o755)
    subprocess.run(["tar", "-czf", str(tmp_path / "code.tar.gz"), "-C", str(code), "."], check=True)
    on_path.scenario(real=True, machines=4, archive=str(tmp_path / "code.tar.gz"))
    assert on_path.launch("create", "pod1", *PLACE, "--type", "v5litepod-16")[0] == 0
    status, out, _ = on_path.launch("status", "pod1", *PLACE)
    assert (status, out.splitlines()[1:]) == (0, ["pod1: nothing has run here"] * 4)
    status, out, err = run(on_path, "--keep", "--env", "WORD=two words")
    assert (status, out) == (0, "heard\n"), err
    for worker in range(4):
        told = (tmp_path / f"seen-w-{worker}").read_text().splitlines()
        assert told == [f"w-{worker}", "two words", "-m", *JOB]
    status, out, _ = on_path.launch("status", "pod1", *PLACE)
    assert (status, out.splitlines()[1:]) == (0, [f"pod1: worker {worker}: ended with 0" for worker in range(4)])
    assert on_path.launch("logs", "pod1", *PLACE)[:2] == (0, "heard\n")


def test_a_slice_that_is_taken_twice_is_asked_for_three_times_and_the_job_goes_on(outside):
    taken = {"log": ["step 1"], "ended": None, "taken": ["SUSPENDING", "SUSPENDED"]}
    whole = {"log": ["step 2", "done"], "ended": 0}
    outside.scenario(lives=[["ACTIVE"], ["ACTIVE"], ["WAITING_FOR_RESOURCES", "ACTIVE"]], follows=[taken, taken, whole])
    status, out, err = run(outside, "--spot")
    assert (status, out) == (0, "step 1\nstep 1\nstep 2\ndone\n"), err
    assert len(outside.calls("queued-resources create")) == 3
    assert len(outside.calls("queued-resources delete")) == 3
    assert err.count("was taken: deleting it, to ask anew") == 2


def test_a_request_that_is_suspended_before_it_was_there_is_asked_for_anew(outside):
    outside.scenario(lives=[["WAITING_FOR_RESOURCES", "SUSPENDED"], ["SUSPENDED"], ["ACTIVE"]])
    assert run(outside)[0] == 0
    assert len(outside.calls("queued-resources create")) == 3


def test_a_request_that_fails_for_want_of_chips_is_asked_for_anew_and_not_for_ever(outside):
    failed = "FAILED:There is no more capacity in the zone"
    outside.scenario(lives=[[failed], ["ACTIVE"]])
    assert run(outside)[0] == 0
    outside.scenario(lives=[[failed]])
    status, _, err = run(outside)
    assert status == 4
    assert len(outside.calls("queued-resources create")) == 3
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "no more capacity" in error
    assert "another zone" in error
    assert DELETION in err


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota 'TPUV5sPreemptibleLitepodPerProjectPerZone' exhausted.",
            "ask for more",
        ),
        ("ERROR: (gcloud) PERMISSION_DENIED: The caller does not have permission", "roles/tpu.admin"),
        ("ERROR: (gcloud) Permission denied on 'locations/us-wst4-a' (or it may not exist).", "zones of asia-east1"),
        ("ERROR: (gcloud) Cloud TPU API has not been used in project 7 before or it is disabled.", "services enable"),
        (
            "ERROR: (gcloud) There was a problem refreshing your current auth tokens: Reauthentication failed",
            "auth login",
        ),
        ("ERROR: (gcloud) You do not currently have an active account selected.", "auth login"),
        ("ERROR: (gcloud) invalid_grant: Token has been expired or revoked.", "auth login"),
        ("ERROR: (gcloud) Insufficient reserved capacity. Contact customer support.", "without a reservation"),
    ],
)
def test_what_gcloud_refuses_is_told_in_one_line_with_what_to_do(outside, said, advice):
    outside.scenario(refused=said)
    status, _, err = run(outside)
    assert status == 4
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said.partition(") ")[2].split(":")[-1].strip().rstrip(".") in error
    assert advice in error


def test_a_failure_that_would_come_again_is_not_tried_again(outside):
    outside.scenario(lives=[["FAILED:Quota exhausted for TPUs"]])
    status, _, err = run(outside)
    assert status == 4
    assert len(outside.calls("queued-resources create")) == 1
    assert "suspended too" in err
    assert DELETION in err


def test_a_log_that_is_cut_goes_on_where_it_was(outside):
    log = ["step 1", "step 2", "step 3"]
    outside.scenario(follows=[{"log": log[:1]}, {"log": log[:2]}, {"log": log, "ended": 0}])
    status, out, err = run(outside)
    assert (status, out) == (0, "step 1\nstep 2\nstep 3\n"), err
    assert err.count("connecting again") == 2
    assert len(outside.calls("start.sh run")) == 1


# What gcloud 528 says with a token that has to be renewed and no network, and with a token that is good.
EXPIRED = """ERROR: (gcloud.alpha.compute.tpus.queued-resources.describe) There was a problem refreshing your current auth \
tokens: HTTPSConnectionPool(host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token (Caused by \
NameResolutionError("<urllib3.connection.HTTPSConnection object at 0x7f0d>: Failed to resolve 'oauth2.googleapis.com' \
([Errno -3] Try again)"))
Please run:

  $ gcloud auth login

to obtain new credentials."""
CRASHED = (
    "ERROR: gcloud crashed (ProxyError): HTTPSConnectionPool(host='tpu.googleapis.com', port=443): Max retries exceeded"
)
CUT = {"follows": [{"log": ["step 1"]}, {"log": ["step 1", "done"], "ended": 0}]}


def at(outside, word, scenario):
    """The number of the last call of a kind in a run of a scenario."""
    outside.scenario(**scenario)
    assert run(outside)[0] == 0
    return max(number for number, kind in enumerate(kinds(outside)) if kind == word)


@pytest.mark.parametrize("said", [EXPIRED, CRASHED], ids=["expired", "crashed"])
@pytest.mark.parametrize(("asked", "times"), [("describe", 99), ("delete", 99), ("delete", 100)])
def test_a_network_that_is_gone_for_a_night_ends_neither_the_tending_nor_the_deletion(outside, said, asked, times):
    number = at(outside, asked, CUT)
    outside.scenario(**CUT, fail=[number, times], failure=[1, "", said])
    flags = ("--zone", "us-west4-a", "--bucket", "gs://bucket", "--unchecked")
    status, out, err = outside.launch("run", "pod1", *flags, "--", *JOB)
    assert (status, out) == (0 if times == 99 else 4, "step 1\ndone\n"), err
    assert sum(outside.waited) > 15 * 3600
    assert max(outside.waited) == 600
    assert (DELETION in err) == (times == 100)


def test_a_network_that_is_not_there_at_all_is_not_waited_for_over_hours(outside):
    number = at(outside, "objects describe", CUT) + 3
    outside.scenario(**CUT, fail=[number, None], failure=[1, "", EXPIRED])
    status, _, err = run(outside)
    assert status == 4
    assert len(outside.calls("queued-resources describe")) == 3
    assert "the network does not reach Google" in err.splitlines()[-1]


def test_a_job_that_cannot_be_followed_for_ever_is_told_and_its_slice_is_named(outside):
    outside.scenario(follows=[{"log": []}])
    status, _, err = run(outside)
    assert status == 4
    assert "its first machine does not say" in err
    assert DELETION in err
    assert not outside.calls("queued-resources delete")


@pytest.mark.parametrize("ended", [142, 143])
def test_a_job_that_was_stopped_or_lost_a_process_is_started_again(outside, ended):
    outside.scenario(follows=[{"log": ["one"], "ended": ended}, {"log": ["two"], "ended": 0}])
    status, out, err = run(outside)
    assert (status, out) == (0, "one\ntwo\n")
    assert f"ended with {ended}: it is started again" in err
    assert len(outside.calls("start.sh run")) == 2


def test_machines_on_which_the_job_is_gone_start_it_with_the_first_one(outside):
    log = ["one", "immunax: ended with 142, starting again (1) in 10 s", "two"]
    outside.scenario(machines=16, follows=[{"log": log}, {"log": log, "ended": 0}])
    status, out, err = run(outside)
    assert (status, out.splitlines()) == (0, log), err
    assert len(outside.calls("start.sh run")) == 1
    (again,) = outside.calls("start.sh rerun")
    assert "--worker=all" in again
    assert "connecting again" not in err


def test_what_began_again_before_the_launcher_looked_is_only_told(outside):
    log = ["one", "immunax: ended with 142, starting again (1) in 10 s", "two"]
    outside.scenario(follows=[{"log": log, "ended": 0, "there": 3}])
    assert run(outside)[:2] == (0, "".join(f"{line}\n" for line in log))
    assert outside.calls("start.sh rerun") == []


def test_a_log_is_told_through_all_starts_of_its_command(outside):
    log = ["one", "immunax: ended with 142, starting again (1) in 10 s", "two"]
    outside.scenario(lives=[["ACTIVE"]], follows=[{"log": log, "ended": 2}])
    status, out, _ = outside.launch("logs", "pod1", *PLACE)
    assert (status, out.splitlines()) == (2, log)


def test_a_job_that_its_slice_gives_up_again_and_again_is_given_up(outside):
    outside.scenario(follows=[{"log": ["one"], "ended": 142}])
    status, _, _ = run(outside, "--tries", "3")
    assert status == 142
    assert len(outside.calls("start.sh run")) == 3
    assert len(outside.calls("queued-resources delete")) == 1


@pytest.mark.parametrize("taken", [None, ["SUSPENDED"]], ids=["there", "taken"])
def test_a_job_that_its_machines_give_up_is_given_up_however_long_each_start_lasted(outside, monkeypatch, taken):
    monkeypatch.setattr(tending, "_LASTING_SECONDS", -1.0)
    outside.scenario(follows=[{"log": ["one"], "ended": 142, "given_up": True, "taken": taken}])
    assert run(outside, "--tries", "3")[0] == 142
    assert len(outside.calls("start.sh run")) == 3


def test_a_job_that_is_lost_after_hours_is_started_again_however_often(outside, monkeypatch):
    monkeypatch.setattr(tending, "_LASTING_SECONDS", -1.0)
    lost = {"log": ["one"], "ended": 142}
    outside.scenario(follows=[*[{**lost, "given_up": True}, lost] * 5, {"log": ["two"], "ended": 0}])
    assert run(outside, "--tries", "2")[0] == 0
    assert len(outside.calls("start.sh run")) == 11


def test_a_call_without_an_end_is_one_that_failed(monkeypatch):
    monkeypatch.setattr(calls, "_LONGEST_SECONDS", 0.2)
    done = Calls().ask(["sleep", "60"])
    assert (done.status, done.said) == (124, "no answer within 0.2 s")


def test_a_slice_whose_command_somebody_has_stopped_is_left_and_named_and_the_same_line_goes_on_there(outside):
    outside.scenario(follows=[{"log": ["one"], "ended": 130}, {"log": ["two"], "ended": 0}])
    status, _, err = run(outside)
    assert (status, outside.calls("queued-resources delete")) == (130, [])
    assert f"delete it with: {DELETION}" in err
    assert run(outside)[:2] == (0, "two\n")
    assert (len(outside.calls("queued-resources create")), len(outside.calls("queued-resources delete"))) == (1, 1)


@pytest.mark.parametrize("ended", [1, 2, 3])
def test_a_job_that_ends_by_a_mistake_is_not_started_again_and_its_status_is_the_launchers(outside, ended):
    outside.scenario(follows=[{"log": ["error: no"], "ended": ended}])
    status, _, err = run(outside)
    assert status == ended
    assert len(outside.calls("start.sh run")) == 1
    assert len(outside.calls("queued-resources delete")) == 1
    assert "still standing" not in err


def test_a_slice_is_kept_where_the_user_says_so_and_is_named(outside):
    status, _, err = run(outside, "--keep")
    assert status == 0
    assert not outside.calls("queued-resources delete")
    assert f"delete it with: {DELETION}" in err


def test_a_worker_that_is_down_for_a_while_is_asked_again_alone(outside):
    outside.scenario(down={"installed 2": 1, "started 3": 1})
    status, _, err = run(outside)
    assert status == 0
    asked = [next(word for word in argv if word.startswith("--worker")) for argv in outside.calls("tpu-vm ssh")]
    assert asked == ["--worker=all", "--worker=2", "--worker=all", "--worker=3", "--worker=0"]
    assert "no word of worker 2 of pod1" in err


def test_a_worker_that_stays_down_is_named_with_what_stands(outside):
    outside.scenario(down={"installed 2": 99})
    status, _, err = run(outside)
    assert status == 4
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "install on pod1: worker 2 of 4 did not do it" in error
    assert "255" in error
    assert DELETION in err


def test_what_no_machine_will_ever_take_is_not_asked_of_them_again_and_again(outside):
    said = (
        'ERROR: (gcloud) SSH Key is not present in the SSH agent. Please run "ssh-add FILE" to add it, and try again.'
    )
    outside.scenario(down={"installed 0": 99}, ssh_error=said)
    status, _, err = run(outside)
    assert status == 4
    assert "ssh-add ~/.ssh/google_compute_engine" in err.splitlines()[-2]
    assert len(outside.calls("start.sh install")) == 3  # of one attempt; gcloud itself tries ten times


def calls_of_a_run(outside, scenario):
    outside.scenario(**scenario)
    assert run(outside)[0] == 0
    return len(outside.log)


WHOLE = {"lives": [["WAITING_FOR_RESOURCES", "ACTIVE"], ["ACTIVE"]]}
TAKEN = {"follows": [{"log": ["one"], "taken": ["SUSPENDED"]}, {"log": ["one", "two"], "ended": 0}]}


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
def test_whichever_call_fails_it_is_one_line_and_nothing_billed_is_left_unnamed(outside, times):
    scenario = {**WHOLE, **TAKEN}
    count = calls_of_a_run(outside, scenario)
    assert count > 15
    for number in range(count):
        outside.scenario(**scenario, fail=[number, times])
        status, _, err = run(outside)
        life = outside.home / "life.json"
        stands = life.exists() and json.loads(life.read_text()) != []
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        where = f"call {number}, {outside.log[number][:7]}: {err}"
        assert "Traceback" not in err, where
        assert (len(errors) == 1) == (status != 0), where
        assert not stands or DELETION in err, where
        if times is None and number != 2:  # whether the archive is there already may stay unknown
            assert status == 4, where
            assert "unavailable" in errors[0], where


def test_a_program_that_is_not_there_is_named_with_how_to_have_it(on_path, monkeypatch):
    (on_path.home / "bin" / "gcloud").unlink()
    monkeypatch.setenv("PATH", str(on_path.home / "bin"))
    status, _, err = run(on_path)
    assert status == 2
    assert err.splitlines()[-1].startswith("error: gcloud is not on PATH: install the Google Cloud CLI")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("run", "Pod1", *PLACE, "--", *JOB), "name 'Pod1': expected small letters"),
        (
            ("run", "pod1", "--zone", "us-west4", "--bucket", "gs://bucket", "--", *JOB),
            "--zone us-west4: expected a zone",
        ),
        (("run", "pod1", "--zone", "mars-north1-a", "--bucket", "gs://bucket", "--", *JOB), "knows no v5e there"),
        (("run", "pod1", "--bucket", "gs://bucket", "--", *JOB), "no zone"),
        (("run", "pod1", *PLACE, "--", *JOB), "no bucket"),
        (("run", "pod1", *PLACE, "--bucket", "bucket", "--", *JOB), "expected gs://NAME"),
        (("run", "pod1", *PLACE, "--bucket", "gs://bucket"), "no command"),
        ((*RUN, "--", "immunax.trian", "mesh=v5e_16"), "Did you mean 'immunax.train'?"),
        ((*RUN, "--", "immunax.train", "mesh=v5e_17", "outputs=gs://b/r"), "Did you mean 'v5e_16'?"),
        ((*RUN, "--", "immunax.train", "mesh=fsdp", "outputs=gs://b/r"), "which slice?"),
        ((*RUN, "--type", "v5litepod-17", "--", "immunax.train", "mesh=fsdp", "outputs=gs://b/r"), "v5litepod-16"),
        ((*RUN, "--type", "v6e-64", "--", *JOB), "is for v5litepod-16"),
        ((*RUN, "--", "immunax.train", "mesh=v5e_16", "outputs=runs"), "own disk"),
        ((*RUN, "--", "immunax.train", "mesh=v5e_16"), "own disk"),
        ((*RUN, "--", "immunax.train", "mesh=v5e_16", "outputs=gs://b/r", "--spot"), "stand before --"),
        ((*RUN, "--", "immunax.train", "mesh=v5e_16", "a=b\nc"), "one line of characters"),
        ((*RUN, "--env", "1=2", "--", *JOB), "expected NAME=VALUE"),
        ((*RUN, "--slices", "0", "--", *JOB), "expected a positive whole number"),
        ((*RUN, "--slices", "two", "--", *JOB), "invalid int value: 'two'"),
        ((*RUN, "--spot", "--reserved", "--", *JOB), "not allowed with argument"),
        ((*RUN, "--reservation", "r", "--", *JOB), "belongs to --reserved"),
        ((*RUN, "--run-duration", "1d", "--", *JOB), "belongs to --flex-start"),
        (("launch", "pod1"), "invalid choice"),
        (("jobset", "pod1", "--zone", "us-west4-a", "--unchecked", "--", *JOB), "no image"),
        (("create", "pod1", *PLACE), "which slice?"),
    ],
)
def test_a_mistake_is_one_line_and_nobody_is_asked_for_anything(outside, argv, told):
    status, out, err = outside.launch(*argv)
    assert (status, out) == (2, "")
    assert told in err.splitlines()[-1]
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert not outside.calls("gcloud")


def test_changes_that_are_in_no_commit_are_refused_unless_they_may_stay_behind(outside):
    outside.scenario(changed=" M immunax/train.py\n")
    status, _, err = run(outside)
    assert status == 2
    assert "immunax/train.py" in err
    assert not outside.calls("gcloud")
    assert run(outside, "--dirty")[0] == 0


def test_a_new_file_is_refused_where_it_would_run_and_nowhere_else(outside):
    outside.scenario(changed="?? conf/defense/mine.yaml\n")
    status, _, err = run(outside)
    assert status == 2
    assert "conf/defense/mine.yaml" in err
    outside.scenario(changed="?? notes.txt\n")
    assert run(outside)[0] == 0


def test_a_slice_of_that_name_for_another_command_is_refused_and_not_touched(outside):
    assert run(outside, "--keep")[0] == 0
    before = len(outside.log)
    status, _, err = run(outside, job=(*JOB, "seed=1"))
    assert status == 2
    assert "is there already, for another command" in err
    assert "still standing" not in err
    assert not [argv for argv in outside.log[before:] if "delete" in argv or "tpu-vm" in argv]


def test_a_slice_of_that_name_of_another_type_is_refused(outside):
    assert outside.launch("create", "pod1", *PLACE, "--type", "v5litepod-64")[0] == 0
    status, _, err = run(outside)
    assert status == 2
    assert "of type v5litepod-64, not v5litepod-16" in err


def test_the_same_command_goes_on_with_the_slice_that_is_there(outside):
    assert run(outside, "--keep")[0] == 0
    assert run(outside)[0] == 0
    assert len(outside.calls("queued-resources create")) == 1


def test_a_slice_that_was_had_before_takes_any_command_that_fits(outside):
    status, _, err = outside.launch("create", "pod1", *PLACE, "--type", "v5litepod-16")
    assert status == 0
    assert DELETION in err
    assert run(outside)[0] == 0
    assert len(outside.calls("queued-resources create")) == 1


def test_a_second_launcher_for_a_slice_is_refused(outside, tmp_path):
    folder = tmp_path / "cache" / "immunax-tpu"
    folder.mkdir(parents=True)
    with (folder / "default-us-west4-a-pod1.lock").open("w") as file:
        file.write("4711")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, err = run(outside)
    assert status == 2
    assert "another launcher, process 4711, is at work on pod1" in err
    assert not outside.calls("gcloud")


def test_a_slice_that_another_launcher_has_replaced_meanwhile_is_not_deleted(outside, monkeypatch):
    """Between the two questions another one deletes the suspended slice, and has a new one."""
    outside.scenario(lives=[["SUSPENDED", "SUSPENDED"], ["ACTIVE"]])
    from tpu import queued

    describe, seen = queued.describe, []

    def racing(calls, request, supposed="ACTIVE"):
        found = describe(calls, request, supposed)
        seen.append(found.state)
        if found.state == "SUSPENDED" and len(seen) == 2:
            (outside.home / "lives.json").write_text("2")
            (outside.home / "life.json").write_text('["ACTIVE"]')
        return found

    monkeypatch.setattr(queued, "describe", racing)
    assert run(outside)[0] == 0
    assert len(outside.calls("queued-resources create")) == 1
    assert len(outside.calls("queued-resources delete")) == 1  # at the very end


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_while_it_waits_deletes_nothing_and_says_what_stands(outside, monkeypatch, number, status):
    outside.scenario(lives=[["WAITING_FOR_RESOURCES"]])
    monkeypatch.setattr(outside, "_sleep", lambda seconds: os.kill(os.getpid(), number))
    ended, _, err = run(outside)
    assert ended == status
    assert "nothing is deleted" in err
    assert f"(WAITING_FOR_RESOURCES); delete it with: {DELETION}" in err
    assert not outside.calls("queued-resources delete")


def test_an_interrupted_log_leaves_the_job_running_and_no_child_behind(on_path):
    slow = on_path.home / "bin" / "gcloud"
    text = slow.read_text().replace("    status, out, err = ssh", "    status, out, err = ssh")
    slow.write_text(
        text.replace("def followed(", "def followed(*_):\n    import time\n    time.sleep(30)\n\n\ndef unused(")
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-S", "-m", "tpu.launch", *RUN, "--", *JOB]
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(20, process.kill)
    timer.start()
    while not on_path.calls("start.sh follow"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    timer.cancel()
    assert process.returncode == 130, err
    assert DELETION in err


def test_a_dry_run_prints_every_call_and_makes_none(outside):
    status, out, _ = run(outside, "--spot", "--dry-run")
    assert status == 0
    assert outside.log == []
    printed = [shlex.split(line) for line in out.splitlines()]
    run(outside, "--spot")
    real = [argv for argv in outside.log if argv[0] != "git"]
    shown = [argv for argv in printed if argv[0] != "git"]

    def alike(argv):
        kept = [word.replace("a" * 40, "").replace("0" * 40, "").partition("--command=")[0] for word in argv]
        return [word for word in kept if not word.startswith("/tmp/")]

    assert [alike(argv) for argv in shown] == [alike(argv) for argv in real]
    command = next(word for argv in shown for word in argv if "start.sh run" in word)
    assert shlex.split(command)[-len(JOB) :] == list(JOB)


def test_status_logs_stop_and_delete_ask_for_no_more_than_they_tell(outside):
    assert run(outside, "--keep", "--slices", "2")[0] == 0
    status, out, _ = outside.launch("status", "pod1", *PLACE)
    assert status == 0
    assert out.splitlines()[0] == "pod1: active, v5litepod-16"
    assert "pod1-1: worker 3: running, process 7" in out
    status, out, _ = outside.launch("logs", "pod1", *PLACE)
    assert (status, out) == (0, "step 1\ndone\n")
    status, out, _ = outside.launch("stop", "pod1", *PLACE)
    assert status == 0
    status, _, err = outside.launch("delete", "pod1", *PLACE)
    assert (status, "pod1 is deleted" in err) == (0, True)
    status, _, err = outside.launch("delete", "pod1", *PLACE)
    assert (status, "pod1 is not there" in err) == (0, True)
    status, out, _ = outside.launch("status", "pod1", *PLACE)
    assert (status, out) == (0, "pod1: absent\n")


def test_a_delete_that_fails_says_that_the_slice_stands(outside):
    assert run(outside, "--keep")[0] == 0
    outside_log = len(outside.log)
    (outside.home / "scenario.json").write_text(json.dumps({"fail": [outside_log + 1, None]}))
    status, _, err = outside.launch("delete", "pod1", *PLACE)
    assert status == 4
    assert DELETION in err.splitlines()[-1]


def test_an_old_python_is_told_so_in_one_line():
    code = "import sys; sys.version_info = (3, 9, 6); import tpu"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: this needs Python 3.11 or newer, and is run by 3.9\n")


def test_every_command_has_its_help(outside):
    for command in ("plan", "run", "create", "status", "logs", "stop", "delete", "jobset", "kueue", "xpk", "sweep"):
        with pytest.raises(SystemExit) as end:
            outside.launch(command, "--help")
        assert end.value.code == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="the Google Cloud CLI is not installed")
@pytest.mark.parametrize(
    "flags",
    [
        ("--spot",),
        ("--flex-start", "--run-duration", "24h", "--internal-ips", "--iap"),
        ("--reserved", "--reservation", "r", "--service-account", "a@b", "--slices", "2"),
    ],
)
def test_gcloud_itself_takes_every_call_but_for_the_account_that_it_lacks(tmp_path, flags):
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        # Nobody is to be asked, whatever this machine may do.
        "CLOUDSDK_PROXY_TYPE": "http",
        "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
        "CLOUDSDK_PROXY_PORT": "9",
    }
    argv = [sys.executable, "-m", "tpu.launch", *RUN, *flags, "--project", "p", "--dry-run", "--", *JOB]
    out = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    calls = [shlex.split(line) for line in out.splitlines() if line.startswith("gcloud ")]
    assert len(calls) > 7
    for call in calls:
        done = subprocess.run(call, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert "You do not currently have an active account selected" in done.stderr, call


def test_the_launcher_needs_nothing_but_python(tmp_path):
    argv = [sys.executable, "-S", "-E", "-m", "tpu.launch", *RUN, "--dry-run", "--", *JOB]
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "queued-resources create pod1" in done.stdout
