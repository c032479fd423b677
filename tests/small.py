"""A decoder small enough to check by hand, and random batches for it."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from immunax.data.batches import Batch, pad
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
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
    return jax.tree.map(lambda leaf: leaf, _params(seed, model))


@cache
def _params(seed: int, model: Model):
    def scaled(key):
        return jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 1 else leaf, model.init(key))

    return jax.jit(scaled)(jax.random.key(seed))


def tokens(rows: int, width: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(3, CONFIG.vocab_size, (rows, width)), jnp.int32)


def plain_logits(model, weights, row) -> jax.Array:
    """Logits of one unpadded sequence, [T, V]."""
    return _plain_logits(model, weights, jnp.asarray(row, jnp.int32)[None])


@partial(jax.jit, static_argnums=0)
def _plain_logits(model, weights, row):
    hidden = model.apply(weights, row, jnp.ones_like(row), jnp.arange(row.shape[1])[None]).hidden
    return model.logits(weights, hidden)[0]


def batch(seed: int, length: int) -> Batch:
    """Three examples of one row each, [3, 16]; every seed has the same three prompts, and its own answers."""
    prompts = [tuple(np.random.default_rng(i).integers(3, 53, 4 + i).tolist()) for i in range(3)]
    rng = np.random.default_rng(seed)
    answers = [tuple(rng.integers(3, 53, length + i).tolist()) for i in range(3)]
    return pad([Encoded(*pair) for pair in zip(prompts, answers, strict=True)], Layout(3, 16, 8))


def answer_nll(weights, hidden, batch: Batch) -> jax.Array:
    """Mean answer cross entropy from full [B, T, V] logits."""
    return -answer_log_probs(weights, hidden, batch).mean()


def answer_log_probs(weights, hidden, batch: Batch) -> jax.Array:
    """Log probability of each answer token, [N], from full [B, T, V] logits."""
    log_probs = jax.nn.log_softmax(hidden @ weights["embed_tokens"]["embedding"].T, axis=-1)
    rows, places = np.nonzero(batch.answer_weight)
    return log_probs[rows, batch.answer_index[rows, places], batch.answer_label[rows, places]]
