"""One small batch of every stream, a naive cross entropy, and a short outer loop on them."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import small

from immunax.data.batches import pad
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
from immunax.defenses.defense import StreamBatch
from immunax.defenses.training import Training, begin, outer_step
from immunax.inner.optimizers import AdamW
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, n_layers=1))
WEIGHTS = small.params(model=MODEL)
KEY = jax.random.key(7)

# Half the time to compile; a program here runs once.
FAST_COMPILE = {"xla_backend_optimization_level": 0}
jit = partial(jax.jit, compiler_options=FAST_COMPILE)


def _batch(seed, length):
    rng = np.random.default_rng(seed)
    prompts = [tuple(np.random.default_rng(i).integers(3, 53, 4 + i).tolist()) for i in range(3)]
    answers = [tuple(rng.integers(3, 53, length + i).tolist()) for i in range(3)]
    return pad([Encoded(*pair) for pair in zip(prompts, answers, strict=True)], Layout(3, 16, 8))


BATCH = StreamBatch(_batch(1, 3), _batch(2, 5), _batch(3, 4))


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
    return jit(jax.value_and_grad(lambda w: defense.loss(MODEL, w, (), BATCH, KEY)[0]))(WEIGHTS)


def assert_same(ours, theirs, rtol, atol):
    """Two trees, leaf by leaf."""
    for mine, reference in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=rtol, atol=atol)


def train(defense, steps=20, learning_rate=3e-3):
    """The scalars of the first and of the last outer step, all on the same batch."""
    training = Training(steps=steps, optimizer=AdamW(learning_rate))
    state = begin(MODEL, WEIGHTS, defense, training, BATCH)
    step = outer_step.lower(MODEL, defense, training, state, BATCH).compile(FAST_COMPILE)
    seen = []
    for _ in range(steps):
        state, metrics = step(state, BATCH)
        seen.append(metrics)
    return seen[0], seen[-1]
