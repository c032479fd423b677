"""What docs/how-to says can be added is added here, file by file as it stands there; docs/architecture.md names every room."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import quick
import tiny_model

from immunax.models import families, hub
from immunax.models.hf_config import build_config, parse_config
from immunax.models.model import Model

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
PAGE = ROOT / "docs" / "architecture.md"
SMALL = (
    "start=base",
    "trainer.steps=2",
    "trainer.max_length=128",
    "judge.prompts=2",
    "judge.examples=2",
    "judge.max_length=128",
    "judge.decoding.max_new_tokens=4",
    "judge.batch_size=2",
    "probes.prompts=2",
    "probes.max_new_tokens=4",
    "run=mine",
)


def blocks(kind: str, pages: str = "*.md") -> list[str]:
    texts = [page.read_text() for page in sorted(HOW_TO.glob(pages))]
    return [block for text in texts for block in re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.M | re.S)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the pages' files, a model and a data set, and nothing of the project in it."""
    folder = tmp_path_factory.mktemp("home")
    for block in [*blocks("python"), *blocks("yaml")]:
        path = folder / re.match(r"# (\S+)\n", block)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    (folder / "mine" / "__init__.py").touch()
    tiny_model.write(folder / "model")
    rows = [
        {
            "kind": kind,
            "request": f"{kind if kind == 'harmless' else 'how'} the {place}",
            "answer": f"{kind} answer the user {place}",
        }
        for kind in ("safe", "harmful", "harmless")
        for place in range(40)
    ]
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_defense_an_attack_an_optimizer_a_judge_and_a_data_set_are_used_by_the_commands(home):
    (command,) = blocks("sh", "index.md")
    _, *arguments = shlex.split(command.replace("\\\n", " "))
    flags = f"--xla_force_host_platform_device_count=1 {quick.FLAGS}"
    environment = {**os.environ, "IMMUNAX_CACHE": str(home / "cache"), "XLA_FLAGS": flags, "PYTHONPATH": str(home)}
    done = subprocess.run(
        [sys.executable, *arguments, *SMALL], cwd=home, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    folder = home / "outputs" / "mine"
    logged = [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("order" in values for values in logged)
    assert "length" in (folder / "records.jsonl").read_text()
    config = json.loads((folder / "manifest.json").read_text())["config"]
    assert config["red_team"]["tuning"]["optimizer"]["_target_"] == "mine.lion.Lion"


def test_a_family_is_a_file_and_a_line(home, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(home))
    family = importlib.import_module("mine.sketch").SKETCH
    monkeypatch.setitem(families.FAMILIES, family.model_type, family)
    plain = build_config(tiny_model.CONFIG, {})
    config = parse_config({**plain, "model_type": "sketch", "architectures": ["SketchForCausalLM"]}, "config.json")
    assert (config.family, config.qkv_bias, config.qk_norm) == ("sketch", True, True)
    params = jax.tree.map(np.asarray, jax.jit(Model(config).init)(jax.random.key(0)))
    tokenizer = hub.resolve(str(home / "model")).load().tokenizer
    raw = build_config(config, {})
    hub.export(tmp_path / "model", hub.Checkpoint(config, params, tokenizer, raw, "float32", {}), params)
    again = hub.resolve(str(tmp_path / "model")).load()
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


def test_what_a_page_adds_is_one_python_file_and_one_yaml_at_most_each_of_forty_lines_at_most():
    for page in sorted(HOW_TO.glob("*.md")):
        for kind in ("python", "yaml"):
            found = blocks(kind, page.name)
            assert len(found) <= 1, page
            assert all(block.count("\n") <= 40 for block in found), page


def test_every_room_stands_on_the_page():
    text = PAGE.read_text()
    package = ROOT / "immunax"
    for room in (each.name for each in package.iterdir() if (each / "__init__.py").exists()):
        assert f"{room}/" in text, room
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text):
        assert (package / path).exists() or (ROOT / path).exists(), path
