"""A program outside, as the launcher meets it: records its arguments, and answers as a scenario has it.

Runs under the name of the program that it stands for, or is asked within the test's own process. ``gcloud`` plays one queued
resource with its machines.
"""

import json
import os
import re
import subprocess
import sys

# As gcloud has it of several machines, whatever the reason.
_NO_SSH = """Failed to execute command on multiple workers. This may have happened if you have not added your SSH key to your
ssh-agent.
ERROR: [/usr/bin/ssh] exited with return code [255]."""
NOT_FOUND = "ERROR: (gcloud) NOT_FOUND: Resource 'pod1' was not found."


def load(name, otherwise):
    path = os.path.join(os.environ["STUB_HOME"], name)
    if not os.path.exists(path):
        return otherwise
    with open(path) as file:
        return json.load(file)


def keep(name, value):
    with open(os.path.join(os.environ["STUB_HOME"], name), "w") as file:
        json.dump(value, file)


def record(argv, given):
    path = os.path.join(os.environ["STUB_HOME"], "log")
    with open(path, "a") as file:
        file.write(json.dumps([argv, given]) + "\n")
    with open(path) as file:
        return sum(1 for _ in file) - 1


def fails(number, scenario):
    at, times = scenario.get("fail", [None, 0])
    return at is not None and at <= number and (times is None or number < at + times)


def flag(argv, name):
    return next((each.partition("=")[2] for each in argv if each.startswith(f"{name}=")), None)


def queued_resources(argv, scenario):
    life = load("life.json", [])
    if "create" in argv:
        if scenario.get("refused"):
            return 1, "", scenario["refused"]
        lives = scenario.get("lives") or [["ACTIVE"]]
        number = load("lives.json", 0)
        keep("lives.json", number + 1)
        keep("life.json", lives[min(number, len(lives) - 1)])
        keep("made.json", argv)
        return 0, "", ""
    if "delete" in argv:
        if not life:
            return 1, "", NOT_FOUND
        keep("life.json", [])
        return 0, "", ""
    if not life:
        return 1, "", NOT_FOUND
    state = life[0]
    keep("life.json", life[1:] or life)
    made = load("made.json", [])
    label = (flag(made, "--labels") or "=").partition("=")[2]
    node = {"acceleratorType": flag(made, "--accelerator-type"), "labels": {"immunax-job": label}}
    specified = {"node": node}
    if flag(made, "--node-count"):
        specified["multisliceParams"] = {"nodeCount": int(flag(made, "--node-count"))}
    answer = {
        "createTime": str(load("lives.json", 0)),
        "state": {"state": state.partition(":")[0]},
        "tpu": {"nodeSpec": [specified]},
    }
    if ":" in state:
        answer["state"]["failedData"] = {"error": {"message": state.partition(":")[2]}}
    return 0, json.dumps(answer), ""


def workers(argv, scenario):
    asked = flag(argv, "--worker")
    return range(scenario.get("machines", 4)) if asked == "all" else [int(each) for each in asked.split(",")]


def ssh(argv, scenario):
    command = flag(argv, "--command")
    if scenario.get("real"):
        return real(argv, command, scenario)
    follow = re.search(r"start\.sh\W+follow (\d+) (\w+)", command)
    if follow:
        return followed(int(follow[1]), follow[2], scenario)
    asked = re.search(r"start\.sh\W+(state|stop)$", command)
    if asked:
        return 0, "".join(f"worker {each}: running, process 7\n" for each in workers(argv, scenario)), ""
    what = "installed" if "start.sh install" in command else "started"
    down, told = scenario.get("down", {}), []
    for each in workers(argv, scenario):
        left = down.get(f"{what} {each}", 0)
        if left:
            down[f"{what} {each}"] = left - 1
            keep("scenario.json", {**scenario, "down": down})
        else:
            told.append(f"immunax: {what} {each}\n")
    lost = len(told) < len(workers(argv, scenario))
    error = scenario.get("ssh_error", _NO_SSH)
    return (255 if lost else 0), "".join(told), error if lost else ""


