"""What a newcomer meets first: the list of commands, and what each says of itself."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from processes import environment

import immunax.__main__ as front
from immunax.__main__ import commands as told
from immunax.__main__ import main
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.launch import composed

NAMES = ("attack", "certify", "compile", "figure", "leaderboard", "push", "results", "train", "verify")
HYDRAS = ("train", "attack", "certify", "compile")
_QUIET = """
import sys
from immunax.__main__ import main
assert main([]) == 0
found = {"jax", "hydra", "numpy", "huggingface_hub"} & sys.modules.keys()
assert not found, found
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, text=True, capture_output=True)


def test_the_help_has_one_line_for_every_command(capsys):
    assert tuple(told()) == NAMES
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    out = capsys.readouterr().out
    for name, line in told().items():
        assert len(line.split()) > 2
        assert f"{name:<11}  {line}\n" in out
    assert "immunax train +defense=rep_noise" in out


def test_a_new_command_appears_by_itself(tmp_path, monkeypatch):
    (tmp_path / "brew.py").write_text('"""``python -m immunax.brew``: make tea.\n\nMore.\n"""\n')
    (tmp_path / "_own.py").write_text('"""Not one."""\n')
    monkeypatch.setattr(front, "__file__", str(tmp_path / "__main__.py"))
    assert told() == {"brew": "make tea"}


def test_the_help_imports_none_of_the_large_libraries(tmp_path):
    done = python("-c", _QUIET, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("push", "x"), ("verify", "nowhere.json"), ("results", "wher=x")])
def test_a_command_by_its_name_is_the_module_itself(tmp_path, words):
    name, *rest = words
    one, other = python("-m", "immunax", *words, cwd=tmp_path), python("-m", f"immunax.{name}", *rest, cwd=tmp_path)
    assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert one.returncode == 2


@pytest.mark.parametrize("name", ["yaml.py", "ast.py"])
def test_a_module_beside_a_strangers_file_is_not_imported(tmp_path, name):
    (tmp_path / name).write_text("raise SystemExit('taken')")
    done = python("-m", "immunax", "verify", "nowhere.json", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "taken" not in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_what_it_takes_in_one_screen(commands, tmp_path, name):
    if name in HYDRAS:
        done = commands.run(tmp_path, environment(tmp_path, 1), name, "--help")
    else:
        done = python("-m", f"immunax.{name}", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"immunax {name} " in done.stdout or f"immunax.{name} " in done.stdout
    lines = [part for line in done.stdout.splitlines() for part in textwrap.wrap(line, 120) or [""]]
    assert 10 <= len(lines) <= 55
    assert not any(line.startswith("experiment/") for line in lines)
    assert "powered by Hydra" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", HYDRAS)
def test_the_examples_of_a_help_compose(name):
    footer = OmegaConf.load(configuration_folder() / f"{name}.yaml").hydra.help.footer
    examples = [line.partition("#")[0].split() for line in footer.splitlines()]
    assert examples
    for command, own, *words in examples:
        assert (command, own) == ("immunax", name)
        if not any("FILE" in word for word in words):
            # A reference is a group by its file alone where no command reads the words.
            composed(name, [word for word in words if word != "-m" and not word.startswith("reference=")])
