import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from immunax.runtime import launch
from immunax.runtime.errors import UserError

CONF = {
    "config.yaml": (
        "defaults: [{model: tiny}, {trainer: sgd}, _self_]\nseed: 0\nrun: null\noutputs: outputs\nverbose: false\n"
    ),
    "model/tiny.yaml": "size: 4\n",
    "model/small.yaml": "size: 8\n",
    "model/hf.yaml": "path: ???\n",
    "defense/rep_noise.yaml": "_target_: immunax.runtime.mesh.MeshSpec\ndata: 1\n",
    "defense/tar.yaml": "alpha: 1.0\n",
    "trainer/sgd.yaml": "lr: 1e-4\nsteps: 10\nbetas: [0.9, 0.99]\n",
    "experiment/figure.yaml": "# @package _global_\ndefaults: [{/defense: tar}]\nseed: 3\n",
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

    def run(*argv, fail=None):
        jobs = []

        @launch.command(required=("defense",), folder=tmp_path / "conf")
        def task(config):
            if fail is not None:
                raise fail
            jobs.append((OmegaConf.to_container(config, resolve=True), launch.run_directory()))

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
        (["defense=tar", "hydra/launcher=absent"], "error: configuration: "),
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


def test_several_paths_are_a_sweep_of_models(start):
    _, jobs = start("-m", "defense=tar", "model=runs/one,runs/two")
    assert [job[0]["model"]["path"] for job in jobs] == ["runs/one", "runs/two"]


def test_a_sweep_runs_each_job_in_its_own_folder(start):
    _, jobs = start("defense=rep_noise,tar", "-m", "seed=1,2")
    assert [folder(job) for job in jobs] == ["rep_noise-tiny-1/0", "rep_noise-tiny-2/1", "tar-tiny-1/2", "tar-tiny-2/3"]
    _, jobs = start("-m", "defense=glob(t*)", "seed=range(1,3)", "run=mine")
    assert [(job[0]["seed"], folder(job)) for job in jobs] == [(1, "mine/0"), (2, "mine/1")]


def test_a_mistake_within_the_task_is_one_line(start, capfd):
    status, _ = start("defense=tar", fail=UserError("the tokenizer has no template"))
    assert status == 2
    assert capfd.readouterr().err == "error: the tokenizer has no template\n"


def test_an_interruption_is_one_line_and_status_130(start, capfd):
    status, _ = start("defense=tar", fail=KeyboardInterrupt())
    assert status == 130
    assert capfd.readouterr().err == "interrupted\n"


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


def test_the_configuration_is_found_beside_or_inside_the_package(tmp_path, monkeypatch):
    assert (launch.configuration_folder() / "config.yaml").is_file()
    installed = tmp_path / "immunax" / "runtime" / "launch.py"
    monkeypatch.setattr(launch, "__file__", str(installed))
    with pytest.raises(UserError, match="install immunax again"):
        launch.configuration_folder()
    inside = tmp_path / "immunax" / "conf"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text("")
    assert launch.configuration_folder() == inside


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
