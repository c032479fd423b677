"""A model that compiles what SmolLM2 compiles and computes a thousandth of it: its tokenizer and template, few and narrow layers.

    uv run python experiments/compilations/small.py FOLDER

Layers are scanned, so their number and width are in the shapes of programs and not in their number.
"""

import sys
from dataclasses import replace
from pathlib import Path

import jax

from immunax.models import hub
from immunax.models.hf_config import build_config
from immunax.models.model import Model
from immunax.runtime.launch import composed


def write(folder: Path) -> None:
    """Exports it with random weights, the same ones every time."""
    loaded = composed("certify", ["model=smollm2"]).build("model").load()
    config = replace(loaded.config, d_model=32, d_ff=64, n_layers=4, n_heads=3, n_kv_heads=1, head_dim=16)
    params = jax.jit(Model(config).init)(jax.random.key(0))
    ids = {name: loaded.hf_config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    made = replace(loaded, config=config, params=params, hf_config=build_config(config, ids))
    hub.export(folder, made, params)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
