import errno
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from immunax.runtime import configuration, job, launch, signals
from immunax.runtime.errors import UserError
from immunax.runtime.sweeps.failures import Failures

CONF = {
    "config.yaml": (
        "defaults: [{model: tiny}, {trainer: sgd}, {attack@red_team: sft}, _self_]\n"
        "seed: 0\nrun: null\noutputs: outputs\nverbose: false\nprobes: {prompts: 2}\njudges: {first: {where: a}}\n"
    ),
    "attack/sft.yaml": "samples: 10\ntuning: {epochs: 1}\n",
    "attack/shift.yaml": "tuning: {epochs: 2}\n",
    "model/tiny.yaml": "size: 4\n",
    "model/small.yaml": "size: 8\n",
    "model/hf.yaml": "path: ???\n",
    "defense/rep_noise.yaml": "_target_: immunax.runtime.mesh.MeshSpec\ndata: 1\n",
    "defense/tar.yaml": "alpha: 1.0\n",
    "trainer/sgd.yaml": "lr: 1e-4\nsteps: 10\nbetas: [0.9, 0.99]\n",
    "experiment/figure.yaml": "# @package _global_\ndefaults: [{/defense: tar}]\nseed: 3\n",
    "experiment/paper/config/organism.yaml": (
        "# @package _global_\nhydra: {sweeper: {params: {defense: 'rep_noise,tar', trainer.steps: 20, seed: '0,1'}}}\n"
    ),
    "experiment/paper/config/tiny.yaml": "# @package _global_\nhydra: {sweeper: {params: {defense: tar, seed: '0,1'}}}\n",
    "experiment/other/attack/organism.yaml": "# @package _global_\nseed: 3\n",
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs the command in this process; returns the exit status and what each job saw."""
    for name, text in CONF.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(signals, "end", sys.exit)

    def run(*argv, fail=None, act=lambda: None):
        jobs = []

        @launch.command(required=("defense",), folder=tmp_path / "conf")
        def task(config):
            act()
            if fail is not None:
                raise fail
            jobs.append((config.plain, job.run_directory()))

        monkeypatch.setattr(sys, "argv", ["command", *argv])
        try:
            task()
        except SystemExit as end:
            return end.code, jobs
        return 0, jobs

    return run


def folder(job):
    return str(job[1].relative_to(Path.cwd() / "outputs"))


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "error: name one defense: defense=NAME. Choices: rep_noise, tar"),
        (["defense=taz"], "error: unknown defense 'taz'. Did you mean 'tar'? Choices: rep_noise, tar"),
        (["+defense=taz"], "error: unknown defense 'taz'. Did you mean 'tar'? Choices: rep_noise, tar"),
        (["defense=tar", "model=tiney"], "error: unknown model 'tiney'. Did you mean 'tiny'? Choices: hf, small, tiny"),
        (["defense=tar", "modle=tiny"], "error: unknown field modle. Did you mean 'model'?"),
        (["defense=tar", "trainer.step=1"], "error: unknown field trainer.step. Did you mean 'steps'? trainer has:"),
        (["defense=tar", "trainer.steps=x"], "error: trainer.steps=x: expected a number, as in trainer.steps=10"),
        (["defense=tar", "trainer.betas=1"], "error: trainer.betas=1: expected a list"),
        (["defense=tar", "verbose=maybe"], "error: verbose=maybe: expected true or false"),
        (["defense=tar", "model=hf"], "error: model.path needs a value: model.path=VALUE"),
        (["defense=rep_noise", "defense.data=1.5"], "error: defense.data=1.5: expected a whole number"),
        (["defense=rep_noise", "+defense.datum=1"], "error: unknown field defense.datum. Did you mean 'data'?"),
        (["defense=tar", "experiment.x=1"], "error: no experiment is chosen: add experiment=NAME. Choices: figure"),
        (["defense=tar", "seed=1,2"], "error: seed=1,2: several values need -m"),
        (["-m", "defense=tar,taz"], "error: unknown defense 'taz'."),
        (["-m", "defense=tar", "trainer.steps=1,x"], "error: trainer.steps=x: expected a number"),
        (["defense=tar", "seed=["], "error: cannot read 'seed=['"),
        (["defense=tar", "seed"], "error: cannot read 'seed'"),
        (
            ["defense=tar", "hydra/launcher=basik"],
            "error: unknown hydra/launcher 'basik'. Did you mean 'basic'? Choices: ",
        ),
        (["defense=tar", "+attak=shift"], "error: unknown field attak. Did you mean 'attack'? there are:"),
        (["defense=tar", "+modle.size=1"], "error: unknown field modle. Did you mean 'model'?"),
        (["defense=tar", "+experiment.x=1"], "error: no experiment is chosen: add experiment=NAME."),
        (["defense=tar", "red_team=shift"], "error: red_team=shift: did you mean attack@red_team=shift? Choices: sft"),
        (["defense=tar", "red_team=5"], "error: red_team=5: did you mean attack@red_team=NAME? Choices: sft, shift"),
        (["defense=tar", "red_team=null"], "error: red_team=null: did you mean attack@red_team=NAME?"),
        (["defense=tar", "attack@red_team=shft"], "error: unknown attack 'shft'. Did you mean 'shift'?"),
        (["defense=tar", "probes=5"], "error: probes=5: expected fields, such as probes.prompts=VALUE."),
        (["defense=tar", "probes=null"], "error: probes=null: expected fields, such as probes.prompts=VALUE."),
        (["defense=tar", "seed=null"], "error: seed=null: expected a number, as in seed=0"),
        (["defense=tar", "model=null"], "error: unknown model 'null'. Choices: hf, small, tiny"),
        (["-m", "experiment=papr"], "error: unknown experiment 'papr'. Did you mean 'paper'? There is: other, paper"),
        (
            ["-m", "experiment=other"],
            "error: experiment=other: has no sweep of immunax.config; it is one of immunax.attack.",
        ),
        (
            ["-m", "experiment=paper", "scale=tinny"],
            "error: scale=tinny: experiment/paper/config has organism, tiny. Did you mean 'tiny'?",
        ),
        (
            ["defense=tar", "scale=tiny"],
            "error: scale=tiny: is that of an experiment; add +experiment=NAME. There is: other",
        ),
        (["experiment=paper"], "error: defense=rep_noise,tar: several values need -m, a run for each"),
        (["-m", "experiment=paper", "defense=taz"], "error: unknown defense 'taz'. Did you mean 'tar'?"),
        (["defense=tar", "red_team.tuning=3"], "error: red_team.tuning=3: expected fields, such as red_team.tuning.ep"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(start, capfd, argv, line):
    status, jobs = start(*argv)
    captured = capfd.readouterr()
    assert status == 2
    assert jobs == []
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("choice", ["defense=tar", "+defense=tar"])
def test_a_group_without_default_needs_no_plus(start, choice):
    status, [job] = start(choice, "seed=5")
    assert status == 0
    assert job[0]["defense"] == {"alpha": 1.0}
    assert job[0]["run"] == "tar-tiny-5"
    assert folder(job) == "tar-tiny-5"
    assert (job[1] / ".hydra" / "config.yaml").is_file()


def test_the_working_directory_stays(start):
    before = Path.cwd()
    start("defense=tar")
    assert Path.cwd() == before


def test_an_experiment_is_a_whole_sweep_whose_runs_are_named_by_it(start):
    status, jobs = start("-m", "+experiment=paper")
    assert status == 0
    assert [folder(each) for each in jobs] == [
        f"paper-organism-config/defense={defense}+seed={seed}+steps=20"
        for defense in ("rep_noise", "tar")
        for seed in (0, 1)
    ]
    assert {each[0]["trainer"]["steps"] for each in jobs} == {20}
    _, jobs = start("-m", "+experiment=paper", "scale=tiny")
    assert [folder(each) for each in jobs] == [f"paper-tiny-config/defense=tar+seed={seed}" for seed in (0, 1)]


def test_a_line_narrows_an_experiment_and_moves_it_elsewhere(start):
    _, [job] = start("-m", "+experiment=paper", "defense=tar", "seed=4", "trainer.steps=5", "run=mine")
    assert job[0]["defense"] == {"alpha": 1.0}
    assert (job[0]["seed"], job[0]["trainer"]["steps"]) == (4, 5)
    # A part of it lies where the whole will.
    assert folder(job) == "mine/defense=tar+seed=4+steps=5"


def test_a_sweep_is_shown_by_its_first_run(start, capfd):
    assert start("-m", "+experiment=paper", "--cfg", "job") == (0, [])
    assert OmegaConf.create(capfd.readouterr().out).defense.data == 1
    assert start("-m", "defense=tar,rep_noise", "--cfg", "job") == (0, [])


def test_a_fixed_field_of_a_group_that_is_swept_over_is_set_in_every_run(start):
    status, jobs = start("-m", "defense=tar", "+attack=sft,shift", "attack.tuning.epochs=7")
    assert status == 0
    assert [each[0]["attack"]["tuning"]["epochs"] for each in jobs] == [7, 7]


@pytest.mark.parametrize(
    ("more", "alpha"), [((), 1.0), (("defense=rep_noise",), None), (("+defense=rep_noise",), None)]
)
def test_an_experiment_may_choose_and_the_user_may_choose_again(start, more, alpha):
    _, [job] = start(*more, "experiment=figure")
    assert job[0]["defense"].get("alpha") == alpha
    assert job[0]["seed"] == 3


def test_a_run_is_named_and_placed_as_asked(start, tmp_path):
    _, [job] = start("defense=tar", "run=mine", f"outputs={tmp_path / 'out'}")
    assert job[1] == tmp_path / "out" / "mine"


@pytest.mark.parametrize("source", ["org/Model-1.1B", "../ckpt/step=10, b", "~/weights", "model", "a,b"])
def test_a_path_or_hub_name_stands_for_a_model(start, source):
    for name in ("model", "a,b"):
        Path(name).mkdir()
    _, [job] = start("defense=tar", f"model={source}")
    path = Path(source).expanduser()
    # A path that exists is recorded so that it is found from any folder.
    assert job[0]["model"] == {"path": str(path.absolute() if path.exists() else path)}
    assert folder(job).startswith("tar-")
    assert "hf" not in folder(job)


def test_runs_of_two_exported_models_have_two_names(start):
    _, [one] = start("defense=tar", "model=runs/one/model")
    _, [two] = start("defense=tar", "model=runs/two/model")
    assert (folder(one), folder(two)) == ("tar-one-0", "tar-two-0")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", "."])
def test_a_run_that_leads_out_of_the_outputs_is_refused(start, capfd, name):
    assert start("defense=tar", f"run={name}") == (2, [])
    assert capfd.readouterr().err == (
        f"error: run={name}: leads out of the folder of runs; give a plain name, and set that folder with outputs=DIR\n"
    )


def test_several_paths_are_a_sweep_of_models(start):
    _, jobs = start("-m", "defense=tar", "model=runs/one,runs/two")
    assert [job[0]["model"]["path"] for job in jobs] == ["runs/one", "runs/two"]


def test_a_sweep_runs_each_job_in_its_own_folder(start):
    _, jobs = start("defense=rep_noise,tar", "-m", "seed=1,2")
    each = [f"defense={defense}+seed={seed}" for defense in ("rep_noise", "tar") for seed in (1, 2)]
    assert [folder(job) for job in jobs] == [f"tiny/{name}" for name in each]
    _, jobs = start("-m", "defense=glob(t*)", "seed=range(1,3)", "run=mine")
    assert [(job[0]["seed"], folder(job)) for job in jobs] == [
        (1, "mine/defense=tar+seed=1"),
        (2, "mine/defense=tar+seed=2"),
    ]


def test_a_mistake_within_the_task_is_one_line(start, capfd):
    status, _ = start("defense=tar", fail=UserError("the tokenizer has no template"))
    assert status == 2
    assert capfd.readouterr().err == "error: the tokenizer has no template\n"


def test_an_interruption_is_one_line_and_status_130(start, capfd):
    status, _ = start("defense=tar", fail=KeyboardInterrupt())
    assert status == 130
    assert capfd.readouterr().err == (
        "stopped by SIGINT: what is finished is kept, and the same command goes on from there\n"
    )


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=1,2")])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_one_line_and_its_own_status_and_ends_a_sweep(start, capfd, number, status, sweep):
    before = signal.getsignal(number)
    assert start("defense=tar", *sweep, act=lambda: signal.raise_signal(number)) == (status, [])
    assert signal.getsignal(number) is before
    said = capfd.readouterr().err
    assert said == f"stopped by {number.name}: what is finished is kept, and the same command goes on from there\n"


def test_a_sweep_goes_on_behind_a_job_that_fails_and_tells_of_it_at_the_end(start, capfd):
    turns = iter([None, UserError("too much"), SystemExit(3), None])

    def act():
        if (failure := next(turns)) is not None:
            raise failure

    status, jobs = start("-m", "defense=tar", "seed=1,2,3,4", "run=mine", act=act)
    assert status == 2
    assert [job[0]["seed"] for job in jobs] == [1, 4]
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "error: too much"
    assert said[1].startswith("error: 2 of the sweep's jobs failed: mine/seed=2 (")
    assert [f"seed={seed}" in said[1] for seed in (1, 2, 3, 4)] == [False, True, True, False]
    assert not list(Path("outputs").glob(".failed-*"))


def test_a_note_that_the_disk_took_half_of_is_left_out(tmp_path, capfd):
    failures = Failures.of(tmp_path)
    with failures.noted(lambda: (tmp_path, "one")):
        raise SystemExit(2)
    with failures.file.open("ab") as out:
        out.write(b'["two", ')
    failures.__exit__(SystemExit, SystemExit(2), None)
    assert capfd.readouterr().err == "error: 1 of the sweep's jobs failed: one\n"
    assert not failures.file.exists()


def test_a_sweep_goes_on_behind_a_bug_whose_traceback_is_shown(start, capfd):
    turns = iter([ZeroDivisionError("a bug"), UserError("a mistake"), None])

    def act():
        if (failure := next(turns)) is not None:
            raise failure

    status, jobs = start("-m", "defense=tar", "seed=1,2,3", act=act)
    assert (status, len(jobs)) == (1, 1)
    said = capfd.readouterr().err
    assert "ZeroDivisionError: a bug" in said
    assert "2 of the sweep's jobs failed" in said.splitlines()[-1]


def test_a_second_process_in_a_runs_folder_is_refused_in_one_line(start, capfd):
    code = (
        "import sys; from pathlib import Path; from immunax.runtime import lock\n"
        "with lock.held(Path('outputs/mine/.lock')): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    assert start("defense=tar", "run=mine") == (2, [])
    assert re.fullmatch(r"error: another process is at work in \S+/mine: wait .*\n", capfd.readouterr().err)
    other.kill()
    other.communicate()
    assert start("defense=tar", "run=mine")[0] == 0


def test_a_bug_keeps_its_traceback(start):
    with pytest.raises(ZeroDivisionError):
        start("defense=tar", fail=ZeroDivisionError())


def test_help_and_the_configuration_can_be_shown(start, capfd):
    assert start("--help")[0] == 0
    assert "defense" in capfd.readouterr().out
    assert start("--cfg", "job", "defense=tar", "model=hf") == (0, [])
    shown = OmegaConf.create(capfd.readouterr().out)
    assert shown.defense.alpha == 1.0


def test_a_further_folder_of_configuration_is_searched(start, tmp_path):
    (tmp_path / "more" / "defense").mkdir(parents=True)
    (tmp_path / "more" / "defense" / "mine.yaml").write_text("beta: 2\n")
    _, [job] = start("--config-dir", str(tmp_path / "more"), "defense=mine")
    assert job[0]["defense"] == {"beta": 2}


def test_a_damaged_file_of_configuration_is_named(start, tmp_path, capfd):
    path = tmp_path / "more" / "defense" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("beta: {2\n")
    assert start("--config-dir", str(tmp_path / "more"), "defense=mine") == (2, [])
    said = capfd.readouterr().err
    assert said.startswith("error: configuration: ")
    assert f'"{path}", line 1' in said
    assert said.endswith("; mend that file\n")
    assert said.count("\n") == 1


def test_a_field_may_be_added_below_and_a_node_below_may_be_null(start):
    _, [job] = start("defense=tar", "+judges.second.where=b", "red_team.tuning=null", "attack@red_team=shift")
    assert job[0]["judges"] == {"first": {"where": "a"}, "second": {"where": "b"}}
    assert job[0]["red_team"] == {"tuning": None}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["outputs=.", f"run={'x' * 300}"],
            f"cannot write {'x' * 80}…: the name is too long for this disk; choose another",
        ),
        (["outputs=/proc/x"], "cannot write /proc/x: there can be no such folder; choose another"),
        (["outputs=file"], "cannot write file/tar-tiny-0: {}/file is a file; choose another folder"),
        (["outputs=.", "run=file"], "cannot write file: {}/file is a file; choose another folder"),
        (["outputs=.", "run=file/mine"], "cannot write file/mine: {}/file is a file; choose another folder"),
    ],
)
def test_a_place_where_no_run_can_be_is_one_line(start, capfd, overrides, line):
    Path("file").touch()
    for sweep in ([], ["-m"]):
        assert start(*sweep, "defense=tar", *overrides) == (2, [])
        said = capfd.readouterr()
        assert said.err.count("\n") == 1
        assert said.err.startswith("error: cannot write ")
        if not sweep:
            assert said.err == f"error: {line.format(Path.cwd())}\n"


def test_a_log_that_may_not_be_written_is_one_line(start, capfd, monkeypatch):
    class Refused(logging.FileHandler):
        def __init__(self, filename):
            raise PermissionError(errno.EACCES, "Permission denied", filename)

    monkeypatch.setattr(logging, "FileHandler", Refused)
    assert start("defense=tar", "run=mine") == (2, [])
    assert re.fullmatch(
        r"error: cannot write \S+/mine/test_launch\.log: permission denied; .*\n", capfd.readouterr().err
    )


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file", "outputs/mine/absent"),
        NotADirectoryError(errno.ENOTDIR, "no folder", "elsewhere/file"),
        PermissionError(errno.EPERM, "not permitted"),
        ValueError("no disk at all"),
    ],
)
def test_a_bug_that_the_output_folder_has_no_part_in_keeps_its_traceback(start, error):
    with pytest.raises(type(error)):
        start("defense=tar", "run=mine", fail=error)


def test_a_home_that_does_not_exist_is_one_line_that_names_the_path(start, capfd):
    assert start("defense=tar", "model=~nobody_here/x", act=Path("~nobody_here/x").expanduser) == (2, [])
    said = capfd.readouterr().err
    assert said == "error: model=~nobody_here/x: there is no such home folder; give the whole path\n"
    assert start("defense=tar", act=Path("~nobody_here/x").expanduser) == (2, [])
    assert capfd.readouterr().err == "error: there is no home folder for the cache: set IMMUNAX_CACHE=FOLDER\n"


def test_a_full_disk_is_one_line(start, capfd):
    status, _ = start("defense=tar", fail=OSError(errno.ENOSPC, "No space left on device"))
    assert status == 2
    assert capfd.readouterr().err == (
        "error: cannot write outputs: the disk is full; free some space or choose another folder\n"
    )


def test_a_log_on_a_full_disk_prints_nothing_of_its_own(start, capfd, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", True)

    def fill_and_log():
        (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, logging.FileHandler)]
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, handler.stream.fileno())
        os.close(full)
        logging.getLogger("any").error("a line")

    assert start("defense=tar", act=fill_and_log)[0] == 0
    assert capfd.readouterr().err == ""


def test_orbax_prints_no_traceback_beside_the_error_that_it_raises(start, tmp_path, capfd):
    ours = OmegaConf.load(configuration.configuration_folder() / "config.yaml")
    with (tmp_path / "conf" / "config.yaml").open("a") as config:
        config.write(OmegaConf.to_yaml({"hydra": ours.hydra}))
    assert start("defense=tar", act=lambda: logging.getLogger("absl").error("a traceback"))[0] == 0
    said = capfd.readouterr()
    assert said.err + said.out == ""


def test_the_configuration_is_found_beside_or_inside_the_package(tmp_path, monkeypatch):
    assert (configuration.configuration_folder() / "config.yaml").is_file()
    installed = tmp_path / "immunax" / "runtime" / "configuration.py"
    monkeypatch.setattr(configuration, "__file__", str(installed))
    with pytest.raises(UserError, match="install immunax again"):
        configuration.configuration_folder()
    inside = tmp_path / "immunax" / "conf"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text("")
    assert configuration.configuration_folder() == inside


def test_as_a_program_a_mistake_has_no_traceback(start, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\nfrom immunax.runtime import launch\n"
        f"@launch.command(required=('defense',), folder=Path({str(tmp_path / 'conf')!r}))\n"
        "def main(config):\n    print(config.defense.alpha)\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    answers = [
        subprocess.run([sys.executable, str(program), choice], capture_output=True, text=True)
        for choice in ("defense=tar", "defense=taz")
    ]
    assert [(answer.returncode, answer.stdout) for answer in answers] == [(0, "1.0\n"), (2, "")]
    assert answers[1].stderr.count("\n") == 1


def test_what_a_chat_template_is_told_needs_no_plus(start, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True, exist_ok=True)
    (tmp_path / "conf" / "model" / "told.yaml").write_text("template_args: {quiet: true}\n")
    told = [
        "model.template_args.enable_thinking=false",
        "++model.template_args.depth=2",
        "model.template_args.quiet=false",
    ]
    code, jobs = start("defense=tar", "model=told", *told)
    assert code == 0
    assert jobs[0][0]["model"] == {"template_args": {"quiet": False, "enable_thinking": False, "depth": 2}}
