"""Which tokens a loss is taken of."""

import jax
import numpy as np
import pytest
from small import MODEL, params, plain_logits

from immunax.data.batches import pack, pad, stack
from immunax.data.chat import Encoded
from immunax.data.packing import Layout
from immunax.inner.losses import answer_loss, every_token

EXAMPLES = [Encoded((3, 4, 5), (6, 7)), Encoded((8,), (9, 10, 11)), Encoded((12, 13), (14,))]
WEIGHTS = params()


def by_hand(examples) -> float:
    """Mean cross entropy of every token but the first, from the logits of each example alone."""
    losses = []
    for example in examples:
        log_probs = jax.nn.log_softmax(plain_logits(MODEL, WEIGHTS, example.tokens), axis=-1)
        losses += [-log_probs[column, label] for column, label in enumerate(example.tokens[1:])]
    return float(np.mean(losses))


@pytest.mark.parametrize(
    "batch", [pack(EXAMPLES, Layout(2, 8, 8)), pad(EXAMPLES, Layout(4, 6, 4))], ids=["packed", "padded"]
)
def test_every_token_but_the_first_of_each_example_is_a_label(batch):
    assert float(answer_loss(MODEL, WEIGHTS, every_token(batch))) == pytest.approx(by_hand(EXAMPLES), rel=1e-5)


def test_stacked_batches_are_labelled_as_each_alone():
    batches = [pad(EXAMPLES, Layout(3, 6, 4)), pad(EXAMPLES[::-1], Layout(3, 6, 4))]
    jax.tree.map(
        np.testing.assert_array_equal, every_token(stack(batches)), stack([every_token(part) for part in batches])
    )