def followed(first, mark, scenario):
    follows = scenario.get("follows") or [{"log": ["step 1", "done"], "ended": 0}]
    number = load("follows.json", 0)
    keep("follows.json", number + 1)
    one = follows[min(number, len(follows) - 1)]
    numbered = list(enumerate(one["log"], 1))[first - 1 :]
    # As gcloud does, which calls again by itself where the connection was cut.
    told = [f"{number}\t{line}\n" for number, line in [*numbered[:1], *numbered]]
    there = sum(number <= one.get("there", 0) for number, _ in numbered)
    out = "".join([*told[: there + 1], f"immunax: {mark} now\n", *told[there + 1 :]])
    if one.get("taken"):
        keep("life.json", one["taken"])
    if one.get("ended") is None:
        return 255, out, "Connection reset by peer"
    return 0, f"{out}immunax: {mark} ended {one['ended']}{' given up' if one.get('given_up') else ''}\n", ""


def real(argv, command, scenario):
    """Every machine is a folder; the command runs there in a shell of its own."""
    out, status = "", 0
    for each in workers(argv, scenario):
        home = os.path.join(os.environ["STUB_HOME"], f"machine-{each}")
        os.makedirs(home, exist_ok=True)
        environment = {**os.environ, "HOME": home, "IMMUNAX_WORKER": f"w-{each}", "IMMUNAX_AGAIN_SECONDS": "0"}
        done = subprocess.run(["bash", "-c", command], cwd=home, env=environment, stdout=subprocess.PIPE, text=True)
        out, status = out + done.stdout, status or done.returncode
    return status, out, ""


def storage(argv, scenario):
    if "describe" in argv:
        return (0 if scenario.get("uploaded") else 1), "", ""
    source, target = [each for each in argv[3:] if not each.startswith("--")][:2]
    if target == "-":
        file = scenario.get("archive") if source.endswith(".tar.gz") else None
        if file is None:
            return 1, "", "ERROR: not there"
        with open(file, "rb") as stream:
            sys.stdout.buffer.write(stream.read())
        sys.stdout.flush()
    return 0, "", ""


def git(argv, scenario):
    if "status" in argv:
        return 0, scenario.get("changed", ""), ""
    return 0, f"{'a' * 40}\n" if "rev-parse" in argv else "", ""


def scontrol(argv, scenario):
    """As ``_job_requeue_op`` of slurmctld has it: what is completing is queued again too, unless ``incomplete`` is asked for."""
    state, shown = scenario.get("job", ["RUNNING", "JobState=RUNNING Reason=None Dependency=(null)"])
    if argv[1] == "show":
        return 0, f"{shown}\n", ""
    if state == "RUNNING" or "incomplete" not in argv:
        keep("requeued.json", argv[-1])
    return 0, "", ""


def ray(argv):
    folder = flag(argv, "--working-dir")
    if folder is None:
        return 2, "", "Error: no working directory"
    text = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name)) as file:
            text[name] = file.read()
    keep("uploaded.json", text)
    return 0, "ray was asked\n", ""


def answer(argv, given):
    """Status, standard output, standard error."""
    scenario = load("scenario.json", {})
    if fails(record(argv, given), scenario):
        return scenario.get("failure", (1, "", "ERROR: (gcloud) the service is unavailable"))
    if argv[0] == "git":
        return git(argv, scenario)
    if "queued-resources" in argv:
        return queued_resources(argv, scenario)
    if "tpu-vm" in argv:
        return ssh(argv, scenario)
    if argv[0] == "ray":
        return ray(argv)
    if argv[0] == "scontrol":
        return scontrol(argv, scenario)
    if argv[1:2] == ["storage"]:
        return storage(argv, scenario)
    return 0, f"{argv[0]} was asked\n", ""


def main():
    argv = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    reads = argv[0] == "kubectl" or source_is_input(argv)
    given = sys.stdin.buffer.read().decode(errors="replace")[:100000] if reads else ""
    if argv[0] == "ssh":
        record(argv, given)
        raise SystemExit(subprocess.run(["bash", "-c", argv[-1]]).returncode)
    status, out, err = answer(argv, given)
    sys.stdout.write(out)
    sys.stderr.write(err and f"{err}\n")
    sys.stdout.flush()
    raise SystemExit(status)


def source_is_input(argv):
    return argv[1:3] == ["storage", "cp"] and "-" in argv[3:4]


if __name__ == "__main__":
    main()
