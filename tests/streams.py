"""One small batch of every stream, a naive cross entropy, and a short outer loop on them."""

from dataclasses import replace

import jax
import numpy as np
import small

from immunax.inner.optimizers import AdamW
from immunax.models.model import Model
from immunax.outer.defense import StreamBatch
from immunax.outer.training import Training, begin, outer_step

MODEL = Model(replace(small.CONFIG, n_layers=1))
WEIGHTS = small.params(model=MODEL)
KEY = jax.random.key(7)

BATCH = StreamBatch(small.batch(1, 3), small.batch(2, 5), small.batch(3, 4))


def log_probs(weights, batch, label=None):
    """Of the answer tokens, or of one token in their places, one by one."""
    hidden = MODEL.apply(weights, batch.tokens, batch.segment_ids, batch.positions).hidden
    return read(weights, hidden, batch, label)


def read(weights, hidden, batch, label=None):
    """The same off hidden states, from full [B, T, V] logits."""
    scores = jax.nn.log_softmax(hidden @ weights["embed_tokens"]["embedding"].T, axis=-1)
    rows, places = np.nonzero(batch.answer_weight)
    return scores[rows, batch.answer_index[rows, places], batch.answer_label[rows, places] if label is None else label]


def cross_entropy(weights, batch):
    """Mean over the answer tokens."""
    return -log_probs(weights, batch).mean()


def value_and_gradient(defense):
    """The defense's loss on the batch and its gradient, at ``WEIGHTS``."""
    return jax.jit(jax.value_and_grad(lambda w: defense.loss(MODEL, w, (), BATCH, KEY)[0]))(WEIGHTS)


def assert_same(ours, theirs, rtol, atol):
    """Two trees, leaf by leaf."""
    for mine, reference in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=rtol, atol=atol)


def train(defense, steps=20, learning_rate=3e-3):
    """The scalars of the first and of the last outer step, all on the same batch."""
    training = Training(steps=steps, optimizer=AdamW(learning_rate))
    state = begin(MODEL, WEIGHTS, defense, training, BATCH)
    seen = []
    for _ in range(steps):
        state, metrics = outer_step(MODEL, defense, training, state, BATCH)
        seen.append(metrics)
    return seen[0], seen[-1]
