"""A whole model small enough to train in a test: a Hugging Face folder with the tiny tokenizer."""

import copy
from functools import cache
from pathlib import Path

import jax
import numpy as np
import tiny

from immunax.models import hub
from immunax.models.config import DecoderConfig
from immunax.models.hf_config import build_config
from immunax.models.model import Model

CONFIG = DecoderConfig(
    "llama",
    vocab_size=304,
    d_model=32,
    d_ff=48,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    max_positions=512,
    tie_embeddings=True,
)


def write(folder: Path) -> Path:
    """Exports a random model of this shape; the same one every time."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.model_max_length = CONFIG.max_positions
    params = _params()
    ids = {"bos_token_id": 1, "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"), "pad_token_id": 0}
    checkpoint = hub.Checkpoint(CONFIG, params, tokenizer, build_config(CONFIG, ids), "float32", {})
    hub.export(folder, checkpoint, params)
    return folder


@cache
def _params():
    return jax.tree.map(np.asarray, jax.jit(Model(CONFIG).init)(jax.random.key(0)))
