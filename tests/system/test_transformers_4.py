"""An export in the version of ``transformers`` before the one that wrote it, installed for this test alone."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiny_model
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from immunax.models import weights
from immunax.models.hub import ModelSource, export

ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
READ = """
    import json, sys
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig, __version__
    tokenizer, config, generation = (each.from_pretrained(sys.argv[1]) for each in (AutoTokenizer, AutoConfig, GenerationConfig))
    turns = [{"role": "user", "content": "the cat"}]
    print(json.dumps({
        "version": __version__,
        "ids": tokenizer("<|im_start|>the cat sat").input_ids,
        "plain": tokenizer.decode(tokenizer("<|im_start|>the cat<|im_end|>").input_ids, skip_special_tokens=True),
        "special": sorted(tokenizer.all_special_tokens),
        "rendered": tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True),
        "rope": [config.rope_theta, config.rope_scaling],
        "eos": generation.eos_token_id,
        "temperature": generation.temperature,
    }))
"""


@pytest.fixture
def exported(tmp_path) -> Path:
    """The export of a model that transformers 5 has saved, with special tokens, scaled positions and several ends."""
    source = tiny_model.write(tmp_path / "source")
    raw = {name: value for name, value in weights.read_json(source / "config.json").items() if "rope" not in name}
    weights.write_json(source / "config.json", {**raw, "rope_parameters": {"rope_theta": 5e5, **ROPE}})
    weights.write_json(
        source / "generation_config.json", {"eos_token_id": [2, 4], "temperature": 0.6, "do_sample": True}
    )
    checkpoint = ModelSource(str(source)).load()
    export(tmp_path / "out", checkpoint, checkpoint.params)
    return tmp_path / "out"


@pytest.mark.slow
def test_an_export_is_the_same_model_in_transformers_4_and_5(exported, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "transformers==4.57.*", "jinja2"], check=True)
    command = [python, "-c", textwrap.dedent(READ), exported]
    old = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert old["version"].startswith("4.57.")
    tokenizer, config = AutoTokenizer.from_pretrained(exported), AutoConfig.from_pretrained(exported)
    generation = GenerationConfig.from_pretrained(exported)
    assert old["ids"] == tokenizer("<|im_start|>the cat sat").input_ids
    assert old["plain"] == "the cat"
    assert (
        old["special"]
        == sorted(tokenizer.all_special_tokens)
        == ["<bos>", "<eos>", "<pad>", "<|im_end|>", "<|im_start|>"]
    )
    assert old["rendered"] == "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    assert old["rope"] == [5e5, ROPE]
    assert config.rope_parameters == {"rope_theta": 5e5, **ROPE}
    assert (old["eos"], old["temperature"]) == ([2, 4], 0.6) == (generation.eos_token_id, generation.temperature)
