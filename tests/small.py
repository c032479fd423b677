"""A decoder small enough to check by hand, and random batches for it."""

import jax
import jax.numpy as jnp
import numpy as np

from immunax.models.config import DecoderConfig
from immunax.models.model import Model

CONFIG = DecoderConfig(
    "llama",
    vocab_size=53,
    d_model=24,
    d_ff=40,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    head_dim=6,
    max_positions=64,
    tie_embeddings=True,
)
MODEL = Model(CONFIG)


def params(seed: int = 0, model: Model = MODEL):
    """Weights large enough that the answers depend on them."""
    return jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 1 else leaf, model.init(jax.random.key(seed)))


def tokens(rows: int, width: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(3, CONFIG.vocab_size, (rows, width)), jnp.int32)


def plain_logits(model, weights, row) -> jax.Array:
    """Logits of one unpadded sequence, [T, V]."""
    row = jnp.asarray(row, jnp.int32)[None]
    hidden = model.apply(weights, row, jnp.ones_like(row), jnp.arange(row.shape[1])[None]).hidden
    return model.logits(weights, hidden)[0]
